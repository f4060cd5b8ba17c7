"""Programs that lie about their children, or about those of others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from recorded import Recorded

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def forged(record: Callable[..., Recorded], workload: Callable[[str], str]) -> Recorded:
    """The recording of tests/workloads/forger.c."""
    recorded = record([workload("forger")])
    assert recorded.returncode == 0, recorded.stderr
    return recorded


@pytest.mark.parametrize(("case", "count"), [("notices", 1), ("exits-as-stops", 61), ("stops-as-exits", 61), ("others", 62)])
def test_what_happened_is_what_is_recorded(case: str, count: int, forged: Recorded) -> None:
    """Exit, reaper and time of each child are those of the kernel, whatever the program's memory says."""
    lines = forged.of(case)
    assert len(lines) == count
    forged.assert_agrees(lines)


def test_no_notice_but_the_kernels(forged: Recorded) -> None:
    """A process may send itself the notice that any process has ended: it is none."""
    (line,) = forged.of("notices")
    (notified,) = forged.events_of(line["pid"], "zombie").itertuples()
    assert (notified.by_pid, notified.parent_pid) == (line["pid"], line["ppid"])
