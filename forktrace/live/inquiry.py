"""Looks at one running process from outside, for `forktrace why -p`: its zombies, where its threads are, what they wait for."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from forktrace.errors import UsageError
from forktrace.live.calls import call_of
from forktrace.live.held import multiprocessing_children
from forktrace.live.memory import MOST_S, Memory
from forktrace.live.procfs import Proc
from forktrace.live.remote import NoPython, Python, Reader, ThreadStack, find_python
from forktrace.live.sources import Sources
from forktrace.live.user import as_user, user_of
from forktrace.live.zombies import Watcher
from forktrace.trace.inquiry import Call, Inquiry, Thread
from forktrace.trace.stacks import Frame

MOST_THREADS: Final = 500
_HINT: Final = "ps lists those that there are, forktrace ps the parents of zombies"


def process_meant(pid: int, proc: Proc) -> int:
    """Return the process that a number means: that of a thread its process, that of a zombie its parent, which alone reaps it.

    Raises:
        UsageError: there is none, or it cannot be seen from here.
    """
    leader = int(proc.status(pid).get("Tgid", pid))
    try:
        found = proc.stat(leader)
    except PermissionError:
        raise UsageError(f"process {pid} is hidden from you (hidepid)", "root sees it") from None
    if found is None:
        raise UsageError(f"there is no process {pid}", _HINT)
    if not found.is_zombie:
        return leader
    if found.ppid == 0 or not proc.read(f"{found.ppid}/stat"):
        raise UsageError(f"{pid} is a zombie, and its parent cannot be seen from here", "ask outside of the container")
    return found.ppid


@dataclass
class _Inside:
    """What can be found out only with the right to look into the process."""

    denied: bool = False
    python: Python | None = None
    no_python: str = ""
    stack_status: str = "denied"  # of the threads without a stack
    stacks: list[ThreadStack] = field(default_factory=list)
    calls: dict[int, Call | None] = field(default_factory=dict)
    held: frozenset[int] | None = None


class Inquirer:
    """Looks again and again at the process that `asked` means.

    Raises:
        UsageError: there is none.
    """

    def __init__(self, asked: int, proc: Proc | None = None) -> None:
        self._proc = proc or Proc()
        self.asked = asked
        self.pid = process_meant(asked, self._proc)
        self._watcher = Watcher(self._proc)
        who = partial(as_user, user_of(self.pid, self._proc))
        self._sources = Sources(who, self._proc.link(f"{self.pid}/cwd") or "/") if self._shares_files() else None
        self._texts: dict[tuple[str, int], str] = {}

    def look(self) -> Inquiry | None:
        """Return what there is to see now; None: the process is gone."""
        seen = self._watcher.look()
        argv = self._proc.argv(self.pid) or (f"[{(self._proc.read(f'{self.pid}/comm') or '').strip()}]",)
        tids = sorted(self._proc.threads(self.pid), key=lambda tid: (tid != self.pid, tid))[:MOST_THREADS]
        if not tids:
            return None
        inside = self._look_inside(tids)
        parent = next((one for one in seen.parents if one.pid == self.pid), None)
        return Inquiry(
            pid=self.pid,
            asked=self.asked,
            zombie=next((one for one in parent.zombies if one.pid == self.asked), None) if parent else None,
            parent=parent,
            argv=argv,
            children=self._children(tids),
            python=inside.python.version if inside.python else None,
            no_python=inside.no_python,
            libraries=inside.python.libraries if inside.python else (),
            threads=tuple(self._threads(tids, inside)),
            sources=self._source_texts(inside),
            held=inside.held,
            denied=inside.denied,
        )

    def _look_inside(self, tids: list[int]) -> _Inside:
        """Do so in a thread of its own: where a page of memory is to be had from a process that does not answer, it hangs."""
        found = _Inside()
        looker = threading.Thread(target=self._look_into, args=(tids, found), daemon=True)
        looker.start()
        looker.join(2 * MOST_S)
        if not looker.is_alive():
            return found
        return _Inside(no_python="its memory does not answer", stack_status="read-fault")

    def _look_into(self, tids: list[int], found: _Inside) -> None:
        try:
            memory = Memory(self.pid)
        except PermissionError:
            found.denied = True
            return
        except OSError:
            return  # it ends
        try:
            found.calls = {tid: call_of(self._proc, self.pid, tid, memory) for tid in tids}
            found.python = find_python(self.pid, memory)
            found.stacks = Reader(memory, found.python).stacks(tids)
            held = multiprocessing_children(memory, found.python)
            found.held = None if held is None else frozenset(self._as_here(held))
        except NoPython as error:
            found.no_python, found.stack_status = str(error), error.status
        finally:
            memory.close()

    def _as_here(self, numbers: Iterable[int]) -> list[int]:
        """Numbers in the process's own PID namespace, as they are here."""
        if self._proc.link(f"{self.pid}/ns/pid") == self._proc.link("self/ns/pid"):
            return list(numbers)
        known = {}
        for tid in self._proc.threads(self.pid):
            for child in (self._proc.read(f"{self.pid}/task/{tid}/children") or "").split():
                known[int(self._proc.status(int(child)).get("NSpid", child).split()[-1])] = int(child)
        return [known[number] for number in numbers if number in known]

    def _children(self, tids: list[int]) -> int | None:
        texts = [self._proc.read(f"{self.pid}/task/{tid}/children") for tid in tids]
        return None if None in texts else sum(len((text or "").split()) for text in texts)

    def _threads(self, tids: list[int], inside: _Inside) -> Iterable[Thread]:
        stacks = {stack.tid: stack for stack in inside.stacks}
        unknown = ThreadStack(None, (), inside.stack_status if not inside.stacks else "no-thread-state")
        for tid in tids:
            place, stack = f"{self.pid}/task/{tid}", stacks.get(tid, unknown)
            _, _, rest = (self._proc.read(f"{place}/stat") or "").rpartition(")")
            comm, wchan = ((self._proc.read(f"{place}/{name}") or "").strip() for name in ("comm", "wchan"))
            state = rest.split()[0] if rest else None
            yield Thread(
                tid, comm or None, state, stack.frames, stack.status, inside.calls.get(tid), wchan if wchan.strip("0") else None
            )
        for stack in inside.stacks:
            if stack.tid is None:
                yield Thread(None, None, None, stack.frames, stack.status, None, None)

    def _shares_files(self) -> bool:
        """Whether a name is the same file there as here."""
        same = self._proc.link(f"{self.pid}/ns/mnt") == self._proc.link("self/ns/mnt")
        return same and self._proc.link(f"{self.pid}/root") == self._proc.link("self/root")

    def _source_texts(self, inside: _Inside) -> dict[tuple[str, int], str]:
        frames: list[Frame] = [frame for stack in inside.stacks for frame in stack.frames]
        if self._sources and inside.python:
            for file, line, text in self._sources.texts(frames, inside.python.libraries):
                self._texts[file, line] = text
        return dict(self._texts)
