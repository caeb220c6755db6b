"""measure.py FILE SECONDS COMMAND...: runs a command and writes what it took to FILE, as JSON.

A process of its own, because the peak memory that the operating system counts for a command begins with that of the
process which started it: this one is small, compare.py with its Kafka client is not. A command that takes longer
than SECONDS is killed.
"""

import json
import os
import signal
import subprocess
import sys
import time


def main() -> None:
    output, deadline, *command = sys.argv[1:]
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    signal.signal(signal.SIGALRM, lambda *_: process.kill())
    signal.alarm(int(deadline))
    _, status, usage = os.wait4(process.pid, 0)
    figures = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    with open(output, "w") as file:
        json.dump(figures, file)


if __name__ == "__main__":
    main()
