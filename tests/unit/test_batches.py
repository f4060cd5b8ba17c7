"""Batches become one table, a batch at a time, which is what Arrow makes of all of them at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from forktrace.trace import events as ev
from forktrace.trace.batches import SCHEMA, batch_of, by_time, integers

BATCHES = [
    batch_of([ev.fork(10, 500, by=100, ns_pid=7, comm="one"), ev.exit_(40, 500, 256)]),
    batch_of([]),
    batch_of([ev.zombie(41, 500), ev.lost(42, 3, "fork"), ev.exec_(43, 501, ["a", "b"])]).slice(1),
    batch_of([ev.reap(39, 500, by=100, stack="a.py:1 f"), ev.reap(39, 501, by=100), ev.end(50)]),
]


def of_arrow(batches: list[pa.RecordBatch]) -> pa.Table:
    """The table that Arrow makes."""
    table = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
    return table.take(pa.array(np.argsort(integers(table["time_ns"])[0], kind="stable")))


@pytest.mark.parametrize("batches", [BATCHES, BATCHES[:1], BATCHES[1:2], [], [batch.slice(1) for batch in BATCHES]])
def test_a_table_is_that_of_arrow(batches: list[pa.RecordBatch]) -> None:
    """In time order, whatever lies where in a batch: slices, nulls throughout or nowhere, no rows at all."""
    table = by_time(iter(batches), sum(batch.num_rows for batch in batches))
    table.validate(full=True)
    assert table.to_pylist() == of_arrow(batches).to_pylist() == by_time(batches).to_pylist()
    assert {column.num_chunks for column in table.columns} <= {0, 1}


def test_what_says_nothing_is_null() -> None:
    """A column that is null in every batch has its length, and no values."""
    table = by_time(BATCHES)
    assert table["utime_ns"].null_count == len(table)
    values, valid = integers(table["utime_ns"])
    assert (len(values), valid.any()) == (len(table), False)
