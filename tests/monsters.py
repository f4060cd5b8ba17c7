"""Traces that are small as files, and mean to be slow, huge or endless once they are read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from mutants import HEADER, Mutant, trace_of

from forktrace.trace import events as ev
from forktrace.trace import stream


def monsters() -> Iterator[Mutant]:
    """Traces that are meant to be slow, huge or deep; small as files."""

    def packed(columns: dict[str, Any], rows: int, **header: Any) -> bytes:
        sink = io.BytesIO()
        writer = stream.Writer(sink, HEADER | header)
        writer.write(stream.batch(columns, rows))
        writer.close()
        return sink.getvalue()

    def forks(count: int, **more: Any) -> dict[str, Any]:
        kind = np.full(count, ev.KINDS.index("fork"))
        numbers = np.arange(count)
        return {
            "kind": (kind, None),
            "time_ns": (numbers, None),
            "pid": (numbers + 1000, None),
            "start_ns": (numbers, None),
            "origin": (np.full(count, 1), None),
        } | {name: (found, None) for name, found in more.items()}

    million = 1_000_000
    for count in (100_000, million):
        ones = np.ones(count, np.int64)
        yield (
            f"{count} processes with one parent",
            packed(forks(count, parent_pid=1000 * ones, parent_start_ns=0 * ones), count),
        )
    deep = 100_000
    before = np.arange(deep) - 1
    yield (
        f"a chain of {deep} parents",
        packed(
            forks(
                deep,
                parent_pid=before + 1000,
                parent_start_ns=before,
                by_pid=before + 1000,
                by_tid=before + 1000,
                by_start_ns=before,
            )
            | {"parent_start_ns": (before, before >= 0), "by_start_ns": (before, before >= 0)},
            deep,
        ),
    )
    ring = np.roll(np.arange(1000), 1)
    for role in ("parent", "by"):
        columns = forks(1000, **{f"{role}_pid": ring + 1000, f"{role}_start_ns": ring})
        yield f"a ring of 1000 by {role}", packed(columns, 1000)
    rows = [
        ev.fork(5, 7, by=7, by_start_ns=5, parent=7, parent_start_ns=5),
        ev.exec_(6, 7, ["a"]),
        ev.exit_(9, 7, adopter=7, adopter_start_ns=5, parent=7),
    ]
    yield "its own parent and heir", trace_of(rows, target_pid=7)
    yield "one that inherits from the next", trace_of(heirs(4000))
    yield (
        "a million rows that say nothing",
        packed(
            {"kind": (np.full(million, ev.KINDS.index("waits")), None), "time_ns": (np.zeros(million, np.int64), None)}, million
        ),
    )
    yield (
        "a million signals",
        packed(
            forks(million)
            | {"kind": (np.full(million, ev.KINDS.index("signal")), None)}
            | {"start_ns": (np.zeros(million, np.int64), np.zeros(million, bool))},
            million,
        ),
    )
    base = [ev.fork(0, 100, by=50, origin="target"), ev.fork(5, 101, by=100)]
    for size in (1 << 20, 100 << 20):
        long = "a" * size
        for column in ("argv", "comm", "stack", "detail", "file", "cgroup"):
            yield f"{column} of {size >> 20} MiB", trace_of([*base, ev.exec_(6, 101, ["x"]) | {column: long}])
    yield "20,000 long names", trace_of([*base, *(ev.exec_(6 + i, 101, [f"{i}" + "x" * 12_000]) for i in range(20_000))])
    yield "a million frames", trace_of([*base, ev.fork(6, 102, by=101, stack="a:1 f;" * million, stack_status="ok")])
    folders = [f"/{letter}{'/x' * 50_000}/f.py:1 f" for letter in "ab"]
    yield (
        "deep folders that differ at their root",
        trace_of([*base, *(ev.fork(6 + i, 102 + i, by=101, stack=one, stack_status="ok") for i, one in enumerate(folders))]),
    )
    many = [
        ev.fork(
            6 + i,
            102 + i,
            by=100,
            stack=f"/srv/a{i}.py:{i} f;/usr/lib/python3.11/multiprocessing/process.py:{i} start",
            stack_status="ok",
        )
        for i in range(20_000)
    ]
    yield "20,000 stacks", trace_of([*base, *many])
    yield "20,000 command lines", trace_of([*base, *(ev.exec_(6 + i, 101, ["python", f"{i}.py"]) for i in range(20_000))])
    yield "20,000 lost", trace_of([*base, *(ev.lost(6 + i, 2**62, f"{i}") for i in range(20_000))])
    yield (
        "20,000 sources",
        trace_of(
            [
                *base,
                ev.fork(6, 102, by=100, stack="/x.py:1 f", stack_status="ok"),
                *(ev.source(6, "/x.py", i, f"{i}") for i in range(20_000)),
            ]
        ),
    )
    yield "a command of 4 MiB", trace_of(base, command=["a" * (4 << 20)])
    yield "a command of folders", trace_of(base, command=["/" + "a/" * 100_000 + "$"])
    yield "a command of many words", trace_of(base, command=["x"] * million)
    wait_rows = [ev.wait(10 + i, None, by=100, call="waitid", target="any") for i in range(10_000)]
    dead = [
        row
        for i in range(10_000)
        for row in (
            ev.fork(i, 200 + i, by=100),
            ev.exit_(5000 + i, 200 + i, parent=100),
            ev.reap(90_000 + i, 200 + i, by=100, call="unseen"),
        )
    ]
    yield "10,000 nameless waits", trace_of([base[0], *wait_rows, *dead])
    yield "10,000 starts of one", trace_of([base[0], *(ev.fork(i, 200, by=100) for i in range(10_000))])
    yield (
        "far apart",
        trace_of(
            [ev.fork(0, 100, by=50, origin="target"), ev.fork(2**62 - 2, 101, by=100), ev.exit_(2**62 - 1, 101)],
            clock_offset_ns=2**62 - 1,
        ),
    )
    yield "no rows", trace_of(closed=False)


def heirs(count: int) -> list[ev.Row]:
    """Return rows of `count` processes that end one after the other, each leaving all that are left to the next."""
    rows = [ev.fork(i, 1000 + i, by=999 if i == 0 else 1000, parent=1000) for i in range(count)]
    for i in range(count - 1):
        at = count + 10 * i
        rows += [ev.exit_(at, 1000 + i, parent=999, adopter=1001 + i), ev.zombie(at + 1, 1000 + i, parent=999)]
    return rows
