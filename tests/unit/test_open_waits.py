"""Waits that brought nothing: who waited for whom, since when, and what report, why and events say of them."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from test_causes import ok
from traces import MS, cells, child, recording, target

from forktrace.analysis.causes.names import Names
from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.views.text.report import report
from forktrace.views.text.why import chain, why
from forktrace.views.why import open_waits

JOIN = "app.py main > multiprocessing/process.py join > multiprocessing/popen_fork.py wait > multiprocessing/popen_fork.py poll"
WATCH = "app.py main > multiprocessing/process.py join > multiprocessing/popen_forkserver.py poll > selectors.py select"
READ = "app.py main > subprocess.py run > subprocess.py communicate"
COLUMNS = ("id", "child_pid", "tid", "since_ns", "since", "until", "call", "target", "site")


def waiting(time_ms: float, pid: int | None, frames: str = JOIN, *, slept_ms: int | None = None, **more: Any) -> ev.Row:
    """Return a wait of the target that a signal ended; with `slept_ms` one that the end of the recording did."""
    goes_on = {} if slept_ms is None else {"detail": ev.GOES_ON, "count": slept_ms * MS}
    return ev.wait(int(time_ms * MS), pid, by=100, result=ev.EINTR, target_pid=pid, **ok(frames), **goes_on, **more)


def made(*rows: ev.Row) -> Recording:
    """Return a recording of a target with one child that runs on."""
    return recording(target(), ev.fork(10 * MS, 500, by=100, comm="worker"), *rows)


def test_a_join_that_goes_on_when_the_recording_ends() -> None:
    """It is known since when its thread has slept; not since before the child was made."""
    table = made(waiting(900, 500, slept_ms=700)).open_waits()
    assert cells(table, *COLUMNS) == [(0, 500, 100, 200 * MS, "about", "recording", "wait4", "pid", "app.py:1 main")]
    assert cells(made(waiting(900, 500, slept_ms=895)).open_waits(), "since_ns") == [(10 * MS,)]


def test_a_wait_that_ended_with_its_process() -> None:
    """The signal that killed it came first; it began after whatever else its thread did."""
    killed = [ev.signal(800 * MS, 100, 15), waiting(801, 500), ev.exit_(802 * MS, 100, 15)]
    table = made(ev.fork(20 * MS, 501, by=100), *killed).open_waits()
    assert cells(table, *COLUMNS) == [(0, 500, 100, 20 * MS, "earliest", "killed", "wait4", "pid", "app.py:1 main")]
    anyone = [ev.signal(800 * MS, 100, 15), waiting(801, None, target="any"), ev.exit_(802 * MS, 100, 15)]
    assert cells(made(*anyone).open_waits(), "child_pid", "until", "target") == [(None, "killed", "any")]


def test_a_wait_that_a_signal_interrupted() -> None:
    """Ctrl-C broke it off, of several times the last; not one that goes on afterwards and reaps, nor one for any child."""
    assert cells(made(waiting(300, 500), waiting(500, 500)).open_waits(), "time_ns", "until") == [(500 * MS, "interrupted")]
    went_on = [ev.exit_(600 * MS, 500, parent=100), ev.reap(601 * MS, 500, by=100, **ok(JOIN))]
    assert made(waiting(500, 500), *went_on).open_waits().empty
    at_exit = [ev.exit_(600 * MS, 500, parent=100), ev.reap(601 * MS, 500, by=100, **ok("app.py bye"))]
    assert cells(made(waiting(500, 500), *at_exit).open_waits(), "until") == [("interrupted",)]
    assert made(waiting(500, None, target="any")).open_waits().empty
    assert made(waiting(500, 500) | {"result": 10}).open_waits().empty


def test_a_join_that_watches_a_pipe() -> None:
    """No call says for whom: it is the only child there is, of several none."""
    pipe: dict[str, Any] = {"slept_ms": 700, "call": None, "target": None}
    one = waiting(900, None, READ, **pipe)
    assert cells(made(one).open_waits(), "child_pid", "call", "target") == [(500, None, None)]
    assert cells(made(ev.fork(20 * MS, 501, by=100), one).open_waits(), "child_pid") == [(None,)]
    assert cells(made(*child(501, 20, 30), ev.reap(40 * MS, 501, by=100), one).open_waits(), "child_pid") == [(500,)]
    assert cells(made(waiting(900, None, WATCH, **pipe)).open_waits(), "child_pid") == [(None,)]  # nor was it the server's


def printed(one: Recording) -> str:
    """Return the report, with single spaces."""
    file = io.StringIO()
    report(one, Console(file=file, width=400))
    return " ".join(file.getvalue().split())


def test_what_the_report_says() -> None:
    """Who waited for whom, where, since when and how it ended; what the end of the recording broke off comes first."""
    said = printed(made(waiting(900, 500, slept_ms=700)))
    where = "waited for 500 worker at app.py:1 main > Process.join"
    assert (
        f"Waits that brought nothing 100 python {where}, for about 700 ms (since +0.200), still when the recording ended."
        in said
    )
    killed = made(ev.signal(800 * MS, 100, 15), waiting(801, 500, by_tid=101), ev.exit_(802 * MS, 100, 15))
    assert f"thread 101 of 100 python {where}, for at most 791 ms (since +0.010 or later), until it was killed." in printed(
        killed
    )


def test_many_are_cut() -> None:
    """The longest five are told, the others counted."""
    many = made(*(waiting(900, 500, slept_ms=100 + number, by_tid=200 + number) for number in range(7)))
    lines = [line.text.plain for line in open_waits.lines(many, Names(many.lifecycles()))]
    assert len(lines) == 6
    assert lines[0].startswith("thread 206 of 100 python waited for 500 worker")
    assert lines[-1] == "2 more waits in the table of `forktrace export --table open_waits`."


def test_what_why_says() -> None:
    """Of who waited and of whom it waited for; a pipe that is read to its end is the reason that nobody reaped."""
    one = made(waiting(900, 500, slept_ms=700))
    assert [line.text for line in chain(one, 0)][2].startswith(
        "waits   for 500 worker at app.py:1 main > Process.join, for about"
    )
    assert [line.text for line in chain(one, 1)][2].startswith(
        "awaited by 100 python at app.py:1 main > Process.join, for about"
    )
    ended = [ev.exit_(300 * MS, 500, parent=100), ev.zombie(300 * MS, 500, parent=100)]
    read = made(*ended, waiting(900, None, READ, slept_ms=700, call=None, target=None))
    said = {line.mark: line.text for line in chain(read, 1)}
    assert said["why"].startswith("100 waits for it in communicate(), which reads its pipes to their end first")
    assert said["fix"].startswith("start what runs on with another stdout than the pipe")


def test_what_events_says() -> None:
    """A wait that goes on is not one that failed."""
    table = made(waiting(900, 500, slept_ms=700), waiting(800, 500)).events()
    assert table.loc[table["kind"] == "wait", "detail"].tolist() == [
        "wait4(500) = EINTR",
        "wait4(500) had not come back when the recording ended",
    ]


def test_what_why_begins_with() -> None:
    """Where no zombie is to be told of: whose status nobody got, then whom somebody waited for in vain."""
    assert said_first(made(waiting(900, 500, slept_ms=700))).startswith("500 was still running")
    assert said_first(made(waiting(900, None, slept_ms=700, target="any"))).startswith("100 was still running")
    ignored = [ev.exit_(300 * MS, 500, 768, parent=100, disposition="ignored"), ev.autoreap(300 * MS, 500, parent_pid=100)]
    late = ev.wait(400 * MS, None, by=100, result=ev.ECHILD, target_pid=500, **ok(READ))
    said = said_first(made(*ignored, late))
    assert said.startswith("500 was never a zombie")
    assert "fix signal.signal(signal.SIGCHLD, signal.SIG_DFL), and a wait for each child" in said
    assert said_first(made()) == "No process of this recording was a zombie."


def said_first(one: Recording) -> str:
    """Return what `why` says of no process in particular, with single spaces."""
    file = io.StringIO()
    why(one, None, Console(file=file, width=400))
    return " ".join(file.getvalue().split())
