"""The probes and the table find out separately who inherits an orphan (docs/decisions/0010)."""

from __future__ import annotations

from pathlib import Path

import pytest
from inheritance import last_parents

from forktrace.trace import stream

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize(("scene", "count"), [("fixes", 15), ("methods", 2)])
def test_both_find_the_same(scene: str, count: int) -> None:
    """Of each process that nobody was seen to wait for, in real recordings."""
    found = last_parents(stream.read(DATA / f"{scene}.arrows"))
    assert len(found) == count
    assert [by_probe for _, by_probe, _ in found] == [by_table for _, _, by_table in found]
