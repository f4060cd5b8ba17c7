"""What is read from a log of `strace -f`: who made, ended and reaped whom, in each odd order that strace writes."""

from __future__ import annotations

import pytest
import straced
from straced import Bounds, Log

MS = 1_000_000


def read(*texts: str) -> Log:
    """Each text `TID REST` one millisecond after the other, the first at 1 s."""
    lines = []
    for at, text in enumerate(texts):
        tid, _, rest = text.partition(" ")
        lines.append(f"{tid} 1.{at:03}000000 {rest}\n")
    return straced.read(lines)


def at(line: int) -> int:
    """The stamp of a line, in ns."""
    return 1000 * MS + line * MS


def test_a_child() -> None:
    """Forked, executed, ended, reaped: the bounds are the stamps at the entry and of the return or the line after it."""
    log = read(
        "10 clone(child_stack=NULL, flags=0x1200000|17, child_tidptr=0x7f) = 11",
        '11 execve("/bin/false", ["false"], 0x7f /* 3 vars */) = -1 ENOENT (No such file or directory)',
        '11 execve("/usr/bin/false", ["false"], 0x7f /* 3 vars */) = 0',
        "10 wait4(11,  <unfinished ...>",
        "11 exit_group(1) = ?",
        "11 +++ exited with 1 +++",
        "10 <... wait4 resumed>[{WIFEXITED(s) && WEXITSTATUS(s) == 1}], 0, NULL) = 11",
    )
    parent, child = log.processes
    assert (child.pid, child.forker_pid, child.forker_tid, child.parent) == (11, 10, 10, parent)
    assert (child.fork, child.execs) == (Bounds(at(0), at(1)), [Bounds(at(2), at(3))])
    assert (child.status, child.told, child.exit) == (0x100, 0x100, Bounds(at(4), at(5)))
    assert (child.reaper, child.reaper_tid, child.reap) == (parent, 10, Bounds(at(3), at(6)))
    assert [(step.tid, step.what, step.process) for step in log.steps] == [(10, "fork", child), (10, "reap", child)]


def test_a_child_is_heard_before_its_maker() -> None:
    """The child's lines may come before the return of the call that made it."""
    log = read(
        "10 vfork( <unfinished ...>",
        "11 exit_group(3) = ?",
        "11 +++ exited with 3 +++",
        "10 <... vfork resumed>) = 11",
    )
    parent, child = log.processes
    assert (child.parent, child.fork, child.status, child.reap) == (parent, Bounds(at(0), at(3)), 0x300, None)


def test_a_thread_is_heard_before_its_maker() -> None:
    """What the thread did before is its process's."""
    log = read(
        "10 clone3({flags=0x3d0f00, exit_signal=0}, 88 <unfinished ...>",
        "12 clone(child_stack=NULL, flags=0x1200000|17, child_tidptr=0x7f) = 13",
        "10 <... clone3 resumed> => {parent_tid=[12]}, 88) = 12",
        "12 wait4(13, [{WIFSIGNALED(s) && WTERMSIG(s) == SIGSEGV && WCOREDUMP(s)}], 0, NULL) = 13",
    )
    process, child = log.processes
    assert (process.pid, child.pid) == (10, 13)
    assert (child.parent, child.forker_pid, child.forker_tid) == (process, 10, 12)
    assert (child.reaper, child.reaper_tid, child.told) == (process, 12, 11 | 0x80)


def test_a_thread_that_is_no_child() -> None:
    """CLONE_PARENT: the new process is the forker's sibling."""
    log = read(
        "10 clone(child_stack=NULL, flags=0x1200000|17, child_tidptr=0x7f) = 11",
        "11 clone(child_stack=NULL, flags=0x8000|17) = 12",
    )
    assert (log.processes[2].forker_pid, log.processes[2].parent) == (11, log.processes[0])


