"""Which threads of a process wait for a child, now: in a wait call, or in a join that watches a pipe.

The memory of a process is its own to shape, so a helper is to look (`Worker`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Final

from forktrace.cpython.remote_stack import NoPython, Reader, find_python
from forktrace.system.capabilities import in_effect
from forktrace.system.memory import Memory
from forktrace.system.procfs import Proc, TaskClocks, boottime_ns, innermost_pid
from forktrace.system.waiting_calls import bits_of, call_of
from forktrace.trace.stacks import Frame

MOST_THREADS: Final = 100
# How Python waits for a child without a wait call, as it watches a pipe: the function, and the end of its file.
WATCHING: Final = {"join": "/process.py", "communicate": "/subprocess.py"}

# Of a thread that waits: its number, for how long it has slept, its call (name, for whom, options, the
# child's number here) or none where it watches a pipe, and its stack.
Waiting = list[Any]


def look(with_stacks: bool, pid: int) -> list[Waiting]:
    """Return the threads of a process that wait for a child; without stacks those in a wait call alone."""
    with in_effect():
        return list(_waiting(pid, Proc(), with_stacks))


def _waiting(pid: int, proc: Proc, with_stacks: bool) -> Iterator[Waiting]:
    tids = sorted(proc.threads(pid))[:MOST_THREADS]
    calls = {tid: call for tid in tids if (call := call_of(proc, pid, tid, None)) and proc.state(pid, tid) == "S"}
    stacks = _stacks(pid, tids) if calls and with_stacks else {}
    clocks = TaskClocks(proc)
    for tid, call in calls.items():
        stack = stacks.get(tid, [])
        if call.child is None and not any(_watches(frame) for frame in stack):
            continue
        asked = None if call.child is None else [call.name, call.child, bits_of(call.options), _child(proc, pid, call.child)]
        yield [tid, _slept_ns(proc, clocks, f"{pid}/task/{tid}"), asked, stack]


def _stacks(pid: int, tids: list[int]) -> dict[int | None, list[Frame]]:
    """The Python stacks of these threads; of another program none."""
    with contextlib.suppress(OSError, NoPython):
        memory = Memory(pid)
        try:
            read = Reader(memory, find_python(pid, memory)).stacks(tids)
            return {one.tid: list(one.frames) for one in read if one.status == "ok"}
        finally:
            memory.close()
    return {}


def _watches(frame: Frame) -> bool:
    return frame.file.endswith(WATCHING.get(frame.name, "\0"))


def _child(proc: Proc, pid: int, asked: int) -> int | None:
    """The number here of the child that a wait asks for by the number that its process knows."""
    children = proc.children(pid) if asked > 0 else []
    return next((one for one in children if asked in (one, innermost_pid(proc.status(one)))), None)


def _slept_ns(proc: Proc, clocks: TaskClocks, thread: str) -> int | None:
    """For how long a thread has not run."""
    processor, ran_ms = proc.processor(thread), proc.last_run_ms(thread)
    if processor is None or ran_ms is None:
        return None
    clocks.compare({processor})
    ran_ns = clocks.boottime_ns(processor, ran_ms)
    return None if ran_ns is None else max(boottime_ns() - ran_ns, 0)
