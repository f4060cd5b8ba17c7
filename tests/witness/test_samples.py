"""What is held against samples of /proc: what they saw has to be so, and what came after the recording says nothing."""

from __future__ import annotations

from typing import Any

import pytest
from comparison import SLOW_NS, Comparison, with_samples
from recorded import TICK_NS
from traces import MS, child, recording, target

from forktrace.trace import events as ev

END_NS = 100 * MS + 3 * SLOW_NS


def held_against(gone_ns: int, *reap: dict[str, Any]) -> Comparison:
    """A child of 100, a zombie from 20 ms on, that /proc did not show any more at `gone_ns`; 0: it did to the last."""
    made = recording(target(), *child(101, 10, 20), *reap, target(END_NS, pid=200))
    sample = {"pid": 101, "starttime": 10 * MS // TICK_NS, "ppids": [100], "threads": 1, "first_ns": 11 * MS}
    sample |= {"alive_ns": 15 * MS, "zombie_ns": 30 * MS, "there_ns": 40 * MS, "gone_ns": gone_ns}
    found = with_samples(made.lifecycles(), made.end_ns, [sample])
    assert found.compared["reaped after it was seen last"] == 1
    return found


@pytest.mark.parametrize(
    ("gone_ns", "differences"),
    [(0, 0), (END_NS + 1, 0), (END_NS + 3 * SLOW_NS, 0), (END_NS - SLOW_NS - MS, 1), (100 * MS, 1)],
    ids=["not", "at the end", "after it", "before it", "long before it"],
)
def test_a_zombie_at_the_end(gone_ns: int, differences: int) -> None:
    """One that was not reaped in the recording was there as long as it lasted."""
    found = held_against(gone_ns)
    assert len(found.differences) == differences, found.differences


@pytest.mark.parametrize(("call", "differences"), [("wait4", 1), ("unseen", 0)])
def test_a_late_reap(call: str, differences: int) -> None:
    """A reap cannot be later than that the zombie is gone, unless nobody was seen to reap it: then it is an upper bound."""
    found = held_against(50 * MS, ev.reap(END_NS, 101, by=100, call=call))
    assert len(found.differences) == differences, found.differences
    assert found.explained["unseen"] == (call == "unseen")
