"""Writes the files of a rotation from traces that are built by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from traces import HEADER, MS, target

from forktrace.trace import events as ev
from forktrace.trace import stream
from forktrace.trace.batches import as_carried

SECOND = 1000 * MS


def write(folder: Path, number: int, *rows: ev.Row, carried: tuple[ev.Row, ...] = (), **more: Any) -> Path:
    """Write a file of a rotation that begins `number` seconds after it; `end` None: it is not closed."""
    path = folder / f"run.{number:06}.arrows"
    end: dict[str, Any] | None = more.pop("end", {"continues": True})
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER | {"rotation": 0, "file": number, "start_ns": (number - 1) * SECOND} | more)
        if carried:
            writer.write(as_carried(stream.batch_of(carried)))
        writer.write(stream.batch_of(rows))
        if end is not None:
            writer.write(stream.batch_of([ev.end(number * SECOND, json.dumps(end))]))
            writer.close()
    return path


TARGET = (target(pid=100), ev.exec_(MS, 100, ["python", "consumer.py"]))
RUNS = ev.fork(100 * MS, 501, by=100, comm="child")
DEAD = (ev.fork(200 * MS, 502, by=100), ev.exit_(300 * MS, 502, parent=100), ev.zombie(300 * MS, 502, parent=100))
SHORT = (ev.fork(400 * MS, 503, by=100), ev.exit_(410 * MS, 503, parent=100), ev.reap(420 * MS, 503, by=100))
AT_TURN = (*TARGET, RUNS, *DEAD)
ENDED = (ev.exit_(1900 * MS, 501, 256, parent=100), ev.zombie(1900 * MS, 501, parent=100))
SECOND_FILE = (ev.reap(1200 * MS, 502, by=100), ev.fork(1300 * MS, 504, by=501), *ENDED)
AT_SECOND_TURN = (*TARGET, RUNS, *SECOND_FILE[1:])
THIRD_FILE = (
    ev.reap(2100 * MS, 501, by=100),
    ev.exit_(2200 * MS, 504, parent=100),
    ev.reap(2300 * MS, 504, by=100),
    ev.exit_(2400 * MS, 100),
    ev.reap(2400 * MS, 100, by=50),
)


def write_three(folder: Path) -> Path:
    """Write three files: the target and 501 live through a turn, 502 is a zombie at one, 504 begins in the second."""
    write(folder, 1, *TARGET, RUNS, *DEAD, *SHORT, end={"continues": True, "processes": 4})
    write(folder, 2, *SECOND_FILE, carried=AT_TURN, end={"continues": True, "processes": 4, "carried": 3})
    write(folder, 3, *THIRD_FILE, carried=AT_SECOND_TURN, end={"processes": 3, "carried": 3})
    return folder
