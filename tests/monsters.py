"""Traces that are small as files, and mean to be slow, huge or endless once they are read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from mutants import HEADER, careless_writer, trace_of

from forktrace.trace import events as ev
from forktrace.trace import stream

MILLION: Final = 1_000_000
BASE: Final = (ev.fork(0, 100, by=50, origin="target"), ev.fork(5, 101, by=100))
LONG: Final = 100 << 20


def forks(count: int, **more: Any) -> bytes:
    """Return a trace of `count` forks, at each ns one, with more columns."""
    columns: dict[str, Any] = {
        "kind": np.full(count, ev.KINDS.index("fork")),
        "time_ns": np.arange(count),
        "pid": np.arange(count) + 1000,
        "start_ns": np.arange(count),
        "origin": np.full(count, ev.ORIGINS.index("forked")),
    }
    sink = io.BytesIO()
    writer = careless_writer(sink, HEADER)
    writer.write(stream.batch({name: (found, None) for name, found in (columns | more).items()}, count))
    writer.close()
    return sink.getvalue()


def with_parents(parents: Any, *roles: str) -> bytes:
    """Return a trace of forks, each by the one whose number in the trace is in `parents`; -1: by one before all."""
    columns = {f"{role}_pid": parents + 1000 for role in roles} | {f"{role}_start_ns": np.maximum(parents, 0) for role in roles}
    return forks(len(parents), **columns)


def silent(kind: str) -> bytes:
    """Return a trace of a million rows of a kind that say nothing."""
    sink = io.BytesIO()
    writer = careless_writer(sink, HEADER)
    zeros = np.zeros(MILLION, np.int64)
    writer.write(stream.batch({"kind": (zeros + ev.KINDS.index(kind), None), "time_ns": (zeros, None)}, MILLION))
    writer.close()
    return sink.getvalue()


def base_and(rows: Callable[[int], ev.Row], count: int = 1, **header: Any) -> bytes:
    """Return a trace of two processes and of `count` rows."""
    return trace_of([*BASE, *map(rows, range(count))], **header)


def with_stack(stack: Callable[[int], str], count: int = 1) -> bytes:
    """Return a trace of forks on these stacks."""
    return base_and(lambda i: ev.fork(6 + i, 102 + i, by=100, stack=stack(i), stack_status="ok"), count)


def heirs(count: int) -> bytes:
    """Return a trace of processes that end one after the other, each leaving all that are left to the next."""
    rows = [ev.fork(i, 1000 + i, by=999 if i == 0 else 1000, parent=1000) for i in range(count)]
    for i in range(count - 1):
        at = count + 10 * i
        rows += [ev.exit_(at, 1000 + i, parent=999, adopter=1001 + i), ev.zombie(at + 1, 1000 + i, parent=999)]
    return trace_of(rows)


def own_parent() -> bytes:
    """Return a trace of a process that made itself and inherits from itself."""
    ended = ev.exit_(9, 7, adopter=7, adopter_start_ns=5, parent=7)
    return trace_of([ev.fork(5, 7, by=7, by_start_ns=5, parent=7, parent_start_ns=5), ev.exec_(6, 7, ["a"]), ended])


def nameless(count: int) -> bytes:
    """Return a trace of waits that did not name their child, and of zombies that nobody was seen to reap."""
    rows = [ev.wait(10 + i, None, by=100, call="waitid", target="any") for i in range(count)]
    for i in range(count):
        rows += [ev.fork(i, 200 + i, by=100), ev.exit_(5000 + i, 200 + i, parent=100)]
        rows.append(ev.reap(90_000 + i, 200 + i, by=100, call="unseen"))
    return trace_of([BASE[0], *rows])


def totals(number: int) -> bytes:
    """Return a trace whose last row gives this for all that there is to count."""
    said = dict.fromkeys(("processes", "still_running", "clock_offset_ns", "full"), number)
    return trace_of([*BASE, ev.end(9, json.dumps(said | {"lost": said, "still": said}))], closed=False)


def far_apart() -> bytes:
    """Return a trace of the first and the last moments that there are."""
    rows = [BASE[0], ev.fork(2**62 - 2, 101, by=100), ev.exit_(2**62 - 1, 101)]
    return trace_of(rows, clock_offset_ns=2**62 - 1)


QUICK: Final[Mapping[str, Callable[[], bytes]]] = {
    "a ring of parents": lambda: with_parents(np.roll(np.arange(1000), 1), "parent"),
    "a ring of forkers": lambda: with_parents(np.roll(np.arange(1000), 1), "by"),
    "its own parent and heir": own_parent,
    "each inherits from the one before": lambda: heirs(4000),
    "deep folders that differ at their root": lambda: with_stack(lambda i: f"/{i}{'/x' * 50_000}/f.py:1 f", 2),
    "a command of folders": lambda: trace_of([*BASE], command=["/" + "a/" * 100_000 + "$"]),
    "argv of folders": lambda: base_and(lambda i: ev.exec_(6, 101, ["/" + "a/" * 30_000 + "$"], file="x")),
    "a line of 5,000 digits": lambda: with_stack(lambda i: f"/x.py:{'9' * 5000} f"),
    "totals of 4,000 digits": lambda: totals(int("9" * 4000)),
    "far apart": far_apart,
    "no rows": lambda: trace_of(closed=False),
}
MONSTERS: Final[Mapping[str, Callable[[], bytes]]] = {
    **QUICK,
    "a million processes": lambda: with_parents(np.zeros(MILLION, np.int64) - 1, "parent"),
    "100,000 processes": lambda: with_parents(np.zeros(100_000, np.int64) - 1, "parent"),
    "a chain of 100,000": lambda: with_parents(np.arange(100_000) - 1, "parent", "by"),
    "a million waits that say nothing": lambda: silent("waits"),
    "a million signals that say nothing": lambda: silent("signal"),
    **{
        f"{column} of {size:,} bytes": partial(
            base_and, lambda i, column=column, size=size: ev.exec_(6, 101, ["x"]) | {column: "a" * size}
        )
        for column in ("argv", "comm", "stack", "detail", "file", "cgroup")
        for size in (MILLION, LONG)
    },
    "20,000 long names": lambda: base_and(lambda i: ev.exec_(6 + i, 101, [f"{i}" + "x" * 12_000]), 20_000),
    "a million frames": lambda: with_stack(lambda i: "a:1 f;" * MILLION),
    "20,000 stacks": lambda: with_stack(
        lambda i: f"/srv/a{i}.py:{i} f;/usr/lib/python3.11/multiprocessing/process.py:{i} start", 20_000
    ),
    "2,000 stacks of 4,000 frames": lambda: with_stack(lambda i: ";".join(f"{i}.{n}:1 f" for n in range(4000)), 2000),
    "500 stacks of 4,000 frames": lambda: with_stack(lambda i: ";".join(f"{i}.{n}:1 f" for n in range(4000)), 500),
    "one long stack again and again": lambda: with_stack(
        lambda i: ";".join(f"{'d/' * 40}{n}.py:1 f" for n in range(8000)), 300
    ),
    "20,000 command lines": lambda: base_and(lambda i: ev.exec_(6 + i, 101, ["python", f"{i}.py"]), 20_000),
    "20,000 kinds of losses": lambda: base_and(lambda i: ev.lost(6 + i, 2**62, f"{i}"), 20_000),
    "20,000 source lines": lambda: base_and(lambda i: ev.source(6, "/x.py", i, f"{i}"), 20_000),
    "a command of 4 MiB": lambda: trace_of([*BASE], command=["a" * (4 << 20)]),
    "a command of a million words": lambda: trace_of([*BASE], command=["x"] * MILLION),
    "10,000 waits without a name": lambda: nameless(10_000),
    "10,000 starts of one number": lambda: base_and(lambda i: ev.fork(6 + i, 200, by=100), 10_000),
}
