"""Which start cleared which zombies, and the forks that failed."""

from __future__ import annotations

from typing import Any

import pytest
from traces import MS, cells, child, recording, target

from forktrace.trace import events as ev


def cleared(*rows: ev.Row) -> dict[int, int]:
    """Return, by number, which process's start cleared which."""
    table = recording(target(), *rows).lifecycles()
    found = table[table["cleared_by_id"].notna()]
    pid_of = table["pid"].to_dict()
    return {pid_of[one]: pid_of[by] for one, by in zip(found["id"], found["cleared_by_id"], strict=True)}


def poll(time_ms: float, pid: int, tid: int = 100, options: int = 1, target: str = "pid", by: int = 100) -> ev.Row:
    """Return a reap as Process.start() makes it: wait4(pid, WNOHANG)."""
    return ev.reap(int(time_ms * MS), pid, by=by, by_tid=tid, options=options, target=target)


def start(time_ms: float, pid: int, tid: int = 100, by: int = 100) -> ev.Row:
    """Return the fork of a start."""
    return ev.fork(int(time_ms * MS), pid, by=by, by_tid=tid)


DEAD = [*child(500, 10, 20), *child(501, 11, 20)]


def test_a_start_clears_all_that_it_swept_in_a_row() -> None:
    """Several polls in a row and a fork by one thread: the start cleared them all, and the rows say it is inferred."""
    rows = [*DEAD, poll(50, 500), poll(50.1, 501), start(50.2, 502)]
    assert cleared(*rows) == {500: 502, 501: 502}
    notes = recording(target(), *rows).lifecycles()["notes"]
    assert notes.dropna().tolist() == ["clearing start inferred"] * 2


def test_each_start_clears_its_own() -> None:
    """A sweep belongs to the next fork, not to a later one."""
    assert cleared(*DEAD, poll(50, 500), start(50.1, 502), poll(60, 501), start(60.1, 503)) == {500: 502, 501: 503}


@pytest.mark.parametrize(
    "rows",
    [
        [poll(50, 500, options=0), start(50.1, 502)],
        [poll(50, 500, target="any"), start(50.1, 502)],
        [poll(50, 500, tid=101), start(50.1, 502)],
        [poll(50, 500), start(150.1, 502)],
        [poll(50, 500), ev.wait(int(50.1 * MS), None, by=100, result=10), start(50.2, 502)],
        [poll(50, 500), ev.fork_failed(int(50.1 * MS), 100, 11), start(50.2, 502)],
        [poll(50, 500), poll(50.1, 501, options=0), start(50.2, 502)],
        [start(50.1, 502), poll(50.2, 500)],
        [poll(50, 500)],
    ],
    ids="join any other_thread too_long_before wait_between failed_fork_between join_between start_first no_start".split(),
)
def test_what_is_no_sweep(rows: list[ev.Row]) -> None:
    """A join, a wait for any child, another thread, a long gap, and anything in between: no start cleared it."""
    assert cleared(*DEAD, *rows) == {}


def test_gaps_are_counted_from_step_to_step() -> None:
    """Each step may take 100 ms, the whole sweep longer; after one gap that is too long only the rest counts."""
    assert cleared(*DEAD, poll(50, 500), poll(149, 501), start(248, 502)) == {500: 502, 501: 502}
    assert cleared(*DEAD, poll(50, 500), poll(151, 501), start(152, 502)) == {501: 502}


def test_threads_of_two_processes_are_told_apart() -> None:
    """A thread number that is used again by another process is another thread."""
    rows = [ev.fork(5 * MS, 200, by=100), *child(500, 10, 20), poll(50, 500, tid=999), start(51, 600, tid=999, by=200)]
    assert cleared(*rows) == {}


def test_a_break_in_the_middle_ends_the_chain() -> None:
    """Of a sweep with a long gap in it only what follows the gap belongs to the start."""
    rows = [*DEAD, *child(502, 12, 20), poll(50, 500), poll(51, 501), poll(200, 502), start(201, 503)]
    assert cleared(*rows) == {502: 503}


def test_a_reap_of_a_stranger_clears_nobody() -> None:
    """A reap of a process that is not in the recording marks no row."""
    assert cleared(*DEAD, poll(50, 999), start(50.1, 502)) == {}


