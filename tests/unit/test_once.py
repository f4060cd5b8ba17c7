"""What several tables ask for is worked out once."""

from __future__ import annotations

import io

import pytest
import traces
from rich.console import Console

from forktrace.analysis import requests
from forktrace.analysis.once import once
from forktrace.views.text.report import report


class Thing:
    """Something that can be asked about."""


def test_an_answer_is_kept_where_it_belongs() -> None:
    """Each object is asked once, and has its own answer, None too."""
    asked: list[Thing] = []
    answer = once(asked.append)
    one, other = Thing(), Thing()
    assert [answer(one), answer(other), answer(one)] == [None] * 3
    assert asked == [one, other]


def test_the_rows_of_starts_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report asks several tables of which each needs them."""
    found: list[object] = []
    monkeypatch.setattr(requests, "_requests", lambda *asked: found.append(asked) or (asked[1], asked[1]))
    recording = traces.recording(*traces.consumer(10))
    report(recording, Console(file=io.StringIO()))
    recording.starts()
    assert len(found) == 1
