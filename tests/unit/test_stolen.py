"""Who took the exit status of a child that another was to wait for."""

from __future__ import annotations

from typing import Any

import pytest
from test_causes import ok
from traces import MS, cells, recording, target

from forktrace.trace import events as ev
from forktrace.views.formats.export import TABLES

PROCESS = "app.py main > multiprocessing/process.py start > multiprocessing/popen_fork.py _launch"
POPEN = "app.py main > subprocess.py __init__ > subprocess.py _execute_child"
JOIN = "app.py main > multiprocessing/process.py join > multiprocessing/popen_fork.py wait > multiprocessing/popen_fork.py poll"
WAIT = "app.py main > subprocess.py wait > subprocess.py _try_wait"
FAST = "app.py loop > asyncio/events.py _run > asyncio/unix_events.py _sig_chld > asyncio/unix_events.py _do_waitpid_all"
WATCH = "threading.py run > asyncio/unix_events.py _do_waitpid"
HANDLER = "app.py main > app.py nap > <signal handler> SIGCHLD > app.py reap"
SWEEP = (
    "app.py main > multiprocessing/process.py start > multiprocessing/process.py _cleanup > multiprocessing/popen_fork.py poll"
)
DROPPED = "app.py main > subprocess.py __del__ > subprocess.py _internal_poll"


def taken(
    fork: str | None, reap: str | None, *asked: str | None, at: float = 5.0, result: int = 10, **of_reap: Any
) -> list[tuple[Any, ...]]:
    """Return what `stolen` says of a child forked, reaped and then asked for in vain on these stacks."""
    stacks = [{} if frames is None else ok(frames) for frames in (fork, reap, *asked)]
    rows = [
        target(),
        ev.fork(1 * MS, 500, by=100, **stacks[0]),
        ev.exit_(2 * MS, 500, 7 << 8, parent=100),
        ev.zombie(3 * MS, 500),
    ]
    rows.append(ev.reap(4 * MS, 500, **stacks[1] | {"by": 100, "target": "any"} | of_reap))
    for number, stack in enumerate(stacks[2:]):
        rows.append(ev.wait(int(at * MS) + number, None, by=100, result=result, target_pid=500, **stack))
    return cells(recording(*rows).stolen())


@pytest.mark.parametrize(
    ("fork", "reap", "asked", "made", "sites", "seen"),
    [
        (PROCESS, "app.py reaper", JOIN, "multiprocessing", ("app.py:1 reaper", "app.py:1 main"), "exitcode None"),
        (POPEN, "app.py reaper", WAIT, "subprocess", ("app.py:1 reaper", "app.py:1 main"), "returncode 0"),
        (POPEN, HANDLER, WAIT, "subprocess", ("app.py:4 reap", "app.py:1 main"), "returncode 0"),
        (POPEN, FAST, WAIT, "subprocess", ("app.py:1 loop", "app.py:1 main"), "returncode 0"),
        (POPEN, "@gevent/hub.py run", WAIT, "subprocess", ("gevent/hub.py:1 run", "app.py:1 main"), "returncode 0"),
        (POPEN, "app.py nap > <signal handler> SIGCHLD > @gunicorn/arbiter.py reap_workers", WAIT, "subprocess",
         ("gunicorn/arbiter.py:3 reap_workers", "app.py:1 main"), "returncode 0"),
        (POPEN, "app.py reaper", DROPPED, "subprocess", ("app.py:1 reaper", "app.py:1 main"), "not asked"),
        (POPEN, "app.py x", "app.py main > subprocess.py poll > subprocess.py _internal_poll", "subprocess",
         ("app.py:1 x", "app.py:1 main"), "returncode 0"),
        (PROCESS, "app.py x", "app.py main > multiprocessing/process.py is_alive > multiprocessing/popen_fork.py poll",
         "multiprocessing", ("app.py:1 x", "app.py:1 main"), "exitcode None"),
        ("asyncio/unix_events.py _start > subprocess.py __init__", "app.py reaper", WATCH, "asyncio",
         ("app.py:1 reaper", "unix_events.py:2 _do_waitpid"), "returncode 255"),
        ("asyncio/unix_events.py _start > subprocess.py __init__", "app.py reaper",
         "asyncio/base_subprocess.py close > subprocess.py poll > subprocess.py _internal_poll", "asyncio",
         ("app.py:1 reaper", "subprocess.py:3 _internal_poll"), "not asked"),
        ("app.py main", "app.py reaper", "app.py other", "os-fork", ("app.py:1 reaper", "app.py:1 other"), "ECHILD"),
        ("multiprocessing/resource_tracker.py x > multiprocessing/util.py spawnv_passfds", "app.py reaper",
         "multiprocessing/resource_tracker.py ensure_running", "multiprocessing",
         ("app.py:1 reaper", "resource_tracker.py:1 ensure_running"), "ECHILD"),
        (None, None, JOIN, "unknown", (None, "app.py:1 main"), "exitcode None"),
    ],
)  # fmt: skip
def test_thefts(fork: str | None, reap: str | None, asked: str, made: str, sites: tuple[Any, Any], seen: str) -> None:
    """A wait for any child, or in a handler, takes what another library, or another line, then asks for in vain."""
    assert taken(fork, reap, asked) == [(4 * MS, 1, made, 0, 100, *sites, seen)]


def test_thefts_of_a_named_child() -> None:
    """The program that waits for a library's child by its number takes it as well, and so does a handler."""
    assert [row[-1] for row in taken(PROCESS, "app.py reaper", JOIN, target="pid")] == ["exitcode None"]
    assert [row[-1] for row in taken("app.py main", HANDLER, "app.py main", target="pid")] == ["ECHILD"]