def test_starts() -> None:
    """One row per start and zombie it cleared; one with nothing for a start that cleared none. The target is no start."""
    table = recording(target(), *DEAD, poll(50, 500), poll(51, 501), start(52, 502)).starts()
    assert cells(table.iloc[:, :7]) == [
        (10 * MS, 1, 0, None, None, None, None),
        (11 * MS, 2, 0, None, None, None, None),
        (52 * MS, 3, 0, None, 1, 30.0, 50 * MS),
        (52 * MS, 3, 0, None, 2, 31.0, 51 * MS),
    ]
    assert table[["polled", "method", "children", "found_by"]].isna().all(axis=None)
    assert table.dtypes.astype(str).to_dict() == {
        "time_ns": "int64",
        "start_id": "int64",
        "parent_id": "Int64",
        "site": "string",
        "cleared_id": "Int64",
        "zombie_ms": "float64",
        "cleared_ns": "Int64",
        "polled": "Int64",
        "method": "category",
        "children": "Int64",
        "found_by": "category",
    }


def test_failed_forks() -> None:
    """One row per fork that failed: who, which thread, why, and the limit where it is known."""
    rows = [ev.fork_failed(5 * MS, 100, 11, tid=105, detail="pids.max", count=20), ev.fork_failed(6 * MS, 100, 12)]
    table = recording(target(), *rows).failed_forks()
    assert cells(table) == [(5 * MS, 0, 105, 11, "pids.max", 20, 0, None), (6 * MS, 0, 100, 12, None, None, 0, None)]
    assert list(table.columns) == ["time_ns", "id", "tid", "errno", "limit", "allowed", "zombies", "site"]


def test_zombies_at_a_failed_fork() -> None:
    """Those that have ended and are not reaped at that moment; one that was reaped at that very moment is gone."""
    rows = [*child(500, 1, 10), *child(501, 2, 20), *child(502, 3, 30), ev.reap(40 * MS, 501, by=100)]
    rows += [ev.fork_failed(at * MS, 100, 11) for at in (5, 10, 25, 35, 40, 50)]
    assert recording(target(), *rows).failed_forks()["zombies"].tolist() == [0, 1, 2, 3, 2, 2]


LIB = "/usr/lib/python3.11/multiprocessing"
TRACKER = f"{LIB}/resource_tracker.py:121 ensure_running;{LIB}/util.py:456 spawnv_passfds"


def at(line: int, stack: str, status: str = "ok") -> dict[str, str]:
    """Return the columns of a stack that stands in `Process.start`, called on this line of the program."""
    return {"stack": f"/srv/consumer.py:{line} consume_task;{stack}", "stack_status": status}


def swept(line: int, status: str = "ok") -> dict[str, str]:
    """Return the stack of a sweep in the start that this line of the program calls."""
    return at(line, f"{LIB}/process.py:118 start;{LIB}/process.py:59 _cleanup;{LIB}/popen_fork.py:28 poll", status)


def forked(line: int, status: str = "ok", launch: str = f"{LIB}/popen_fork.py:66 _launch") -> dict[str, str]:
    """Return the stack of the fork in the start that this line of the program calls."""
    return at(line, f"{LIB}/process.py:121 start;{LIB}/context.py:224 _Popen;{launch}", status)


def test_stacks_say_it_exactly() -> None:
    """A reap in a sweep and the thread's next fork are one start if the frames around it are the same, however late."""
    rows = [*DEAD, poll(50, 500) | swept(33), poll(50.1, 501) | swept(33), start(950, 502) | forked(33)]
    assert cleared(*rows) == {500: 502, 501: 502}
    assert recording(target(), *rows).lifecycles()["notes"].isna().all()


