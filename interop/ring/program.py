"""Running the program under test, as a user would: by its command line and nothing else."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from .clients import PATIENCE, Cluster

TIMEOUT = 120.0


@dataclasses.dataclass(frozen=True)
class Done:
    """How a run ended."""

    command: list[str]
    exit_code: int
    stdout: bytes
    stderr: bytes

    def summary(self) -> dict:
        """The one JSON object of `-o json`."""
        return json.loads(self.stdout)

    def lines(self) -> list[dict]:
        """One JSON object a line."""
        return [json.loads(line) for line in self.stdout.split(b"\n") if line]

    def expect(self, exit_code: int) -> "Done":
        told = f"{' '.join(self.command)}\n{self.stderr.decode(errors='replace')}"
        assert self.exit_code == exit_code, f"exit code {self.exit_code} instead of {exit_code}: {told}"
        return self


class Tidegate:
    """The binary, and a folder to run it in."""

    def __init__(self, binary: pathlib.Path, folder: pathlib.Path):
        self.binary = binary
        self.folder = folder

    def file(self, name: str, content: bytes | dict) -> str:
        """Writes a file for a run; a dict as JSON."""
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return str(path)

    def run(self, *arguments: str) -> Done:
        command = [str(self.binary), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, timeout=TIMEOUT, env=environment())
        return Done(command, done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str, stdout=None) -> subprocess.Popen:
        """Starts a run whose output is kept in the folder, unless `stdout` says otherwise."""
        command = [str(self.binary), *arguments]
        output = open(self.folder / "running.log", "ab")
        return subprocess.Popen(command, cwd=self.folder, stdout=stdout or output, stderr=output, env=environment())

    def publish(self, cluster: Cluster, file: str, topic: str, *options: str) -> Done:
        where = ["-b", cluster.bootstrap, "--registry", cluster.registry_url]
        return self.run("publish", file, "-t", topic, *where, "--create-topic", "-o", "json", "--no-progress", *options)

    def consume(self, cluster: Cluster, topic: str, *options: str) -> Done:
        where = ["-b", cluster.bootstrap, "--registry", cluster.registry_url]
        return self.run("consume", "-t", topic, *where, "--no-progress", *options)

    def balance(self, cluster: Cluster, group: str, topic: str, *options: str) -> Done:
        return self.run("balance", "-g", group, "-t", topic, "-b", cluster.bootstrap, "-o", "json", *options)


def environment() -> dict[str, str]:
    """The caller's environment without what would steer the program."""
    steering = ("KAFKA_", "SCHEMA_REGISTRY_", "TIDEGATE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(steering)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def embedded(tidegate: Tidegate):
    """`tidegate broker`, serving other clients on ports of its own until the block ends."""
    kafka, registry = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    data = str(tidegate.folder / "broker-data")
    process = tidegate.start("broker", "--listen", kafka, "--registry-listen", registry, "--data-dir", data)
    try:
        wait_until_serving(process, f"http://{registry}/subjects")
        yield Cluster("embedded", kafka, f"http://{registry}")
        assert process.poll() is None, f"the broker ended by itself with {process.returncode}"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)


def wait_until_serving(process: subprocess.Popen, url: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, f"the broker ended with {process.returncode}"
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < deadline, f"{url} did not answer"
            time.sleep(0.05)