@pytest.mark.parametrize(
    ("fork", "reap", "asked", "of_reap"),
    [
        (PROCESS, JOIN, HANDLER, {"target": "pid"}),
        (PROCESS, "app.py reaper", HANDLER, {}),
        ("app.py main", "app.py reaper", "app.py other", {"target": "pid"}),
        ("app.py main", "app.py reaper", "app.py reaper", {}),
        (PROCESS, JOIN, SWEEP, {"target": "pid"}),
        (PROCESS, JOIN, "app.py main", {"target": "pid"}),
        (POPEN, FAST, WATCH, {}),
        ("asyncio/unix_events.py _start > subprocess.py __init__", FAST, DROPPED, {}),
        (PROCESS, None, JOIN, {"target": "pid"}),
        (PROCESS, "app.py reaper", JOIN, {"by": 1}),
        (PROCESS, "app.py reaper", JOIN, {"call": "unseen"}),
    ],
    ids="join late_handler by_number same_line library own_wait asyncio its_popen no_stack outside unseen".split(),
)
def test_no_thefts(fork: str, reap: str | None, asked: str, of_reap: dict[str, Any]) -> None:
    """A library that gets what it asks for has stolen nothing, whoever asks next; a late handler is not robbed."""
    assert taken(fork, reap, asked, **of_reap) == []


@pytest.mark.parametrize("stack", ["", ";", "\x00", "a b c", ":1 ", "x" * 5000 + ";" * 5000])
def test_stacks_that_no_recorder_writes(stack: str) -> None:
    """They are text like any other, in every table."""
    strange = {"stack": stack, "stack_status": "ok"}
    rows = [
        target(),
        ev.fork(1 * MS, 500, by=100, **strange),
        ev.exit_(2 * MS, 500, parent=100, exit_from="interpreter", **strange),
    ]
    rows += [ev.zombie(3 * MS, 500), ev.reap(4 * MS, 500, by=100, target="any", **strange)]
    rows += [ev.wait(5 * MS, None, by=100, result=10, target_pid=500, **strange), ev.fork_failed(6 * MS, 100, 11, **strange)]
    rows += [ev.waits(7 * MS, 3, by=100, target="any", call="wait4", **strange), ev.signal(8 * MS, 100, 15, by=100, **strange)]
    made = recording(*rows)
    for table in TABLES.values():
        table(made)
    assert cells(made.lifecycles(), "reap_cause")[1] == ("os-wait",)
    assert made.stolen().empty


def test_in_vain_is_after_the_death() -> None:
    """A wait that failed before the child had died was not for it; one that returns just before the thief's may be."""
    assert taken(PROCESS, "app.py reaper", JOIN, at=2.5) == []
    assert taken(PROCESS, "app.py reaper", JOIN, result=4) == []
    assert len(taken(PROCESS, "app.py reaper", JOIN, at=3.5)) == 1


def test_who_asks_is_named_before_who_sweeps() -> None:
    """A join, even a later one, says more than the sweep of a start; without one the sweep is the owner, and nobody asked."""
    both = taken(PROCESS, "app.py reaper", SWEEP.replace("main", "first"), JOIN)
    assert [row[6:] for row in both] == [("app.py:1 main", "exitcode None")]
    assert [row[6:] for row in taken(PROCESS, "app.py reaper", SWEEP)] == [("app.py:1 main", "not asked")]


def test_children_are_told_apart() -> None:
    """A number that is used again is another child, a caller in a namespace uses its own numbers, and time orders the rows."""
    rows = [target()]
    for start, pid, ns_pid in ((10, 500, 7), (30, 500, 8), (20, 501, 9), (22, 502, 500)):
        born = (9 if pid == 501 else start) * MS
        rows += [ev.fork(born, pid, by=100, ns_pid=ns_pid, **ok(PROCESS)), ev.exit_((start + 1) * MS, pid, parent=100)]
        rows += [ev.zombie((start + 1) * MS, pid), ev.reap((start + 5) * MS, pid, by=100, target="any", **ok("app.py reaper"))]
    asks = [
        ev.wait(time * MS, None, by=100, result=10, target_pid=number, **ok(JOIN))
        for time, number in ((16, 7), (36, 8), (26, 9))
    ]
    other = [ev.wait(37 * MS, pid, by=200, result=10, target_pid=500, **ok(JOIN)) for pid in (None, 502)]
    table = recording(*rows, *asks, ev.fork(8 * MS, 200, by=100), *other).stolen()
    assert cells(table, "time_ns", "id") == [(15 * MS, 3), (25 * MS, 2), (35 * MS, 5)]


def test_the_part_of_a_recording() -> None:
    """Of a part only what was stolen in it, or by it, is told; and the columns are those of the contract."""
    rows = [target(), ev.fork(1 * MS, 500, by=100), ev.exit_(2 * MS, 500, parent=100), ev.zombie(3 * MS, 500)]
    rows += [ev.reap(4 * MS, 500, by=100, target="any", **ok("app.py reaper"))]
    made = recording(*rows, ev.wait(5 * MS, None, by=100, result=10, target_pid=500, **ok(JOIN)))
    assert [len(made.between(since).stolen()) for since in (0, 5 * MS)] == [1, 0]
    assert made.stolen().dtypes.astype(str).to_dict() == {
        "time_ns": "int64",
        "id": "int64",
        "created_by": "category",
        "thief_id": "Int64",
        "thief_tid": "Int64",
        "thief_site": "string",
        "owner_site": "string",
        "seen": "category",
    }
    assert recording(target()).stolen().empty
