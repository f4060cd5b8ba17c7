"""Whom the probes take for the last parent of a process that nobody waited for, and whom the table does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from forktrace.analysis.recording import Recording
from forktrace.trace.stream import Trace

TOLD = ("exit", "zombie", "autoreap")  # rows that name the parent of their process at that moment
NAMES = ("parent_pid", "parent_start_ns", "by_pid", "by_tid", "by_start_ns")


def last_parents(trace: Trace) -> list[tuple[int, int, int]]:
    """Return number, last parent by the probes and last parent by the table, of each process that nobody was seen to wait for.

    The table is made without all that names a parent but forks: it follows the adopters in the exit rows of dead parents.
    """
    kinds, calls = (trace.table.column(name).cast(pa.string()) for name in ("kind", "call"))
    unseen = pc.fill_null(pc.equal(calls, "unseen"), False)
    named = pc.or_(pc.is_in(kinds, pa.array(TOLD)), unseen)
    table = Recording(replace(trace, table=_without_names(trace.table, named))).lifecycles()
    table = table[table["reap_call"].isin(["autoreap", "unseen"])]  # else a wait is known that did not name its child
    last = table["adopter_pid"].fillna(table["ppid"])
    by_table = dict(zip(zip(table["pid"], table["fork_ns"], strict=True), last, strict=True))
    released = trace.table.filter(pc.or_(pc.equal(kinds, "autoreap"), unseen)).to_pylist()
    rows = [(row, by_table.get((row["pid"], row["start_ns"]))) for row in released]
    return [(row["pid"], _by_probe(row), int(by)) for row, by in rows if by is not None]


def _by_probe(row: dict[str, Any]) -> int:
    return int(row["parent_pid" if row["kind"] == "autoreap" else "by_pid"])


def _without_names(table: pa.Table, rows: pa.ChunkedArray) -> pa.Table:
    for name in NAMES:
        place, column = table.schema.get_field_index(name), table.column(name)
        table = table.set_column(place, table.schema.field(place), pc.if_else(rows, pa.scalar(None, column.type), column))
    return table
