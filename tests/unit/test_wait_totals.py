"""What the probes count of waits in vain, as rows of the trace."""

from __future__ import annotations

from typing import Any

import numpy as np
from test_walked_stacks import code_record, fresh, stack_record

from forktrace.kernel.layout import layouts
from forktrace.recorder.wait_totals import WaitTotals
from forktrace.trace.events import STACK_STATUSES

OK = STACK_STATUSES.index("ok")


def place(pid: int, stack: int, **more: Any) -> Any:
    """One place, where waitpid(pid, WNOHANG) is called."""
    one = np.zeros(1, layouts()["wait_place"])
    fields = {"pid": pid, "start_ns": 7, "options": 1, "call": 4, "target": 0, "stack": stack, "stack_status": OK}
    for name, value in (fields | more).items():
        one[name] = value
    return one


def test_places_on_one_line_are_one_total() -> None:
    """Two instructions of a line are two places to the probes, and one in the trace; a total is written when it has changed."""
    stacks, _ = fresh()
    stacks.add_code(code_record(1))
    for identity in (10, 11):
        stacks.add_stack(stack_record(identity, (1, identity)))
    both = np.concatenate([place(500, 10), place(500, 11), place(501, 11)])
    places = WaitTotals()
    rows = places.changed(9, both, np.array([200, 2, 5]), stacks, last=False)
    assert [(row["by_pid"], row["count"], row["stack"], row["call"]) for row in rows] == [
        (500, 202, "/srv/a.py:0 f", "wait4"),
        (501, 5, "/srv/a.py:0 f", "wait4"),
    ]
    rows = places.changed(10, both, np.array([200, 3, 5]), stacks, last=False)
    assert [(row["by_pid"], row["count"], row["time_ns"]) for row in rows] == [(500, 203, 10)]
    places.forget({(500, 7)})
    assert [row["by_pid"] for row in places.changed(11, both, np.array([200, 3, 5]), stacks, last=False)] == [500]


def test_a_stack_that_is_still_to_come() -> None:
    """A place whose stack was not read yet waits for it; at the end it is written without."""
    stacks, _ = fresh()
    places = WaitTotals()
    assert places.changed(9, place(500, 10), np.array([3]), stacks, last=False) == []
    (row,) = places.changed(9, place(500, 10), np.array([3]), stacks, last=True)
    assert (row["count"], row["stack"], row["stack_status"]) == (3, None, "lost")