@pytest.mark.parametrize(
    "rows",
    [
        [poll(50, 500) | swept(33), start(50.1, 502) | forked(34)],
        [poll(50, 500) | swept(33), start(50.1, 502) | at(33, "/srv/consumer.py:34 fork")],
        [poll(50, 500) | at(33, f"{LIB}/process.py:160 is_alive;{LIB}/popen_fork.py:28 poll"), start(50.1, 502) | forked(33)],
        [poll(50, 500) | at(33, f"{LIB}/process.py:160 is_alive;{LIB}/popen_fork.py:28 poll"), start(50.1, 502)],
        [poll(50, 500), start(50.1, 502) | at(33, "/srv/consumer.py:34 fork")],
        [poll(50, 500) | swept(33), start(50.1, 502, tid=101) | forked(33)],
        [poll(50, 500) | swept(33), ev.fork_failed(51 * MS, 100, 11, **forked(33)), start(52, 502) | forked(33)],
        [poll(50, 500) | swept(33), start(51, 501) | forked(34), start(52, 502) | forked(33)],
        [poll(50, 500) | swept(33)],
        [ev.fork(30 * MS, 200, by=100), poll(50, 500, tid=999) | swept(33), start(51, 600, tid=999, by=200) | forked(33)],
    ],
    ids="other_line no_start is_alive is_alive_only plain_fork other_thread failed other_start no_fork other_process".split(),
)
def test_what_stacks_rule_out(rows: list[ev.Row]) -> None:
    """Another line, another call than start, another thread, a fork that failed: the stacks show that no start cleared it."""
    assert cleared(*DEAD[:3], *rows) == {}


def test_helpers_that_a_start_makes_first() -> None:
    """The tracker or the fork server that a start brings along is not what was started."""
    tracker = start(50.1, 600) | forked(33, launch=f"{LIB}/popen_spawn_posix.py:47 _launch;{TRACKER}")
    child_ = start(50.2, 502) | forked(33, launch=f"{LIB}/popen_spawn_posix.py:62 _launch;{LIB}/util.py:456 spawnv_passfds")
    assert cleared(*DEAD[:3], poll(50, 500) | swept(33), tracker, child_) == {500: 502}
    assert cleared(*DEAD[:3], poll(50, 500) | swept(33), tracker) == {}


def test_one_stack_is_missing() -> None:
    """Then the order of calls decides, and the row says that it is inferred."""
    for reap, fork in (
        ({}, forked(33)),
        (swept(33), {}),
        (swept(33), {"stack_status": "lost"}),
        (swept(33, "truncated"), forked(33)),
    ):
        rows = [*DEAD[:3], poll(50, 500) | reap, start(50.1, 502) | fork]
        assert cleared(*rows) == {500: 502}
        assert recording(target(), *rows).lifecycles()["notes"].dropna().tolist() == ["clearing start inferred"]


def test_sites_of_starts_and_failed_forks() -> None:
    """The line that called start, or the fork that failed."""
    rows = [*DEAD[:3], start(50.1, 502) | forked(33), ev.fork_failed(51 * MS, 100, 11, **forked(35))]
    made = recording(target(), *rows)
    assert cells(made.starts(), "site") == [(None,), ("consumer.py:33 consume_task",)]
    assert cells(made.failed_forks(), "site") == [("consumer.py:35 consume_task",)]


def started(time_ms: float, pid: int, dead_ms: float, **more: Any) -> list[ev.Row]:
    """Return the rows of a child that `Process.start` made, and that becomes a zombie."""
    ns = int(dead_ms * MS)
    fork = ev.fork(int(time_ms * MS), pid, by=100, **(forked(33) | more))
    return [fork, ev.exit_(ns, pid, 0, parent=100), ev.zombie(ns, pid, parent=100)]


def joined(time_ms: float, pid: int) -> ev.Row:
    """Return the reap of a join."""
    frames = f"{LIB}/process.py:149 join;{LIB}/popen_fork.py:43 wait;{LIB}/popen_fork.py:27 poll"
    return poll(time_ms, pid, options=0) | at(40, frames)


def steps(*rows: ev.Row) -> list[tuple[Any, ...]]:
    """Return what the starts of these rows did: whom they started and cleared, by number, and what else is seen of them."""
    made = recording(target(), *rows)
    pid = made.lifecycles()["pid"]
    table = made.starts().assign(
        start_id=lambda one: one["start_id"].map(pid), cleared_id=lambda one: one["cleared_id"].map(pid)
    )
    return cells(table, "start_id", "cleared_id", "polled", "method", "children", "found_by")


