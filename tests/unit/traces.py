"""Makes traces of event rows, by way of a real file, so that tests see what a reader of a recording would see."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.trace import stream

BOOT_NS = 1_700_000_000_000_000_000  # the wall clock at CLOCK_BOOTTIME 0

HEADER: dict[str, Any] = {
    "forktrace": "0.1.0",
    "command": ["python", "consumer.py"],
    "cwd": "/srv",
    "target_pid": 100,
    "target_start_ns": 0,
    "user": "alice",
    "host": "box",
    "boot_id": "b",
    "kernel": "6.18.0",
    "start_ns": 0,
    "clock_offset_ns": BOOT_NS,
    "recorder_pid": 50,
    "pid_ns": 4026531836,
}

MS = 1_000_000


def recording(*rows: ev.Row, closed: bool = True, **header: Any) -> Recording:
    """Return the recording of `rows`, each process without a start being found by its number, as a reader does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "test.arrows"
        with path.open("wb") as file:
            writer = stream.Writer(file, HEADER | header)
            writer.write(stream.batch_of(rows))
            if closed:
                writer.write(stream.batch_of([ev.end(max((row["time_ns"] for row in rows), default=0))]))
            writer.close()
        return Recording(stream.read(path))


def target(time_ns: int = 0, pid: int = 100, **more: Any) -> ev.Row:
    """Return the fork row of the target: a child of the recorder, 50."""
    return ev.fork(time_ns, pid, by=50, origin="target", **({"comm": "python"} | more))
