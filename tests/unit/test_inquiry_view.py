"""What `why -p` says of a process, from looks that are made up."""

from __future__ import annotations

import dataclasses
import io
import math
import re
from typing import Any

import pytest
from rich.console import Console

from forktrace.trace.inquiry import Call, Inquiry, OtherProcess, Thread, Watched
from forktrace.trace.snapshot import Limit, Parent, Zombie
from forktrace.trace.stacks import Frame
from forktrace.views.text.inquiry import answer, show, waiting

LIBRARY = "/usr/lib/python3.11"
MAIN = (Frame("/srv/app/consumer.py", 40, "<module>"), Frame("/srv/app/consumer.py", 29, "poll"))
JOINS = (*MAIN, Frame(f"{LIBRARY}/multiprocessing/process.py", 149, "join"), Frame(f"{LIBRARY}/threading.py", 324, "wait"))


def zombie(pid: int, comm: str = "python") -> Zombie:
    """One that exited a minute ago."""
    return Zombie(pid, comm, 61.0, 60.0, "estimated", 0.0, 61.0, 0, None, False)


def parent(*zombies: Zombie, **changed: Any) -> Parent:
    """Process 4700 with these zombies."""
    room = Limit("pids.max", "/app", 100, 29, 71, False)
    values = {"uid": 1000, "user": "alice", "elapsed_s": 7200.0, "state": "S", "threads": 1, "sigchld": "default"}
    values |= {"sigchld_blocked_threads": 0, "sigchld_pending": False, "growth": None, "growth_s": None}
    values |= {"limits": (room,), "fails_in_s": None, "fails_at": None}
    values |= {"ns_pid": 4700}
    return Parent(pid=4700, comm="python", argv=("python", "consumer.py"), zombies=zombies, **(values | changed))


def thread(tid: int | None = 4700, frames: tuple[Frame, ...] = MAIN, status: str = "ok", **changed: Any) -> Thread:
    """One that sleeps."""
    values = {"comm": "python", "state": "S", "call": Call("poll", ((5, "TCP 10.0.0.1:9092"),), 1.0), "wchan": None}
    return Thread(tid, frames=frames, status=status, **(values | changed))


def look(*zombies: Zombie, **changed: Any) -> Inquiry:
    """What process 4700 looks like."""
    values = {"asked": 4700, "zombie": None, "parent": parent(*zombies) if zombies else None, "argv": ("python", "consumer.py")}
    values |= {"below": (), "ns_pid": 4700}
    values |= {"children": len(zombies), "python": "3.11.2", "no_python": "", "libraries": (LIBRARY,), "threads": (thread(),)}
    values |= {"sources": {("/srv/app/consumer.py", 29): "batch = queue.poll(1)"}, "held": frozenset(), "denied": False}
    return Inquiry(4700, **(values | changed))


