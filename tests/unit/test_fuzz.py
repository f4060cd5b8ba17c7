"""Hostile traces: `make fuzz` sends thousands through every command, this a selection of the same."""

from __future__ import annotations

from fuzz import fuzz
from monsters import QUICK
from mutants import Seeds, mutant


def test_mutants_give_a_result_or_a_trace_error() -> None:
    """No other exception, no crash, no hang, no more than 1 GiB, and no output that steers a screen or a spreadsheet."""
    seeds, said = Seeds(), list[str]()
    chosen = ((number, mutant(seeds, 1, number)) for number in range(72))
    results = fuzz(chosen, 1, thorough=False, keep=None, say=said.append)
    assert results.keys() == {"read", "refused"}, said
    assert min(results.values()) > 10


def test_monsters_are_read_in_time() -> None:
    """Cycles among parents, adopters of adopters, and names that take for ever to shorten."""
    chosen = ((-1 - number, (name, make())) for number, (name, make) in enumerate(QUICK.items()))
    said: list[str] = []
    results = fuzz(chosen, 1, thorough=False, keep=None, say=said.append)
    assert results == {"read": len(QUICK)}, said
