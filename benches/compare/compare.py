"""Runs tidegate and its peers in turn against one Kafka, and prints medians of paired ratios. See README.md."""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import uuid

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

HERE = pathlib.Path(__file__).parent
PEERS = pathlib.Path(os.environ.get("TIDEGATE_PEERS", "")) / "release"
PATIENCE = 60.0
MEBIBYTE = 1 << 20

# What the project promises (docs/DESIGN.md): how many times as fast as a peer, and memory.
BARS = {"rdkafka": 4.0, "kcat": 1.8}
# And how fast tidegate itself must be when it also proves that nothing is there twice, as a share of its speed without.
EXACTLY_ONCE_SHARE = 0.95
BATCH_SIZE = 1_000_000
BASE_MEMORY = 48 * MEBIBYTE


@dataclasses.dataclass(frozen=True)
class Loader:
    """A way to get a file's rows into a topic."""

    name: str
    what: str
    rows: int
    records: int
    command: list[str]


@dataclasses.dataclass(frozen=True)
class Result:
    """One run: rates count from the start of the process to its end."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    rows: int

    @property
    def rate(self) -> float:
        return self.rows / self.seconds

    @property
    def cpu_micros(self) -> float:
        return self.cpu_seconds / self.rows * 1e6


class Bench:
    """The cluster, the files, and the loaders made for them."""

    def __init__(self, asked: argparse.Namespace):
        self.asked = asked
        self.admin = AdminClient({"bootstrap.servers": asked.kafka, "log_level": 3})
        schema = Schema((HERE / "rows.avsc").read_text(), "AVRO")
        self.schema_id = SchemaRegistryClient({"url": asked.registry}).register_schema("tidegate-compare-value", schema)

    def file(self, rows: int) -> str:
        """The CSV file of that many rows, made once and kept."""
        path = self.asked.cache / f"usage-{rows}.csv"
        if not path.exists():
            started = time.monotonic()
            unfinished = path.with_suffix(".new")
            subprocess.run([PEERS / "generate", unfinished, str(rows)], check=True)
            unfinished.rename(path)
            seconds = time.monotonic() - started
            print(f"made {path.name}: {path.stat().st_size / 1e6:.0f} MB in {seconds:.1f} s", flush=True)
        return str(path)

    def loaders(self) -> list[Loader]:
        asked, rows, file = self.asked, self.asked.rows, self.file(self.asked.rows)
        python_rows, flush_rows = min(rows, asked.python_rows), min(rows, asked.flush_rows)
        kafka, schema_id = asked.kafka, str(self.schema_id)
        schema = str(HERE / "rows.avsc")
        tidegate = [asked.tidegate, "publish", file, "-t", "TOPIC", "-b", kafka, "--registry", asked.registry]
        tidegate += ["--schema", schema, "--compression", "lz4", "--no-progress", "-q"]
        # Without a topic for positions it keeps none.
        at_least_once = ["--delivery", "at-least-once", "--positions-topic", "tidegate-compare-no-positions"]
        kcat = ["kcat", "-q", "-P", "-b", kafka, "-t", "TOPIC", "-z", "lz4", "-l", file]
        for setting in ("acks=all", "enable.idempotence=true", "linger.ms=50", "batch.size=1000000",
                        "batch.num.messages=100000", "queue.buffering.max.messages=1000000"):  # fmt: skip
            kcat += ["-X", setting]
        python, flush_each = str(HERE / "python_loader.py"), str(HERE / "flush_each.py")
        found = [
            Loader("tidegate", "tidegate publish, Avro, lz4, at least once", rows, rows, tidegate + at_least_once),
            Loader("exactly-once", "tidegate publish, Avro, lz4, exactly once", rows, rows, tidegate),
            Loader("prebuilt", "batches built beforehand, only sent (the limit)", rows, rows,
                   [str(PEERS / "prebuilt"), kafka, "TOPIC", str(asked.partitions), str(rows)]),
            Loader("kcat", "kcat (librdkafka in C), lines as they are, no parsing, no key", rows, rows + 1, kcat),
            Loader("rdkafka", "the same program through the rdkafka crate", rows, rows,
                   [str(PEERS / "rdkafka_loader"), file, kafka, "TOPIC", schema_id]),
            Loader("python", "Python csv + fastavro + confluent-kafka", python_rows, python_rows,
                   [sys.executable, python, self.file(python_rows), kafka, "TOPIC", schema_id]),
            Loader("flush-each", "Python, a flush after every message", flush_rows, flush_rows,
                   [sys.executable, flush_each, self.file(flush_rows), kafka, "TOPIC", asked.registry]),
        ]  # fmt: skip
        wanted = asked.loaders.split(",") if asked.loaders else [loader.name for loader in found]
        unknown = set(wanted) - {loader.name for loader in found}
        if unknown:
            raise SystemExit(f"no loader is called {', '.join(sorted(unknown))}")
        return [loader for loader in found if loader.name == "tidegate" or loader.name in wanted]

    def run(self, loader: Loader) -> Result:
        """One load into a topic of its own, checked for its count and deleted."""
        topic = f"tidegate-compare-{uuid.uuid4().hex[:12]}"
        self.create(topic)
        command = [topic if word == "TOPIC" else str(word) for word in loader.command]
        with tempfile.NamedTemporaryFile() as output:
            measure = [sys.executable, "-I", "-S", str(HERE / "measure.py"), output.name, str(self.asked.timeout)]
            subprocess.run(measure + command, check=True)
            figures = json.load(output)
        exit_code = figures.pop("exit_code")
        if exit_code != 0:
            raise SystemExit(f"{loader.name} ended with {exit_code} after {figures['seconds']:.1f} s: {' '.join(command)}")
        delivered = self.count_committed(topic) if loader.name == "exactly-once" else self.count(topic)
        self.admin.delete_topics([topic])[topic].result(PATIENCE)
        # The prebuilt batches are whole: the last one may go beyond what was asked for.
        right = delivered >= loader.records if loader.name == "prebuilt" else delivered == loader.records
        if not right:
            raise SystemExit(f"{loader.name} left {delivered} records in the topic instead of {loader.records}")
        rows = delivered if loader.name == "prebuilt" else loader.rows
        return Result(rows=rows, **figures)

    def create(self, topic: str) -> None:
        self.admin.create_topics([NewTopic(topic, self.asked.partitions, 1)])[topic].result(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self.admin.list_topics(topic, timeout=PATIENCE).topics[topic]
            if found.error is None and all(p.leader >= 0 for p in found.partitions.values()):
                return
            if time.monotonic() > deadline:
                raise SystemExit(f"{topic} did not appear")
            time.sleep(0.05)

    def count_committed(self, topic: str) -> int:
        """Records in the topic for readers of what is committed: markers take offsets too, so they are read and counted."""
        read = ["kcat", "-q", "-C", "-b", self.asked.kafka, "-t", topic, "-o", "beginning", "-e"]
        read += ["-X", "isolation.level=read_committed", "-X", "check.crcs=false", "-f", "\n"]
        with subprocess.Popen(read, stdout=subprocess.PIPE) as process:
            total = sum(chunk.count(b"\n") for chunk in iter(lambda: process.stdout.read(MEBIBYTE), b""))
        if process.returncode != 0:
            raise SystemExit(f"kcat ended with {process.returncode}: {' '.join(read)}")
        return total

    def count(self, topic: str) -> int:
        """Records in the topic where no transactions are used: offsets count them."""
        consumer = Consumer({"bootstrap.servers": self.asked.kafka, "group.id": "tidegate-compare"})
        total = 0
        for partition in range(self.asked.partitions):
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=PATIENCE)
            total += high - low
        consumer.close()
        return total


def rounds(bench: Bench, loaders: list[Loader], count: int) -> dict[str, list[Result]]:
    """Every loader once a round, each round beginning with another one."""
    results = {loader.name: [] for loader in loaders}
    for number in range(count):
        turn = number % len(loaders)
        for loader in loaders[turn:] + loaders[:turn]:
            result = bench.run(loader)
            results[loader.name].append(result)
            print(
                f"round {number + 1} {loader.name:10} {result.rate / 1e6:8.3f} M rows/s {result.seconds:7.2f} s"
                f" {result.cpu_micros:7.2f} us CPU/row {result.peak_bytes / MEBIBYTE:7.0f} MiB",
                flush=True,
            )
    return results


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return statistics.median(values), min(values), max(values)


def report(asked, loaders: list[Loader], results: dict[str, list[Result]]) -> dict:
    """Prints the table and returns it as data."""
    ours = results["tidegate"]
    table = {}
    print(f"\n{asked.rows} rows, {asked.partitions} partitions, {len(ours)} rounds, {platform.machine()}, {os.cpu_count()} cores")
    print("| loader | rows | M rows/s | CPU us/row | peak MiB | tidegate is so many times as fast |")
    print("|---|---|---|---|---|---|")
    for loader in loaders:
        runs = results[loader.name]
        rate, lowest, highest = spread([run.rate / 1e6 for run in runs])
        cpu, peak = statistics.median(run.cpu_micros for run in runs), max(run.peak_bytes for run in runs)
        # Pairs of one round: what slows the machine down for a while slows both.
        ratio = spread([mine.rate / theirs.rate for mine, theirs in zip(ours, runs)])
        table[loader.name] = {
            "rows": loader.rows,
            "rows_per_second": {"median": rate * 1e6, "min": lowest * 1e6, "max": highest * 1e6},
            "cpu_micros_per_row": cpu,
            "peak_bytes": peak,
            "times_as_fast": dict(zip(("median", "min", "max"), ratio)),
            "runs": [dataclasses.asdict(run) for run in runs],
        }
        print(
            f"| {loader.what} | {loader.rows} | {rate:.3f} ({lowest:.3f} to {highest:.3f}) | {cpu:.2f} | {peak / MEBIBYTE:.0f} "
            f"| {ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f}) |"
        )
    return table


def check(asked, table: dict) -> list[str]:
    """What falls short of the bars."""
    short = []
    for name, bar in BARS.items():
        if name in table and table[name]["times_as_fast"]["median"] < bar:
            short.append(f"{table[name]['times_as_fast']['median']:.2f} times as fast as {name}, and the bar is {bar}")
    if "exactly-once" in table:
        share = 1 / table["exactly-once"]["times_as_fast"]["median"]
        if share < EXACTLY_ONCE_SHARE:
            short.append(f"exactly once at {share:.3f} of the speed of at least once, and the bar is {EXACTLY_ONCE_SHARE}")
    limit = BASE_MEMORY + 3 * asked.partitions * BATCH_SIZE
    if table["tidegate"]["peak_bytes"] > limit:
        short.append(f"{table['tidegate']['peak_bytes']} bytes at the peak, and the bar is {limit}")
    return short


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/compare/run", description=__doc__)
    parser.add_argument("--kafka", required=True, metavar="HOST:PORT", help="a Kafka of one broker, otherwise idle")
    parser.add_argument("--registry", required=True, metavar="URL", help="a Schema Registry")
    parser.add_argument("--rows", type=int, default=36_000_000, help="rows of the file (%(default)s)")
    parser.add_argument("--python-rows", type=int, default=1_000_000, help="rows for the Python loader (%(default)s)")
    parser.add_argument("--flush-rows", type=int, default=10_000, help="rows for the flushing one (%(default)s)")
    parser.add_argument("--partitions", type=int, default=1, help="partitions of each topic (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="%(default)s")
    parser.add_argument("--timeout", type=int, default=600, help="seconds after which a load is killed (%(default)s)")
    parser.add_argument("--loaders", metavar="NAME,...", help="these and tidegate (all)")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--tidegate", default=os.environ.get("TIDEGATE_BIN", "tidegate"), help="the binary; env TIDEGATE_BIN")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("."), help="where the CSV files are kept")
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    bench = Bench(asked)
    loaders = bench.loaders()
    print("warming up", flush=True)
    small = argparse.Namespace(**vars(asked) | {"rows": min(asked.rows, 1_000_000), "loaders": "prebuilt"})
    warm = Bench(small)
    for loader in warm.loaders():
        warm.run(loader)
    table = report(asked, loaders, rounds(bench, loaders, asked.rounds))
    if asked.json:
        asked.json.write_text(json.dumps({"rows": asked.rows, "partitions": asked.partitions, "loaders": table}, indent=1))
    short = check(asked, table)
    for line in short:
        print(f"below the bar: {line}")
    return 1 if short and asked.check else 0


if __name__ == "__main__":
    sys.exit(main())
