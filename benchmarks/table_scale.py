"""How long the lifecycle table takes from 10,000, 100,000 and 300,000 processes: `python benchmarks/table_scale.py`.

Four events a process (fork, exit, zombie, reap), shaped like the Kafka consumer: one parent that starts a child per message
and sweeps away the ones before, in bursts of ten. Each fork, exit and reap has a Python stack, of `STACKS` distinct ones each.
Prints the median of three runs, reading the file and making the table.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np

from forktrace.analysis.recording import Recording, read
from forktrace.trace import events, stream

MS = 1_000_000
BATCH_ROWS = 50_000
STACKS = 1_000  # of each kind: as many lines of the program, each under ten frames of its own
LIB = "/usr/lib/python3.11/multiprocessing"
LAUNCH = f"{LIB}/process.py:121 start;{LIB}/context.py:277 _Popen;{LIB}/popen_fork.py:19 __init__;{LIB}/popen_fork.py"
INNER = {
    "fork": f"{LAUNCH}:66 _launch",
    "exit": f"{LAUNCH}:71 _launch",
    "reap": f"{LIB}/process.py:118 start;{LIB}/process.py:59 _cleanup;{LIB}/popen_fork.py:27 poll",
}
HEADER = {
    "forktrace": "bench",
    "command": ["bench"],
    "cwd": "/",
    "target_pid": 100,
    "target_start_ns": 0,
    "user": "bench",
    "host": "bench",
    "boot_id": "0",
    "kernel": "0",
    "start_ns": 0,
    "clock_offset_ns": 0,
    "recorder_pid": 50,
    "pid_ns": 1,
}


def write_trace(path: Path, processes: int, *, uneven: bool = False) -> None:
    """Write the trace of `processes` children, whose numbers are used again after 30,000.

    They come each ms and live 0.3 ms; `uneven`: at any time, 3 ms apart on the average, and live as long as it happens, so that
    no two are alike, as in a real recording.
    """
    child = np.arange(processes)
    fork_ns, pid, lived_ns, told_ns = (child + 2) * MS, 1000 + child % 30_000, 300_000, 10_000
    if uneven:
        dice = np.random.default_rng(1)
        fork_ns = 2 * MS + np.cumsum(dice.integers(600_000, 5_400_000, processes))
        lived_ns, told_ns = dice.integers(100_000, 450_000, processes), dice.integers(5_000, 50_000, processes)
    sweep_ns = np.append(fork_ns, fork_ns[-1] + 10 * MS)[np.minimum(child - child % 10 + 10, processes)]
    reap_ns = sweep_ns - 50_000 + child % 10 * 1000
    times = np.concatenate([fork_ns, fork_ns + lived_ns, fork_ns + lived_ns + told_ns, reap_ns])
    kind = np.repeat([events.KINDS.index(name) for name in ("fork", "exit", "zombie", "reap")], processes)
    order = np.argsort(times, kind="stable")
    row_kind, row_pid, row_start = kind[order], np.tile(pid, 4)[order], np.tile(fork_ns, 4)[order]
    fork, exit_, reap = (row_kind == events.KINDS.index(name) for name in ("fork", "exit", "reap"))
    call = np.where(fork, events.CALLS.index("clone"), events.CALLS.index("wait4"))
    hundred = np.full(4 * processes, 100)
    comm = np.where(fork, "python", None)
    line = (np.tile(child, 4)[order] // 10 + (reap if uneven else 0)) % STACKS  # the next start sweeps from its own line
    stack = np.select([fork, exit_, reap], [stacks(kind)[line] for kind in ("fork", "exit", "reap")], None)
    columns = {
        "time_ns": (times[order], None),
        "kind": (row_kind, None),
        "pid": (row_pid, None),
        "start_ns": (row_start, ~reap),
        "by_pid": (hundred, fork | reap),
        "by_tid": (hundred, fork | reap),
        "by_start_ns": (0 * hundred, fork | reap),
        "parent_pid": (hundred, ~reap),
        "parent_start_ns": (0 * hundred, ~reap),
        "call": (call, fork | reap),
        "origin": (0 * hundred + events.ORIGINS.index("forked"), fork),
        "signal": (0 * hundred + 17, fork),
        "flags": (np.where(reap, 1, 17), fork | reap),
        "status": (0 * hundred, exit_),
        "target": (0 * hundred, reap),
        "count": (0 * hundred, reap),
        "comm": comm,
        "stack": stack,
        "stack_status": (0 * hundred, fork | exit_ | reap),
        "exit_from": (0 * hundred, exit_),
    }
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        target = events.fork(0, 100, by=50, origin="target", comm="python")
        writer.write(stream.batch_of([target, events.exec_(MS, 100, ["python", "consumer.py"])]))
        for first in range(0, 4 * processes, BATCH_ROWS):
            part = slice(first, first + BATCH_ROWS)
            cut = {
                n: c[part].tolist() if n in ("comm", "stack") else (c[0][part], c[1] if c[1] is None else c[1][part])
                for n, c in columns.items()
            }
            writer.write(stream.batch(cut, min(BATCH_ROWS, 4 * processes - first)))
        writer.write(stream.batch_of([events.end(int(times.max()) + MS)]))
        writer.close()


@cache
def stacks(kind: str) -> np.ndarray:
    """Return the distinct stacks of one kind of event."""
    outer = ";".join(f"/srv/app/module{depth}.py:{100 + depth} function{depth}" for depth in range(10))
    return np.array([f"{outer};/srv/app/consumer.py:{line} consume;{INNER[kind]}" for line in range(STACKS)], object)


def seconds(path: Path) -> tuple[float, float]:
    """Return the time of reading the file and of making the table."""
    begin = time.perf_counter()
    recording: Recording = read(path)
    middle = time.perf_counter()
    table = recording.lifecycles()
    assert (table["state"] == "gone").sum() == (table["reap_cause"] == "next-start").sum() == len(table) - 1
    return middle - begin, time.perf_counter() - middle


def main() -> None:
    """Print one line for each size."""
    print(f"{'processes':>10} {'file':>9} {'read':>8} {'table':>8} {'us a process':>13}")
    with tempfile.TemporaryDirectory() as folder:
        for processes in (10_000, 100_000, 300_000):
            path = Path(folder) / "bench.arrows"
            write_trace(path, processes)
            runs = [seconds(path) for _ in range(3)]
            reading, making = (statistics.median(column) for column in zip(*runs, strict=True))
            size = os.path.getsize(path) / 1e6
            each = (reading + making) / processes * 1e6
            print(f"{processes:>10,} {size:>6.1f} MB {reading:>6.2f} s {making:>6.2f} s {each:>13.1f}")


if __name__ == "__main__":
    main()