def test_three_steps_of_a_start() -> None:
    """It polls all children of the set, dead or alive, reaps the dead, and adds the new one; a joined one has left."""
    rows = [*started(1, 500, 20), *started(2, 501, 20), *started(3, 502, 20), *started(4, 503, 90), joined(30, 502)]
    rows += [poll(50, 500) | swept(33), poll(50.1, 501) | swept(33), *started(50.2, 504, 99)]
    assert steps(*rows) == [
        (500, None, 0, "fork", 1, "next-start"),
        (501, None, 1, "fork", 2, "next-start"),
        (502, None, 2, "fork", 3, None),
        (503, None, 3, "fork", 4, None),
        (504, 500, 3, "fork", 2, None),
        (504, 501, 3, "fork", 2, None),
    ]


@pytest.mark.parametrize(
    "release",
    [
        ev.reap(30 * MS, 500, by=100, target="any", **at(44, "/srv/consumer.py:44 collect")),
        ev.autoreap(30 * MS, 500),
    ],
    ids=["stolen", "ignored"],
)
def test_whose_status_is_lost_stays_in_the_set(release: ev.Row) -> None:
    """What something else reaped, or nobody, is polled by every start from then on."""
    rows = [*started(1, 500, 20), release, *started(40, 501, 99), *started(50, 502, 99)]
    assert [(pid, polled, children) for pid, _, polled, _, children, _ in steps(*rows)] == [
        (500, 0, 1),
        (501, 1, 2),
        (502, 2, 3),
    ]


def test_sets_of_two_processes() -> None:
    """Each process has a set of its own."""
    other = ev.fork(20 * MS, 600, by=500, **forked(33))
    assert [one[2::2] for one in steps(*started(1, 500, 90), *started(2, 501, 90), other)] == [(0, 1), (1, 2), (0, 1)]


@pytest.mark.parametrize(
    "unknown",
    [
        [*started(1, 500, 20, stack=None, stack_status="lost"), joined(30, 500)],
        [*started(1, 500, 20), poll(30, 500) | {"stack_status": "lost"}],
    ],
    ids=["fork", "reap"],
)
def test_a_missing_stack_leaves_the_set_unknown(unknown: list[ev.Row]) -> None:
    """Whether that was a start, or whether multiprocessing found the child dead, cannot be told: nor how many there are."""
    assert steps(*unknown, *started(250, 501, 299))[-1] == (501, None, None, "fork", None, None)


def test_a_thread_of_c_starts_nothing_of_multiprocessing() -> None:
    """A fork that is known not to be Python's changes no set."""
    native = ev.fork(5 * MS, 700, by=100, stack_status="not-python")
    assert steps(native, *started(50, 501, 99))[-1] == (501, None, 0, "fork", 1, None)


def test_methods_of_starts() -> None:
    """Spawn's Popen, the fork server, which has the children in no set of its own, and helpers, which no Popen forks."""
    spawn = f"{LIB}/popen_fork.py:19 __init__;{LIB}/popen_spawn_posix.py:62 _launch;{LIB}/util.py:456 spawnv_passfds"
    tracker = start(1, 500) | forked(
        33, launch=f"{LIB}/popen_fork.py:19 __init__;{LIB}/popen_spawn_posix.py:47 _launch;{TRACKER}"
    )
    worker = start(3, 502) | {"stack": f"<string>:1 <module>;{LIB}/forkserver.py:265 main", "stack_status": "ok"}
    old = "/usr/lib/python2.7/multiprocessing"
    before = f"/srv/old.py:3 main;{old}/process.py:130 start;{old}/forking.py:121 __init__"
    rows = [tracker, start(2, 501) | forked(33, launch=spawn), worker, start(4, 503) | {"stack": before, "stack_status": "ok"}]
    assert [one[3] for one in steps(*rows)] == [None, "spawn", "forkserver", "fork"]
    assert [one[2] for one in steps(*rows)] == [None, 0, None, 1]


@pytest.mark.parametrize("cause", ["active_children", "_exit_function"])
def test_what_found_a_started_process(cause: str) -> None:
    """active_children() and the exit handler go through the set as the next start does."""
    outer = f"{LIB}/process.py:86 active_children" if cause == "active_children" else f"{LIB}/util.py:334 _exit_function"
    frames = f"{outer};{LIB}/process.py:59 _cleanup;{LIB}/popen_fork.py:28 poll"
    found = steps(*started(1, 500, 20), poll(30, 500) | at(40, frames))[0][5]
    assert found == {"active_children": "active-children", "_exit_function": "exit-handler"}[cause]
