"""Which start cleared which zombies, and the forks that failed."""

from __future__ import annotations

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
    assert cells(table) == [
        (10 * MS, 1, 0, None, None, None),
        (11 * MS, 2, 0, None, None, None),
        (52 * MS, 3, 0, None, 1, 30.0),
        (52 * MS, 3, 0, None, 2, 31.0),
    ]
    assert table.dtypes.astype(str).to_dict() == {
        "time_ns": "int64",
        "start_id": "int64",
        "parent_id": "Int64",
        "site": "string",
        "cleared_id": "Int64",
        "zombie_ms": "float64",
    }


def test_failed_forks() -> None:
    """One row per fork that failed: who, which thread, why, and the limit where it is known."""
    rows = [ev.fork_failed(5 * MS, 100, 11, tid=105, detail="pids.max"), ev.fork_failed(6 * MS, 100, 12)]
    table = recording(target(), *rows).failed_forks()
    assert cells(table) == [(5 * MS, 0, 105, 11, "pids.max", None), (6 * MS, 0, 100, 12, None, None)]
    assert list(table.columns) == ["time_ns", "id", "tid", "errno", "limit", "site"]


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
