"""Makes traces of event rows, by way of a real file, so that tests see what a reader of a recording would see."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

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


def consumer(children: int, burst: int = 5, step_ms: int = 200, never: int = 1) -> list[ev.Row]:
    """Return the rows of a consumer that starts one child per message and never joins: each start clears the dead before it.

    Half of the `children` come one at a time, the others in bursts of `burst`, so that one start clears several together.
    All but the last `never` are reaped at the end.
    """
    rows = [target(), ev.exec_(1 * MS, 100, ["python", "consumer.py"])]
    dead_ns: dict[int, int] = {}
    time_ns = 10 * MS
    for number in range(children):
        pid, bursting = 4711 + number, number >= children // 2 and number % burst
        time_ns += 2 * MS if bursting else step_ms * MS
        _sweep(rows, dead_ns, time_ns)
        end_ns = time_ns + step_ms * MS // 20 * (1 + number % 4)
        rows += [
            ev.fork(time_ns + 9000, pid, by=100, comm="python"),
            ev.exit_(end_ns, pid, 0 if number % 7 else 256, parent=100),
        ]
        rows.append(ev.zombie(end_ns + 50_000, pid, parent=100))
        dead_ns[pid] = end_ns + 50_000
    time_ns += step_ms * MS
    for pid in list(dead_ns)[: len(dead_ns) - never]:
        rows.append(ev.reap(time_ns, pid, by=100, target="any"))
    return [*rows, ev.end(time_ns + step_ms * MS)]


def _sweep(rows: list[ev.Row], dead_ns: dict[int, int], time_ns: int) -> None:
    for pid in [one for one, since_ns in dead_ns.items() if since_ns < time_ns]:
        rows.append(ev.reap(time_ns, pid, by=100, options=1))
        del dead_ns[pid]


def child(pid: int, fork_ms: int, exit_ms: int, by: int = 100, status: int = 0) -> list[ev.Row]:
    """Return the rows of a child that becomes a zombie at its exit."""
    rows = [ev.fork(fork_ms * MS, pid, by=by, comm="child"), ev.exit_(exit_ms * MS, pid, status, parent=by)]
    return [*rows, ev.zombie(exit_ms * MS, pid, parent=by)]


def work(
    pid: int, fork_ms: float, exit_ms: float, reap_ms: float | None = None, *, line: int = 33, function: str = "consume"
) -> list[ev.Row]:
    """Return the rows of a child that a line of the program started, and the same function's join reaped, if anything did."""

    def stack(number: int) -> dict[str, Any]:
        lib = "/usr/lib/python3.11/multiprocessing"
        join = f";{lib}/process.py:149 join;{lib}/popen_fork.py:43 wait;{lib}/popen_fork.py:27 poll" if number != line else ""
        return {"stack": f"/srv/consumer.py:90 <module>;/srv/consumer.py:{number} {function}{join}", "stack_status": "ok"}

    fork_ns, exit_ns = int(fork_ms * MS), int(exit_ms * MS)
    rows = [ev.fork(fork_ns, pid, by=100, comm="python", **stack(line)), ev.exit_(exit_ns, pid, parent=100)]
    rows += [ev.zombie(exit_ns, pid, parent=100)]
    return rows + ([] if reap_ms is None else [ev.reap(int(reap_ms * MS), pid, by=100, **stack(line + 1))])


def known(made: Recording, **columns: dict[int, Any]) -> Recording:
    """Fill in columns of the lifecycle table, by id: tests of words need no trace from which these would follow."""
    for column, values in columns.items():
        for process, value in values.items():
            made.lifecycles().loc[process, column] = value
    return made


def cells(table: pd.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    """Return the rows of a table, or of some columns, as tuples; None for what is `<NA>` or NaN."""
    part = table[list(columns or table.columns)].astype(object)
    return list(part.where(part.notna(), None).itertuples(index=False, name=None))
