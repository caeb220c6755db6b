"""Runs the cases against the clusters asked for, and counts."""

import argparse
import contextlib
import itertools
import os
import pathlib
import re
import sys
import tempfile
import time
import traceback
import uuid

from . import consume_cases, corpus_cases, group_cases, murmur2, publish_cases, transaction_cases
from .clients import Cluster
from .program import Tidegate, embedded


class Ring:
    """What a case gets: the program, the cluster, the seed, and a way to say what must be equal."""

    def __init__(self, tidegate: Tidegate, cluster: Cluster, seed: int):
        self.tidegate = tidegate
        self.cluster = cluster
        self.seed = seed
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)

    def topic(self) -> str:
        return f"interop-{self._run}-{next(self._numbers)}"

    def equal(self, found, expected, what: str) -> None:
        if found != expected:
            raise AssertionError(f"{what}\n      found    {shorten(found)}\n      expected {shorten(expected)}")


def shorten(value) -> str:
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:600]}... ({len(text)} characters)"


def all_cases():
    yield from publish_cases.cases()
    yield from consume_cases.cases()
    yield from group_cases.cases()
    yield from transaction_cases.cases()


def corpus() -> pathlib.Path:
    """The folder with other people's packages, as `interop/run` fetched them."""
    folder = os.environ.get("TIDEGATE_CORPUS")
    if not folder:
        raise SystemExit("TIDEGATE_CORPUS names no folder: start the ring by interop/run")
    return pathlib.Path(folder)


def run_case(ring: Ring, name: str, case) -> bool:
    """Whether it passed."""
    title = f"{ring.cluster.name}: {name}"
    start = time.monotonic()
    try:
        case(ring)
    except AssertionError as difference:
        print(f"FAILED {title}: {difference}", flush=True)
        return False
    except Exception:
        print(f"FAILED {title}:\n{traceback.format_exc()}", flush=True)
        return False
    print(f"ok {title} ({time.monotonic() - start:.1f} s)", flush=True)
    return True


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="interop/run", description=__doc__)
    parser.add_argument("--tidegate", default=os.environ.get("TIDEGATE_BIN"), help="the binary; env TIDEGATE_BIN")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="a real Kafka")
    parser.add_argument("--registry", metavar="URL", help="a real Schema Registry")
    parser.add_argument("--embedded", action="store_true", help="`tidegate broker`, started for the run")
    parser.add_argument("--only", metavar="REGEX", default="", help="run the cases whose name matches")
    parser.add_argument("--seed", type=int, default=20260301, help="what the data are made from (%(default)s)")
    asked = parser.parse_args()
    if not asked.tidegate:
        parser.error("--tidegate or TIDEGATE_BIN must name the binary")
    if bool(asked.kafka) != bool(asked.registry):
        parser.error("--kafka and --registry go together")
    if not asked.kafka and not asked.embedded:
        parser.error("nothing to run against: --kafka with --registry, or --embedded, or both")
    return asked


def main() -> int:
    asked = arguments()
    murmur2.self_check()
    results = []
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-interop-")))
        tidegate = Tidegate(pathlib.Path(asked.tidegate).resolve(), folder)
        print(f"seed {asked.seed}, {tidegate.run('--version').expect(0).stdout.decode().strip()}", flush=True)
        clusters = []
        if asked.kafka:
            clusters.append(Cluster("real", asked.kafka, asked.registry))
        if asked.embedded:
            clusters.append(stack.enter_context(embedded(tidegate)))
        for cluster in clusters:
            ring = Ring(tidegate, cluster, asked.seed)
            cases = list(all_cases())
            if cluster is clusters[0]:
                # What they are about does not depend on the broker.
                cases += corpus_cases.cases(corpus())
            chosen = [(name, case) for name, case in cases if re.search(asked.only, name)]
            results += [run_case(ring, name, case) for name, case in chosen]
    passed, failed = results.count(True), results.count(False)
    print(f"{passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