def said(seen: Inquiry) -> list[str]:
    """The lines of the first look."""
    console = Console(file=io.StringIO(), width=120)
    show(console, seen)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def answered(first: Inquiry, *looks: Inquiry, ended: bool = False) -> str:
    """What is said after 10 s, without a recording."""
    console = Console(file=io.StringIO(), width=1000)
    answer(console, first, Watched(10.0, looks, ended, None, ""), None)
    return "\n".join(line.strip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def test_the_first_look() -> None:
    """Who, what it does about its children, where its main thread is and what it waits for, its zombies."""
    assert said(look(zombie(4711), asked=4711, zombie=zombie(4711))) == [
        "4700 python consumer.py: 1 zombie",
        "  asked    4711 is one of them; only 4700, its parent, can reap it",
        "  state    sleeping; 1 thread; user alice; started 2 h ago",
        "  SIGCHLD  default: they stay until it waits for them",
        "  room     71 more processes or threads (pids.max of /app: 29 of 100 used)",
        "  main     consumer.py:29 poll   batch = queue.poll(1)",
        "           in poll of TCP 10.0.0.1:9092 (fd 5), for 1 s at most",
        " pid     age   ended      command",
        "─" * 33,
        "4711   ~60 s   exited 0   python",
    ]


def test_zombies_below() -> None:
    """Who asks about a supervisor is led to the descendant that has the zombies."""
    below = dataclasses.replace(parent(zombie(1), zombie(2)), pid=4711)
    assert said(look(below=(below,)))[-1] == "  below it 4711 python consumer.py: 2 zombies; forktrace why -p 4711"


def test_threads() -> None:
    """The main thread is first; of very many the rest is counted, and what cannot be told has its reason."""
    others = [thread(4701 + number, JOINS, call=None) for number in range(20)]
    lines = said(look(threads=(thread(frames=(), status="read-fault", call=None), *others, thread(None))))
    assert lines[:4] == [
        "4700 python consumer.py: no zombies",
        "  main     no line: the stack could not be read",
        "  4701     consumer.py:29 poll > Process.join > wait   batch = queue.poll(1)",
        "  4702     consumer.py:29 poll > Process.join > wait   batch = queue.poll(1)",
    ]
    assert lines[-1] == "           and 13 more threads: 13 at consumer.py:29 poll"
    assert (
        "  main     consumer.py:29 poll (it runs; this is how far its stack held still)"
        in said(look(threads=(thread(status="changing"),)))[1]
    )
    assert said(look(threads=(thread(status="denied", frames=()),), denied=True))[1].startswith(
        "  threads  only their own user and root may see"
    )


def test_an_interpreter_that_is_not_walked() -> None:
    """It is named, with the reason."""
    unknown = thread(frames=(), status="no-runtime", call=None)
    assert (
        said(look(threads=(unknown,), no_python="/opt/pypy3.11: it is PyPy"))[1]
        == "  main     no line: /opt/pypy3.11: it is PyPy"
    )


@pytest.mark.parametrize(
    ("call", "state", "words"),
    [
        (Call("wait4", (), math.inf, 4711), "S", "waits for child 4711: wait4(4711)"),
        (Call("waitid", (), math.inf, -1, "WEXITED"), "S", "waits for any child: waitid(-1, WEXITED)"),
        (Call("futex", (), 5.0), "S", "waits for a lock, for 5 s at most"),
        (Call("futex", (), math.inf), "S", "waits for a lock, without a timeout"),
        (Call("clock_nanosleep", (), 42.0), "S", "sleeps, for 42 s at most"),
        (Call("pselect6", (), 3.0), "S", "sleeps, in pselect6, for 3 s at most"),
        (Call("epoll_wait", ((3, "pipe:[1]"), (4, "x\x1b")), None), "S", "in epoll_wait of pipe:[1] (fd 3) and x\\x1b (fd 4)"),
        (None, "R", "runs"),
        (None, "S", ""),
    ],
)
def test_waiting(call: Call | None, state: str, words: str) -> None:
    """What a thread waits for, as people say it; nothing in it can steer a terminal."""
    assert waiting(thread(call=call, state=state)) == words


def test_what_waiting_in_the_kernel_is() -> None:
    """A thread that no signal reaches says where it is."""
    assert waiting(thread(call=None, state="D", wchan="nfs_wait")) == "waits in the kernel, not to be interrupted: nfs_wait"


def test_zombies_of_multiprocessing() -> None:
    """Those in its set wait for the next start; others are told apart; the fix is that of what made them."""
    first = look(zombie(1), zombie(2), held=frozenset({1, 2, 3}))
    text = answered(first, first, first)
    assert "seen     in 10 s: as many zombies as before; the main thread was at consumer.py:29 poll in all 3 looks" in text
    why = "2 zombies wait for the next Process.start(), active_children() or a join of their own"
    assert f"why      {why}; the main thread is at consumer.py:29 poll" in text
    assert "- call multiprocessing.active_children() in the loop" in text
    mixed = answered(look(zombie(1), zombie(2), held=frozenset({2})))
    assert "1 zombie waits for the next Process.start(), active_children() or a join of its own; 1 more is not" in mixed


@pytest.mark.parametrize(
    ("changed", "comm", "words", "remedy"),
    [
        ({}, "python", "1 zombie is not multiprocessing's", "os.waitpid(pid, 0)"),
        ({}, "ffmpeg", "1 zombie is not multiprocessing's", "subprocess.run(...)"),
        ({"held": None}, "python", "1 zombie waits for a wait call of 4700", "os.waitpid(pid, 0)"),
        ({"held": None, "python": None}, "python", "1 zombie waits for a wait call of 4700", "call waitpid() for it in 4700"),
    ],
)
def test_other_zombies(changed: dict[str, Any], comm: str, words: str, remedy: str) -> None:
    """What made them follows from what shows: a name of its own means that another program ran."""
    text = answered(look(zombie(1, comm), **changed))
    assert words in text
    assert remedy in text


def test_an_init() -> None:
    """PID 1 of a namespace inherits orphans: that is said, and what helps is an init, or a loop for any child."""
    one = parent(zombie(1), ns_pid=1)
    seen = dataclasses.replace(look(zombie(1)), ns_pid=1, parent=one)
    assert "PID 1 of its namespace: it inherits the orphans of all others there" in " ".join(said(seen))
    assert "PID 1 of its namespace" in " ".join(said(dataclasses.replace(look(), ns_pid=1)))
    text = answered(seen)
    assert "as PID 1 of its namespace it inherits orphans, and these may be some of them" in text
    assert "run the program below an init that reaps" in text
    assert "let 4700, which inherits orphans, wait for any child in a loop" in text
    assert "before it ends" not in text
    assert "PID 1" not in " ".join(said(look(zombie(1))))


def test_a_main_thread_that_has_ended() -> None:
    """What looks like a zombie is none: nobody can reap it before the other threads end."""
    main = thread(frames=(), status="ended", state="Z", call=None)
    lines = re.sub(" {9,}", " ", " ".join(said(look(threads=(main, thread(4701), thread(None))))))
    said_of_it = "its main thread: ps(1) shows it as a zombie, but nobody can reap it before its other thread ends too"
    assert f"ended    {said_of_it}" in lines
    assert "main     it has ended; others live" in lines
    more = re.sub(" {9,}", " ", " ".join(said(look(threads=(main, thread(4701), thread(4702))))))
    assert "before its 2 other threads end too" in more


def test_what_changed() -> None:
    """More or fewer zombies, a main thread that goes on, and the end of either."""
    first = look(zombie(1))
    moved = thread(frames=(MAIN[0], Frame("/srv/app/consumer.py", 33, "work")))
    text = answered(first, look(zombie(1), zombie(2), threads=(moved,)), look(zombie(1), zombie(2)))
    assert "1 zombie more than before; the main thread was at consumer.py:29 poll in 2 of 3 looks" in text
    assert "now      it has no zombies any more" in answered(first, look())
    assert "now      4700 has ended" in answered(first, ended=True)
    stopped = dataclasses.replace(first, parent=parent(zombie(1), state="T"))
    assert "why      it is stopped, and reaps nothing until it goes on; 1 zombie" in answered(stopped)


def test_a_join_of_one_child() -> None:
    """Who waits for one child reaps no other."""
    joins = look(zombie(1), threads=(thread(frames=JOINS, call=Call("wait4", (), math.inf, 4712)),))
    assert "the main thread is at consumer.py:29 poll > Process.join > wait, and waits for child 4712 alone" in answered(joins)


PIPE = "pipe:[42]"
READS = (*MAIN, Frame(f"{LIBRARY}/subprocess.py", 1209, "communicate"))


def waits(call: Call, **changed: Any) -> str:
    """What is said of a main thread in this call, with single spaces."""
    return " ".join(" ".join(said(look(threads=(thread(call=call),), **changed))).split())


def test_who_could_end_a_wait_for_a_child() -> None:
    """The child, its state and the next command; of a wait for any child all of them."""
    children = {one: OtherProcess(one, ("/bin/sleep", str(one)), "S") for one in (4711, 4712)}
    only = waits(Call("wait4", (), math.inf, 4711), awaited=children)
    assert "child 4711 sleep 4711 sleeps: forktrace why -p 4711" in only
    assert "4712" not in only
    every = waits(Call("wait4", (), math.inf, -1), awaited=children)
    assert "child 4711 sleep 4711 sleeps: forktrace why -p 4711 child 4712 sleep 4712 sleeps: forktrace why -p 4712" in every
    gone = {4711: OtherProcess(4711, ("x",), None)}
    assert "child 4711 x is there: forktrace why -p 4711" in waits(Call("wait4", (), math.inf, 4711), awaited=gone)


def test_who_has_the_other_end_of_a_pipe() -> None:
    """Others with the next command; the very process, which waits for itself; the fork server, whose child it is about."""
    call = Call("read", ((5, PIPE),), math.inf)
    several = tuple(OtherProcess(pid, ("sleep", "9"), "S") for pid in (9345, 9346, 9347, 9348, 9349))
    text = waits(call, holders={PIPE: several})
    assert f"the other end of {PIPE} is open in 9345 sleep 9: forktrace why -p 9345" in text
    assert text.endswith("9347 sleep 9: forktrace why -p 9347 and in 2 more processes")
    assert "is open in 4700 itself, so that it waits for itself" in waits(
        call, holders={PIPE: (OtherProcess(4700, ("x",), "S"),)}
    )
    server = OtherProcess(4702, ("python", "-c", "from multiprocessing.forkserver import main; main()"), "S", (4711,))
    assert "the fork server, until its child ends: 4711; forktrace why -p 4711" in waits(call, holders={PIPE: (server,)})
    assert f"nobody that can be seen has the other end of {PIPE}" in waits(call, holders={PIPE: ()})


def test_a_zombie_whose_parent_reads_its_pipe() -> None:
    """That is why it is not reaped, and another stdout is what helps."""
    reading = {"threads": (thread(frames=READS, call=Call("read", ((5, PIPE),), math.inf)),)}
    seen = look(zombie(4711), holders={PIPE: (OtherProcess(9345, ("sleep", "9"), "S"),)}, **reading)
    lines = answered(seen, seen)
    assert "the main thread reads a pipe to its end before it reaps, and 9345 sleep 9 has that open" in lines
    assert "fix      start what runs on with another stdout than the pipe" in lines
    assert "not multiprocessing's" not in lines
