"""Reads the Python stacks of the main threads of running processes, again and again: what is known of a process is kept."""

from __future__ import annotations

from typing import NamedTuple

from forktrace.cpython.remote_stack import NoPython, Python, Reader, find_python
from forktrace.system.memory import Memory
from forktrace.system.procfs import Key
from forktrace.trace.stacks import Frame


class MainThread(NamedTuple):
    """A main thread: its frames, the outermost first, its interpreter's version and libraries; or why there are none."""

    frames: tuple[Frame, ...] = ()
    version: str = ""
    libraries: tuple[str, ...] = ()
    status: str = "ok"


class MainThreads:
    """Looks at processes. The interpreter is looked for once in each program."""

    def __init__(self) -> None:
        self._pythons: dict[Key, Python | NoPython] = {}

    def of(self, process: Key) -> MainThread:
        """Return the main thread of a process; with status `denied` this user may not see where it is."""
        pid = process[0]
        try:
            memory = Memory(pid)
        except PermissionError:
            return MainThread(status="denied")
        except OSError:
            return MainThread(status="gone")
        try:
            python = self._python(process, memory)
            found = next((one for one in Reader(memory, python).stacks([pid]) if one.tid == pid), None)
        except NoPython as error:
            return MainThread(status=error.status)
        finally:
            memory.close()
        if found is None or not found.frames:
            self._pythons.pop(process)  # it may run another program by now
        if found is None:
            return MainThread(status="no-thread-state")
        return MainThread(found.frames, python.version, python.libraries, found.status)

    def forget(self, others_than: set[Key]) -> None:
        """Forget all other processes."""
        self._pythons = {key: value for key, value in self._pythons.items() if key in others_than}

    def _python(self, process: Key, memory: Memory) -> Python:
        if process not in self._pythons:
            try:
                self._pythons[process] = find_python(process[0], memory)
            except NoPython as error:
                self._pythons[process] = error
        known = self._pythons[process]
        if isinstance(known, NoPython):
            raise known
        return known
