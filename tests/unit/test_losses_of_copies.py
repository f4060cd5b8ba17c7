"""What counts as lost where the kernel skips probes."""

from __future__ import annotations

import pytest

from forktrace.kernel import bpf, probes
from forktrace.kernel.probes import Probes
from forktrace.trace.events import NOT_RUN


class Numbers:
    """Numbers that the probes count."""

    def __init__(self, *numbers: int) -> None:
        self.read = lambda: numbers


def test_of_copies_that_were_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a program with copies the fewest skips of one; less what the copies of the calls' program say that they took over."""
    skipped = {3: 10, 4: 7, 5: 2, 6: 40}
    monkeypatch.setattr(bpf, "times_not_run", skipped.__getitem__)
    names = {"program on_fork 0": 3, "program on_mmap 0": 4, "program on_mmap 1": 5, "program on_call 0": 6, "ring": 9}
    made = Probes.__new__(Probes)
    made._programs = probes._copies_of_each(names)
    made._losses, made._taken_over, made._not_run = Numbers(*[0] * len(probes.LOSSES)), Numbers(38), 0  # type: ignore[assignment]
    assert made.losses()[NOT_RUN] == 10 + 2 + 40 - 38
    skipped[3] = 8
    assert made.losses()[NOT_RUN] == 14, "what was counted once stays"
