"""The words with which record closes."""

import pytest

from forktrace.live.closing import ending_of_zombie


@pytest.mark.parametrize(
    ("by", "call", "words"),
    [
        (3200, "wait4", "until 3200 reaped it with wait4"),
        (0, "waitid", "until another process reaped it with waitid"),
        (1, "unseen", "until 1 reaped it; that was not seen and may have been earlier"),
        (7, "kernel", "until the kernel released it: its PID namespace died"),
        (0, "", "and still is: nobody reaped it"),
    ],
)
def test_the_end_of_the_worst_zombie(by: int, call: str, words: str) -> None:
    """Who reaped it and how, as far as it is known."""
    assert ending_of_zombie(by, call) == words
