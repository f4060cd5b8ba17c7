"""Wait statuses are decoded as the kernel and libc do."""

from __future__ import annotations

import os
import signal

import pytest

from forktrace.trace import waitstatus
from forktrace.trace.waitstatus import Ending


def test_every_ending_is_decoded_as_libc_does() -> None:
    """For each 16-bit status: a code or a signal, never both, and the core dump flag."""
    for status in range(0x10000):
        if os.WIFEXITED(status):
            assert waitstatus.decode(status) == Ending(os.WEXITSTATUS(status), None, False)
        elif os.WIFSIGNALED(status):
            assert waitstatus.decode(status) == Ending(None, os.WTERMSIG(status), os.WCOREDUMP(status))


@pytest.mark.parametrize("status", [-1, 0x137F, 0xFFFF, 0x10000, 0x1057F])
def test_what_is_no_ending_is_refused(status: int) -> None:
    """Stops, continues and numbers that are no wait status raise ValueError."""
    with pytest.raises(ValueError, match="is not the wait status"):
        waitstatus.decode(status)


def test_signal_names_are_those_of_this_machine() -> None:
    """Every signal that this Python knows has its own name."""
    for each in signal.Signals:
        if each not in (signal.SIGRTMAX, signal.SIGRTMIN):
            assert waitstatus.signal_name(each) == each.name


@pytest.mark.parametrize(
    ("number", "name"), [(34, "SIGRTMIN"), (37, "SIGRTMIN+3"), (64, "SIGRTMIN+30"), (32, "SIG32"), (99, "SIG99")]
)
def test_signals_without_a_name(number: int, name: str) -> None:
    """Real-time signals count from SIGRTMIN, others keep their number."""
    assert waitstatus.signal_name(number) == name
