"""What is said of a reap that did not come at once: nobody who waited in time is told to wait earlier."""

from __future__ import annotations

from typing import Any

import pytest
from test_why import line, told
from traces import MS, cells, child, known, recording, target

from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.remarks import PARENT_STOPPED
from forktrace.trace import events as ev

LIB = "/usr/lib/python3.11"
WAITS = f"/srv/app.py:5 main;{LIB}/subprocess.py:1264 wait;{LIB}/subprocess.py:2050 _wait"
COMMUNICATES = f"/srv/app.py:5 main;{LIB}/subprocess.py:1200 communicate;{LIB}/subprocess.py:1264 wait"


def made(
    *more: ev.Row,
    waiters: int | None = 0,
    reap_ms: float = 900,
    options: int = 0,
    stack: str = "/srv/app.py:5 main",
    **row: Any,
) -> Recording:
    """A child of the target, a zombie from 500 ms on, reaped by a wait on this stack."""
    rows = [*child(4711, 100, 500), *more]
    rows[2] |= {"count": waiters} | row
    rows.append(ev.reap(int(reap_ms * MS), 4711, by=100, options=options, stack=stack, stack_status="ok"))
    return recording(target(), *sorted(rows, key=lambda one: one["time_ns"]), ev.end(4000 * MS))


@pytest.mark.parametrize(("waiters", "awaited"), [(None, None), (0, False), (1, True), (16, True)])
def test_awaited(waiters: int | None, awaited: bool | None) -> None:
    """The number of waits is recorded, or that it is not known; of who was no zombie it is not known either."""
    assert cells(made(waiters=waiters).lifecycles(), "awaited") == [(None,), (awaited,)]


def test_a_wait_that_came_late() -> None:
    """It is said, and what to do."""
    assert line(made(), "why").endswith("; that call came only then (os-wait)")
    assert line(made(), "fix").startswith("app.py:5, one of:")


def test_a_wait_that_was_there_already() -> None:
    """However long it took."""
    waited = made(waiters=1)
    assert "it waited already when the zombie began" in line(waited, "why")
    assert line(waited, "fix") == "none needed: it waited in time"
    assert "came only then" in line(made(waiters=1, options=1), "why")  # not the one that waited


def test_an_older_recording_does_not_tell() -> None:
    """Of a call that does not block it is certain all the same."""
    assert line(made(waiters=None), "why").endswith("this recording does not tell (os-wait)")
    assert line(made(waiters=None), "fix") == "app.py:5, none needed if it was waiting by then; else one of:"
    assert line(made(waiters=None, options=1), "why").endswith("; that call came only then (os-wait)")


@pytest.mark.parametrize("waiters", [None, 0])
@pytest.mark.parametrize("function", ["run", "call", "check_output"])
def test_a_call_that_waits_from_the_start(function: str, waiters: int | None) -> None:
    """subprocess.run() cannot wait earlier; a function of that name of the program's own can."""
    stack = f"/srv/app.py:5 main;{LIB}/subprocess.py:550 {function};{LIB}/subprocess.py:1264 wait"
    runs = made(waiters=waiters, stack=stack)
    assert "waits from the start" in line(runs, "why")
    assert line(runs, "fix") == "none needed, unless somebody keeps open a pipe that it reads"
    own = made(waiters=waiters, stack=stack.replace(f"{LIB}/subprocess.py:550", "/srv/app.py:7"))
    assert "waits from the start" not in line(own, "why")


def test_a_parent_that_was_stopped_as_the_zombie_began() -> None:
    """A note says so, and it is no late call."""
    stopped = made(detail=ev.PARENT_STOPPED)
    assert cells(stopped.lifecycles(), "notes", "complete")[1] == (PARENT_STOPPED, True)
    assert "100 was stopped meanwhile" in line(stopped, "why")
    assert line(stopped, "fix").startswith("none in this line")


@pytest.mark.parametrize(
    ("number", "time_ms", "is_named"), [(19, 700, True), (20, 700, True), (19, 400, False), (15, 700, False)]
)
def test_a_parent_that_was_stopped_later(number: int, time_ms: int, is_named: bool) -> None:
    """Between the exit and the reap, by whom."""
    signal = ev.signal(time_ms * MS, 100, number, by=60, disposition="handler" if number == 15 else "default")
    stopped = made(signal)
    said = [text for text in told(stopped) if "stopped 100, its parent, by SIG" in text]
    assert len(said) == ("100 was stopped meanwhile" in line(stopped, "why")) == is_named
    assert all("sent by 60" in text for text in said)


def test_pauses_between_two_looks() -> None:
    """A wait with a timeout asks again and again; what takes longer than its pauses came late."""
    soon, late = (made(stack=WAITS, options=1, reap_ms=500 + delay) for delay in (45, 400))
    assert "pauses of 50 ms at most" in line(soon, "why")
    assert line(soon, "fix").startswith("none needed")
    assert line(late, "why").endswith("; that came only then (subprocess-wait)")


@pytest.mark.parametrize(("end_ms", "is_holder"), [(880, True), (910, True), (600, False), (990, False)])
def test_a_pipe_that_somebody_kept_open(end_ms: int, is_holder: bool) -> None:
    """What the child left behind, if it ended just then; else it cannot be told from a late call."""
    left = [ev.fork(200 * MS, 4800, by=4711), ev.exit_(end_ms * MS, 4800, adopter=1), ev.zombie(end_ms * MS, 4800, parent=1)]
    held = made(*left, stack=COMMUNICATES)
    assert ("4711 left behind ended only then" in line(held, "why")) == is_holder
    assert ("or somebody kept the pipes open" in line(held, "why")) != is_holder


def test_other_causes_have_their_own_words() -> None:
    """An event loop was busy, a start swept: no wait is called late there."""
    asyncio = known(made(waiters=1), reap_cause={1: "next-start"})
    assert "waited already" not in line(asyncio, "why")