def test_the_first_thread_ends_first() -> None:
    """The process ends with its last thread, and with the code of exit_group, not with the first thread's."""
    log = read(
        "10 clone3({flags=0x3d0f00, exit_signal=0} => {parent_tid=[11]}, 88) = 11",
        "10 exit(0) = ?",
        "11 exit_group(8) = ?",
        "11 +++ exited with 8 +++",
        "10 +++ exited with 8 +++",
    )
    assert (log.processes[0].status, log.processes[0].exit) == (0x800, Bounds(at(2), at(4)))


def test_exec_by_a_thread() -> None:
    """The thread goes on under its leader's number."""
    log = read(
        "10 clone3({flags=0x3d0f00, exit_signal=0} => {parent_tid=[11]}, 88) = 11",
        '11 execve("/bin/sh", ["sh"], 0x7f /* 3 vars */ <pid changed to 10 ...>',
        "10 +++ superseded by execve in pid 11 +++",
        "10 <... execve resumed>) = -1 (errno 18446744073709551385)",
        "10 +++ exited with 6 +++",
    )
    (process,) = log.processes
    assert (process.execs, process.status) == ([Bounds(at(1), at(2))], 0x600)


def test_killed_inside_an_exec() -> None:
    """strace did not see it return; whether it was done is for the kernel to know."""
    log = read(
        '10 execve("/bin/sh", ["sh"], 0x7f <unfinished ...>', "10 <... execve resumed>) = ?", "10 +++ killed by SIGKILL +++"
    )
    (process,) = log.processes
    assert (process.cut_exec_ns, process.execs, process.status) == (at(0), [], 9)
    assert log.cut == [(10, "execve", at(0))]
    assert process.exit == Bounds(at(0), at(2))


@pytest.mark.parametrize("lines", [["10 ???( <unfinished ...>", "10 <... ??? resumed>) = ?"], ["10 ???() = ?"]])
def test_killed_before_strace_knew_the_call(lines: list[str]) -> None:
    """Then it calls it `???`."""
    log = read("10 getpid() = 10", *lines, "10 +++ killed by SIGKILL +++")
    assert (log.processes[0].status, log.cut) == (9, [(10, "???", at(1))])


def test_a_result_that_is_none() -> None:
    """Of a call that a kill has cut off strace may read a number that no process has."""
    log = read("10 clone(child_stack=NULL, flags=0x1200000|17) = 11", "10 +++ killed by SIGKILL +++")
    assert [process.pid for process in log.processes] == [10]
    assert (log.steps, log.cut) == ([], [(10, "???", at(0))])


@pytest.mark.parametrize(
    "call",
    [
        "waitid(0x1, 11, {si_signo=17, si_code=0x1, si_pid=11, si_status=9, si_utime=0}, 0x1000004, NULL) = 0",
        "waitid(0x1, 11, {si_signo=17, si_code=0x5, si_pid=11, si_status=SIGSTOP, si_utime=0}, 0x6, NULL) = 0",
        "wait4(11, [{WIFSTOPPED(s) && WSTOPSIG(s) == SIGSTOP}], 0x2, NULL) = 11",
        "wait4(11, 0x7f, 0x1, NULL) = 0",
    ],
)
def test_no_reap(call: str) -> None:
    """A look, a stop and an empty call leave the child where it is."""
    log = read("10 clone(child_stack=NULL, flags=0x1200000|17) = 11", "11 +++ exited with 9 +++", f"10 {call}")
    assert log.processes[1].reap is None


def test_a_number_is_used_again() -> None:
    """Two processes of one number are two."""
    child = ["10 clone(child_stack=NULL, flags=0x1200000|17) = 11", "11 exit_group(1) = ?", "11 +++ exited with 1 +++"]
    wait = "10 wait4(-1, NULL, 0, NULL) = 11"
    log = read(*child, wait, *child, wait)
    assert [process.pid for process in log.processes] == [10, 11, 11]
    assert [process.reap for process in log.processes[1:]] == [Bounds(at(3), at(4)), Bounds(at(7), at(7))]


def test_not_a_log() -> None:
    """A line that strace would not write is named."""
    with pytest.raises(ValueError, match="not a line of strace"):
        straced.read(["Hello\n"])
