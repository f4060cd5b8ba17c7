"""Threads that fork, wait, exec and die in any order."""

import pytest
from recorded import Recorded

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("case", "count"), [("thread-fork", 3), ("thread-wait", 5), ("thread-fork-thread-wait", 2)])
def test_thread_numbers(suite: Recorded, case: str, count: int) -> None:
    """The forker and the reaper are the threads that called."""
    lines = suite.of(case, "threads")
    assert len(lines) == count
    suite.assert_agrees(lines)


def test_threads_are_no_processes(suite: Recorded) -> None:
    """A thread has no row of its own."""
    lines = suite.of("thread-fork", "threads"), suite.of("thread-wait", "threads")
    tids = {line["forker_tid"] for line in lines[0]} | {line["reaper_tid"] for line in lines[1]}
    assert not tids & set(suite.table["pid"])


def test_a_traced_thread_is_no_process(suite: Recorded) -> None:
    """strace gets the exit status of every thread: that is a wait, and the reap of nobody."""
    forks = suite.of("thread-fork", "traced-threads")
    if not forks:
        pytest.skip("strace is not installed")
    told = suite.raw[suite.raw["start_ns"].isna() & suite.raw["pid"].isin({line["forker_tid"] for line in forks})]
    told = told[told["kind"].isin(["wait", "reap"]) & (told["status"] == 0)]
    assert told["kind"].tolist() == ["wait"] * 3


def test_leader_dies_first(suite: Recorded) -> None:
    """The exit of a process is that of its last thread, however its leader looks in /proc; no wait before finds it."""
    lines = suite.of("leader-first", "threads")
    assert [line["exit_code"] for line in lines] == [0, 13]
    suite.assert_agrees(lines)
    for line in lines:
        assert suite.row(line["pid"])["run_ms"] >= 50


def test_exec_from_a_thread(suite: Recorded) -> None:
    """An exec by a thread that is not the leader goes on as the same process; its event names the thread."""
    lines = suite.of("exec-thread", "threads", "exec")
    assert len(lines) == 3
    suite.assert_agrees([*lines, *suite.of("exec-thread", "threads", "reaped")])
    for line in lines:
        execs = suite.events_of(line["pid"], "exec")
        assert execs["by_tid"].tolist() == [line["old_tid"]]
        assert len(suite.events_of(line["pid"], "exit")) == 1


def test_exit_group(suite: Recorded) -> None:
    """A process whose 31 threads leave at once exits once, with the code of the thread that called."""
    lines = suite.of("exit-group", "threads")
    assert [line["exit_code"] for line in lines] == [17]
    suite.assert_agrees(lines)
    assert len(suite.events_of(lines[0]["pid"], "exit")) == 1
