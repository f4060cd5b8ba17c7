"""How long a ten-hour recording of one message a second takes to open: `python benchmarks/quiet_recording.py`.

Each message is a batch of its own, as the recorder writes it: the child before is reaped, a child is forked, ends, and stays a
zombie. The 36,000 batches are then merged, as `record` does at its end. Prints the size before and after, the time of merging,
and of the median of three runs of reading and making the table, before and after.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from table_scale import HEADER, MS, seconds, stacks

from forktrace.trace import events, stream

MESSAGES = 36_000
SECOND = 1000 * MS


def message(number: int) -> list[dict[str, Any]]:
    """Return the events of one message."""
    begin, pid = (number + 1) * SECOND, 1000 + number % 30_000
    rows = [] if number == 0 else [reap(number - 1, begin - MS)]
    fork = events.fork(begin, pid, by=100, parent=100, comm="python", stack=stacks("fork")[0], stack_status="ok")
    return [*rows, fork, events.exit_(begin + MS, pid, 0, parent=100), events.zombie(begin + 2 * MS, pid, parent=100)]


def reap(number: int, time_ns: int) -> dict[str, Any]:
    """Return the reap of the child of message `number`."""
    return events.reap(time_ns, 1000 + number % 30_000, by=100, stack=stacks("reap")[0], stack_status="ok")


def report(path: Path, name: str) -> None:
    """Print the size and the times of one file."""
    runs = [seconds(path) for _ in range(3)]
    reading, making = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"{name:<14} {os.path.getsize(path) / 1e6:6.1f} MB  read {reading:.2f} s  table {making:.2f} s", flush=True)


def main() -> None:
    """Write, measure, merge, measure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quiet.arrows"
        with path.open("wb") as file:
            writer = stream.Writer(file, HEADER)
            writer.write(stream.batch_of([events.fork(0, 100, by=50, origin="target", comm="python")]))
            for number in range(MESSAGES):
                writer.write(stream.batch_of(message(number)))
            last = (MESSAGES + 1) * SECOND
            writer.write(stream.batch_of([reap(MESSAGES - 1, last), events.end(last + MS)]))
            writer.close()
        report(path, "as written")
        begin = time.perf_counter()
        stream.merge(path)
        print(f"merging took {time.perf_counter() - begin:.2f} s", flush=True)
        report(path, "merged")


if __name__ == "__main__":
    main()
