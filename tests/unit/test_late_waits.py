"""Waits for a child that was gone already: the table, and what report and why say of it."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from test_causes import ok, shell
from traces import MS, cells, recording, target

from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.views.text.report import report
from forktrace.views.text.why import chain

POPEN = "app.py main > subprocess.py __init__ > subprocess.py _execute_child"
WAIT = "app.py main > subprocess.py wait > subprocess.py _try_wait"
POLL = "app.py main > multiprocessing/process.py is_alive > multiprocessing/popen_fork.py poll"
SWEEP = "app.py x > multiprocessing/process.py start > multiprocessing/process.py _cleanup > multiprocessing/popen_fork.py poll"


def too_late(time_ms: float, pid: int, frames: str, **more: Any) -> ev.Row:
    """Return a wait of the target for `pid` that failed with ECHILD."""
    return ev.wait(int(time_ms * MS), None, by=100, result=10, target_pid=pid, **ok(frames), **more)


def ignored(pid: int, status: int = 0, start_ms: int = 1, **of_fork: Any) -> list[ev.Row]:
    """Return a child of the target that nobody waits for, since that ignores SIGCHLD."""
    rows = [ev.fork(start_ms * MS, pid, by=100, **(of_fork or ok(POPEN)))]
    rows += [ev.exit_((start_ms + 1) * MS, pid, status, parent=100, disposition="ignored")]
    return [*rows, ev.autoreap((start_ms + 1) * MS, pid, parent_pid=100)]


def reaped(pid: int) -> list[ev.Row]:
    """Return a child of the target that `app.py main` reaped at 4 ms."""
    rows = [
        ev.fork(MS, pid, by=100, **ok(POPEN)),
        ev.exit_(2 * MS, pid, 3 << 8, parent=100),
        ev.zombie(2 * MS, pid, parent=100),
    ]
    return [*rows, ev.reap(4 * MS, pid, by=100, **ok(WAIT))]


def printed(made: Recording) -> str:
    """Return the report."""
    file = io.StringIO()
    report(made, Console(file=file, width=400))
    return file.getvalue()


def test_one_row_a_wait() -> None:
    """Which child it was, whose wait, at which line, and what that got to see; by the number that the caller knows."""
    rows = [target(), *ignored(500, 3 << 8), too_late(3, 500, WAIT, by_tid=101), *reaped(501), too_late(9, 501, "app.py again")]
    table = recording(*rows).late_waits()
    assert cells(table, "time_ns", "id", "child_id", "child_pid", "tid", "call", "target", "site", "seen") == [
        (3 * MS, 0, 1, 500, 101, "wait4", "pid", "app.py:1 main", "returncode 0"),
        (9 * MS, 0, 2, 501, 100, "wait4", "pid", "app.py:1 again", "ECHILD"),
    ]
    inside = [target(), *ignored(500, ns_pid=7, **ok(POPEN)), too_late(3, 7, WAIT), too_late(3, 500, WAIT)]
    assert cells(recording(*inside).late_waits(), "child_pid") == [(500,), (500,)]


def test_waits_that_are_not_late() -> None:
    """For any child, for one of another process, before it ended, or that failed otherwise: no child was gone."""
    other = ev.wait(5 * MS, None, by=200, result=10, target_pid=500, **ok(WAIT))
    rows = [
        ev.fork(MS, 200, by=100),
        other,
        other | {"pid": 500},
        too_late(1.5, 500, WAIT),
        too_late(6, 500, WAIT) | {"target": "any"},
    ]
    rows += [too_late(7, 500, WAIT) | {"result": 4}, too_late(8, 777, WAIT)]
    assert recording(target(), *ignored(500), *rows).late_waits().empty


def test_lost_exit_statuses_are_the_finding() -> None:
    """The line that waited for a child of one that ignores SIGCHLD, what it took its end for, and how many failed."""
    rows = [target(), *ignored(500, 3 << 8), too_late(3, 500, WAIT), *ignored(501, 9), too_late(3, 501, "app.py main")]
    rows += [*ignored(502, 0, 5), too_late(7, 502, WAIT), *ignored(503, 0, 8), too_late(10, 503, POLL)]
    rows += [*ignored(505, 0, 8), too_late(10, 505, POLL), *ignored(506, 0, 8), too_late(10, 506, POLL)]
    rows += [*ignored(504, 0, 11), too_late(14, 504, "app.py other")]
    text = printed(recording(*rows))
    assert "Exit statuses that nobody got" in text
    first, second, *_ = text.partition("Exit statuses that nobody got\n")[2].splitlines()
    ignores = "100 python ignores SIGCHLD."
    assert (
        first == f"  app.py:1 main waited for 500 and 502, of which 1 failed, and got returncode 0, whatever it was: {ignores}"
    )
    assert second == f"  app.py:1 main waited for 501, which was killed by SIGKILL, and got ECHILD, no such child: {ignores}"
    assert "1 more line in the table of `forktrace export --table late_waits`." in text
    assert "Waits that came too late" not in text


def test_nobody_asked() -> None:
    """Where no line of the program waited nothing is lost, and a sweep of all children is no line that did."""
    rows = [target(), *ignored(500, 3 << 8, **ok(POPEN)), too_late(3, 500, SWEEP)]
    assert cells(recording(*rows).late_waits(), "seen") == [("not asked",)]
    assert "nobody got" not in printed(recording(*rows))


def test_waits_that_came_too_late() -> None:
    """The line that waited, and which line had reaped; what was stolen is said elsewhere."""
    rows = [target(), *reaped(500), too_late(9, 500, "app.py again")]
    said = (
        "  app.py:1 again waited for 500, which exited 3, and got ECHILD, no such child: it had been reaped at app.py:1 main.\n"
    )
    assert f"Waits that came too late\n{said}" in printed(recording(*rows))
    rows[4] |= {"target": "any"} | ok("app.py thief")
    rows[5] = too_late(9, 500, WAIT)
    assert len(recording(*rows).stolen()) == 1
    assert "too late" not in printed(recording(*rows))


def told(made: Recording, process: int) -> list[str]:
    """Return the lines of why."""
    return [f"{one.mark} {one.text}" for one in chain(made, process)]


def test_why_names_the_waits() -> None:
    """The lines that waited too late, and the damage where the child failed."""
    rows = [target(), *ignored(500, 3 << 8), too_late(3, 500, WAIT), *ignored(501), too_late(3, 501, WAIT, by_tid=101)]
    made = recording(*rows)
    assert "+0.003 waited  by 100 at app.py:1 main, too late, and got returncode 0, whatever it was" in told(made, 1)
    assert "damage it exited 3, and the program did not learn of it" in told(made, 1)
    assert "+0.003 waited  by thread 101 of 100 at app.py:1 main, too late, and got returncode 0, whatever it was" in told(
        made, 2
    )
    assert not any(line.startswith("damage") for line in told(made, 2))


def test_os_system_where_sigchld_is_ignored() -> None:
    """libc waits for the shell in vain, on the line that made it: it is libc's all the same."""
    rows = [*shell(500)[:2], shell(500)[4], ev.autoreap(501 * MS, 500, parent_pid=100)]
    rows[1] |= {"disposition": "ignored"}
    wait = ev.wait(502 * MS, None, by=100, result=10, target_pid=500, **ok("os.py x > app.py main"))
    assert cells(recording(target(), *rows, wait).lifecycles(), "created_by")[1] == ("native",)
    assert cells(recording(target(), *rows).lifecycles(), "created_by")[1] == ("posix-spawn",)
