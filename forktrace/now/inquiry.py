"""Looks at one running process from outside, for `forktrace why -p`: its zombies, where its threads are, what they wait for."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from forktrace.cpython.mp_children import multiprocessing_children
from forktrace.cpython.remote_stack import NoPython, Python, Reader, ThreadStack, find_python
from forktrace.launcher.options import RecordOptions
from forktrace.launcher.running import Chosen, attach, process_meant, user_of
from forktrace.now.holders import describe, holders
from forktrace.now.zombies import Watcher
from forktrace.recorder.sources import Sources, files_of
from forktrace.system import capabilities
from forktrace.system.memory import MOST_S, Memory
from forktrace.system.procfs import Proc, innermost_pid
from forktrace.system.users import as_user
from forktrace.system.waiting_calls import call_of
from forktrace.trace.inquiry import Call, Inquiry, OtherProcess, Thread, Watched
from forktrace.trace.stacks import Frame

MOST_THREADS: Final = 500
_ANSWER_S: Final = 1.5  # of the time to answer, for closing the recording and reading it
_SOURCES_S: Final = 2.0  # how long the text of lines is waited for
_BEGINNING_S: Final = 60.0  # how long the probes may take to load, on a very busy machine
_CLOSING_S: Final = 5.0  # a trace that is not closed by then is read as it is
_PR_SET_PDEATHSIG: Final = 1
LOOK_EVERY_S: Final = 1.0

_libc = ctypes.CDLL(None)


@dataclass
class _Internals:
    """What can be found out only with the right to look into the process."""

    denied: bool = False
    python: Python | None = None
    no_python: str = ""
    stack_status: str = "read-fault"  # of the threads without a stack
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
        who, folder = partial(as_user, user_of(self.pid, self._proc)), self._proc.link(f"{self.pid}/cwd") or "/"
        are_known, files = files_of([self.pid], {}, with_all_rights=True)
        self._sources = Sources(who, folder, files) if are_known else None
        self._texts: dict[tuple[str, int], str] = {}
        self._holders: dict[str, tuple[OtherProcess, ...]] = {}

    def __enter__(self) -> Inquirer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sources:
            self._sources.helper.close()

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
            below=tuple(one for one in seen.parents if self._proc.descends(one.pid, (self.pid,))),
            ns_pid=innermost_pid(self._proc.status(self.pid)),
            argv=argv,
            children=self._children(tids),
            python=inside.python.version if inside.python else None,
            no_python=inside.no_python,
            libraries=inside.python.libraries if inside.python else (),
            threads=tuple(self._threads(tids, inside)),
            sources=self._source_texts(inside),
            held=inside.held,
            denied=inside.denied,
            awaited={one: describe(self._proc, one) for one in self._awaited(inside)},
            holders=self._holders_of(inside),
        )

    def _awaited(self, inside: _Internals) -> set[int]:
        asked = {call.child for call in inside.calls.values() if call and call.child}
        return {one for one in asked if one > 0} | set(self._proc.children(self.pid) if -1 in asked else ())

    def _holders_of(self, inside: _Internals) -> dict[str, tuple[OtherProcess, ...]]:
        """Who has the other ends of the pipes that threads wait for; each pipe is looked up once, since that takes long."""
        files = {file for call in inside.calls.values() if call for file in call.files}
        self._holders |= holders(self._proc, self.pid, [file for file in sorted(files) if file[1] not in self._holders])
        return self._holders

    def _look_inside(self, tids: list[int]) -> _Internals:
        """Look in a thread of its own: a read of memory hangs where its page comes from a process that does not answer."""
        found = _Internals()
        looker = threading.Thread(target=self._look_into, args=(tids, found), daemon=True)
        looker.start()
        looker.join(2 * MOST_S)
        if not looker.is_alive():
            return found
        return _Internals(no_python="its memory does not answer", stack_status="read-fault")

    def _look_into(self, tids: list[int], found: _Internals) -> None:
        living = self._living(tids)
        try:
            memory = Memory(living)
        except PermissionError:
            found.denied, found.stack_status = True, "denied"
            return
        except OSError:
            return  # it ends
        try:
            numbers = self._our_numbers()
            calls = {tid: call_of(self._proc, living, tid, memory) for tid in tids}
            found.calls = {tid: _with_our_numbers(call, numbers) for tid, call in calls.items()}
            found.python = find_python(living, memory)
            found.stacks = Reader(memory, found.python).stacks(tids)
            held = multiprocessing_children(memory, found.python)
            if held is not None and numbers is not None:
                held = frozenset(numbers[one] for one in held if one in numbers)
            found.held = held
        except NoPython as error:
            found.no_python, found.stack_status = str(error), error.status
        finally:
            memory.close()

    def _living(self, tids: list[int]) -> int:
        """A thread that has the memory of the process: a main thread that has ended has none any more."""
        return next((tid for tid in tids if self._proc.state(self.pid, tid) not in ("Z", "X")), self.pid)

    def _our_numbers(self) -> Mapping[int, int] | None:
        """The numbers of its children in our PID namespace, by those in its own; None: both namespaces are the same."""
        if self._proc.link(f"{self.pid}/ns/pid") == self._proc.link("self/ns/pid"):
            return None
        known = {}
        for tid in self._proc.threads(self.pid):
            for child in (self._proc.read(f"{self.pid}/task/{tid}/children") or "").split():
                known[int(self._proc.status(int(child)).get("NSpid", child).split()[-1])] = int(child)
        return known

    def _children(self, tids: list[int]) -> int | None:
        texts = [self._proc.read(f"{self.pid}/task/{tid}/children") for tid in tids]
        return None if None in texts else sum(len((text or "").split()) for text in texts)

    def _threads(self, tids: list[int], inside: _Internals) -> Iterable[Thread]:
        stacks = {stack.tid: stack for stack in inside.stacks}
        unknown = ThreadStack(None, (), inside.stack_status if not inside.stacks else "no-thread-state")
        for tid in tids:
            place, stack = f"{self.pid}/task/{tid}", stacks.get(tid, unknown)
            state = self._proc.state(self.pid, tid)
            stack = replace(stack, status="ended") if state in ("Z", "X") else stack
            comm, wchan = ((self._proc.read(f"{place}/{name}") or "").strip() for name in ("comm", "wchan"))
            yield Thread(
                tid, comm or None, state, stack.frames, stack.status, inside.calls.get(tid), wchan if wchan.strip("0") else None
            )
        for stack in inside.stacks:
            if stack.tid is None:
                yield Thread(None, None, None, stack.frames, stack.status, None, None)

    def _source_texts(self, inside: _Internals) -> dict[tuple[str, int], str]:
        frames: list[Frame] = [frame for stack in inside.stacks for frame in stack.frames]
        if self._sources and inside.python:
            self._sources.ask(frames, inside.python.libraries)
            for file, line, text in self._sources.take(_SOURCES_S):
                self._texts[file, line] = text
        return dict(self._texts)


def _with_our_numbers(call: Call | None, numbers: Mapping[int, int] | None) -> Call | None:
    """A call, with the number in our PID namespace of the child that it waits for; for P_PIDFD it has that already."""
    if call is None or numbers is None or call.child is None or call.child <= 0:
        return call
    if call.name == "waitid" and call.child in numbers.values():
        return call
    return replace(call, child=numbers.get(call.child, call.child))


def watch(inquirer: Inquirer, seconds: float) -> Watched:
    """Look again and again for `seconds`, or until Ctrl-C, or until the process has ended.

    Where this has the rights, what happens meanwhile is recorded too: its forks and waits. Nothing is written to a disk. The
    time counts from when that has begun.
    """
    recording = Recording(Chosen((inquirer.pid,))) if may_record() else None
    looks: list[Inquiry] = []
    is_gone = False
    begin = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        if recording:
            recording.wait_until_begun(_BEGINNING_S)
        begin = time.monotonic()
        deadline = begin + seconds - min(_ANSWER_S, seconds / 5)
        while not is_gone and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_EVERY_S))
            seen = inquirer.look()
            looks += [seen] if seen else []
            is_gone = seen is None
    missing = f'only root sees them: sudo "$(command -v forktrace)" why -p {inquirer.asked}'
    trace = None
    if recording:
        trace, missing = recording.stop()
    return Watched(time.monotonic() - begin, tuple(looks), is_gone, trace, missing)


def may_record() -> bool:
    """Return whether this process has the rights to record without asking anybody."""
    return os.geteuid() == 0 or not capabilities.missing()


class Recording:
    """Records processes and their descendants into memory, in a process of its own, as `record -p` and `--cgroup` do."""

    def __init__(self, chosen: Chosen) -> None:
        self._trace, self._words = (os.memfd_create(name) for name in ("forktrace", "forktrace words"))
        self._ended = False
        self._recorder = os.fork()
        if self._recorder == 0:
            try:
                self._record(chosen)
            except BaseException as error:
                with contextlib.suppress(Exception):
                    os.write(self._words, str(error).encode())
            finally:
                os._exit(0)

    def _record(self, chosen: Chosen) -> None:
        os.setpgid(0, 0)  # Ctrl-C is for who watches
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        os.dup2(self._trace, 1)
        os.dup2(self._words, 2)
        attach(chosen, RecordOptions(output="-", force=True, quiet=True))

    def wait_until_begun(self, seconds: float) -> None:
        """Wait until it has begun, or failed; no longer than so many seconds."""
        deadline = time.monotonic() + seconds
        while not self._has_begun() and not self.has_ended() and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self) -> tuple[str | None, str]:
        """End the recording; return the name of the trace, or None, and why there is none.

        It answers no signal while it loads the probes, so it is killed if it has not begun. The kernel then removes what was
        loaded. The recorded processes are not affected.
        """
        deadline = time.monotonic() + _CLOSING_S
        failed = self.has_ended()
        begun = self._has_begun()
        if begun and not failed:
            os.kill(self._recorder, signal.SIGTERM)
            while not self.has_ended() and time.monotonic() < deadline:
                time.sleep(0.02)
        if not self._ended:
            for pid in _with_descendants(self._recorder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os.waitpid(self._recorder, 0)
        if begun:
            return self.path, ""
        words = os.pread(self._words, 1 << 16, 0).decode(errors="replace").strip()
        return None, words.splitlines()[-1] if failed and words else "the probes were not ready in time"

    @property
    def path(self) -> str:
        """The trace, as long as this process lives."""
        return f"/proc/self/fd/{self._trace}"

    def _has_begun(self) -> bool:
        return os.fstat(self._trace).st_size > 0

    def has_ended(self) -> bool:
        """Return whether it has: by itself, as its processes are gone, or because it failed."""
        self._ended = self._ended or os.waitpid(self._recorder, os.WNOHANG)[0] != 0
        return self._ended


def _with_descendants(pid: int) -> list[int]:
    """Return a process of our own and all that descend from it."""
    proc, found = Proc(), [pid]
    for one in found:
        for tid in proc.threads(one):
            found += map(int, (proc.read(f"{one}/task/{tid}/children") or "").split())
    return found
