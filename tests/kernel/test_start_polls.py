"""What one start costs in calls: multiprocessing asks for every child that it knows to live, and for no other."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

import pytest
from recorded import WORKLOADS, Recorded, interpreters

pytestmark = pytest.mark.root

PYTHONS = [path for name, path in interpreters().items() if name.startswith(("2.7.", "3.6.", "3.13."))] + [sys.executable]


@pytest.fixture(scope="module")
def recorded(record: Callable[..., Recorded]) -> Recorded:
    """One recording of the workload under each of these interpreters."""
    program = str(WORKLOADS / "start_polls.py")
    commands = [f"{path}={shlex.join([path, '-B', program])}" for path in PYTHONS]
    done = record([sys.executable, str(WORKLOADS / "driver.py"), *commands])
    assert [line["status"] for line in done.of("program")] == [0] * len(PYTHONS), done.stderr
    return done


@pytest.mark.parametrize("python", PYTHONS)
def test_empty_polls_of_a_start(recorded: Recorded, python: str) -> None:
    """Each start polls each child once in vain that is known and lives; not the dead, and not those that it does not know."""
    starts = recorded.of("start", python, "start")
    parent = recorded.row(starts[0]["pid"])["parent_id"]
    waits = recorded.recording.waits()
    empty = waits[(waits["id"] == parent) & (waits["options"] == "WNOHANG")].groupby("site")["empty"].sum()
    assert [line["living"] for line in starts] == [0, 1, 2, 3, 3, 3]
    for line in starts:
        site = f"start_polls.py:{line['line']} main"
        assert empty.get(site, 0) == line["living"], site


@pytest.mark.parametrize("python", PYTHONS)
def test_empty_polls_of_a_child(recorded: Recorded, python: str) -> None:
    """A child was asked for in vain by every start between its own and its end, or until it was forgotten."""
    lines = recorded.of("child", python)
    assert sorted(line["empty_waits"] for line in lines) == [0, 0, 0, 1, 3, 4, 4]
    recorded.assert_agrees(lines)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_dead_one_is_swept(recorded: Recorded, python: str) -> None:
    """The one that had ended is reaped by the next start, and costs it no empty poll."""
    short, following = (line["pid"] for line in recorded.of("start", python, "start")[3:5])
    assert recorded.row(short)["cleared_by_id"] == recorded.id_of(following)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_table_of_starts_agrees(recorded: Recorded, python: str) -> None:
    """What follows from the order of events, `polled`, is what was counted: the living, and the one dead.

    But for the last start, before which the workload made multiprocessing forget a child behind everybody's back.
    """
    starts = recorded.of("start", python, "start")[:-1]
    table = recorded.recording.starts().drop_duplicates("start_id").set_index("start_id")
    polled = table.loc[[recorded.id_of(line["pid"]) for line in starts], "polled"].tolist()
    assert polled == [line["living"] + (line is starts[-1]) for line in starts]
