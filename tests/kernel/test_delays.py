"""Whether a thread already waited when a zombie began, and what delayed a parent that did not."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pandas as pd
import pytest
from recorded import WORKLOADS, Recorded

from forktrace.analysis.tables.remarks import PARENT_STOPPED
from forktrace.views.text.why import chain

pytestmark = pytest.mark.root

AWAITED = {
    **dict.fromkeys(("pid", "any", "group", "waitid", "pidfd", "all kinds", "thread", "Popen.wait"), True),
    **dict.fromkeys(("another child", "another thread's", "a look that leaves it", "late", "poll", "pipe held"), False),
    **dict.fromkeys(("as many waits as are looked at", "stopped before", "stopped after"), False),
    "more waits": None,
}


@pytest.fixture(scope="module")
def delays(record: Callable[..., Recorded]) -> Recorded:
    """The workload, recorded."""
    recorded = record([sys.executable, str(WORKLOADS / "delays.py")])
    assert recorded.returncode == 0, recorded.stderr
    recorded.assert_balanced()
    return recorded


def row_of(delays: Recorded, case: str) -> pd.Series:
    """The row of the child of a case."""
    (line,) = delays.of(case)
    return delays.row(line["pid"])


def told(delays: Recorded, case: str) -> dict[str, str]:
    """What `why` says of it, by the word in front."""
    lines = chain(delays.recording, int(row_of(delays, case)["id"]))
    return {line.mark if not line.mark.startswith("+") else line.text.split()[0]: line.text for line in lines}


def test_all_cases(delays: Recorded) -> None:
    """The workload had them all."""
    assert {line["case"]: line["awaited"] for line in delays.lines} == AWAITED


@pytest.mark.parametrize("case", AWAITED)
def test_whether_it_was_awaited(delays: Recorded, case: str) -> None:
    """As the parent knows, which looked where it was, or let the child look."""
    awaited = row_of(delays, case)["awaited"]
    assert (None if pd.isna(awaited) else bool(awaited)) == AWAITED[case]


def test_a_parent_that_was_stopped(delays: Recorded) -> None:
    """Stopped when the zombie began: a note says so. Stopped later: the signal is named. No wait is called late."""
    before, after = (row_of(delays, f"stopped {when}") for when in ("before", "after"))
    assert (before["notes"], pd.isna(after["notes"])) == (PARENT_STOPPED, True)
    for case in ("stopped before", "stopped after"):
        said, parent = told(delays, case), delays.of(case)[0]["parent"]
        assert f"{parent} was stopped meanwhile" in said["why"]
        assert "only then" not in said["why"]
        assert said["fix"].startswith("none in this line")
    assert told(delays, "stopped after")["stopped"].startswith(f"stopped {parent}, its parent, by SIGSTOP, sent by ")


def test_a_wait_that_was_called_late(delays: Recorded) -> None:
    """That is said of it, as ever."""
    assert row_of(delays, "another child")["reap_cause"] == "os-wait"


def test_a_pipe_that_a_grandchild_holds(delays: Recorded) -> None:
    """The call had not come late: it waited for the pipe."""
    said = told(delays, "pipe held")
    assert "left behind ended only then" in said["why"]
    assert "DEVNULL" in said["fix"]


def test_the_table_of_events(delays: Recorded) -> None:
    """It says so too."""
    events = delays.recording.events()
    for case, words in {"pid": "which waits for it", "late": "notified", "stopped before": "which is stopped"}.items():
        (detail,) = events.loc[(events["kind"] == "zombie") & (events["id"] == row_of(delays, case)["id"]), "detail"]
        assert detail.endswith(words)
