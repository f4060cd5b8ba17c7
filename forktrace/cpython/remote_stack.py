"""Reads the Python stacks of a running process's threads from outside, while they run.

A thread can move while its stack is read. So the stack is read until two readings in a row agree: it was as read at the moment
between them. If they never agree, the result is the outermost frames that two readings have in common, with status `changing`.

Python identifies a thread by its pthread_self. The kernel does not know that, but it knows the address of the thread's list of
robust mutexes (get_robust_list(2)), and glibc stores that list in the struct that pthread_self points to. musl has no such
list: there only the thread of a single-threaded process is identified.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from forktrace.cpython.elf import Elf
from forktrace.cpython.layouts import Unsupported, describe, library_folders
from forktrace.cpython.line_tables import SHIM, Code, decode_text
from forktrace.system.files import open_regular
from forktrace.system.machine import MACHINES, this_machine
from forktrace.system.memory import Memory, Unreadable
from forktrace.trace.stacks import Frame

TRIES: Final = 12  # readings of one stack, until two in a row agree
MOST_FRAMES: Final = 1024
MOST_THREADS: Final = 4096
MOST_TEXT: Final = 4096  # bytes of a path or a name
MOST_LINES: Final = 1 << 17  # bytes of a line table
_CODE_BYTES: Final = 160  # of a code object: contains all that is needed
OWNED_BY_C: Final = 3  # from 3.12 on: a frame that stands for a call from C
_PTHREAD_BYTES: Final = 4096  # glibc's struct pthread is smaller, and two of them are further apart
_HEAD_BYTES: Final = 1024  # of a file, to find it in memory
_PF_X: Final = 1
_U64: Final = (1 << 64) - 1

_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (....) ([0-9a-f]+) \S+ (\d+) *(.*)")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mapped:
    """A line of /proc/PID/maps."""

    start: int
    end: int
    executable: bool
    offset: int
    file: str


@dataclass(frozen=True)
class Python:
    """The interpreter in a process: its file, version, `struct interpreter`, where its list begins, its standard library."""

    file: str
    version: str
    fields: Mapping[str, int]
    runtime: int
    libraries: tuple[str, ...]


class NoPython(Exception):
    """There is no interpreter whose stacks can be read; `status` is a stack status, the message says why."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class ThreadStack:
    """The Python stack of a thread.

    Attributes:
        tid: its number; None: not known
        frames: outermost first
        status: `ok`; `changing`: it moves, and these are its outermost frames; or why there are none or not all:
            `no-thread-state` `read-fault` `truncated`
    """

    tid: int | None
    frames: tuple[Frame, ...]
    status: str


def find_python(pid: int, memory: Memory) -> Python:
    """Return the interpreter of a process: its libpython if it has one, else its program.

    Raises:
        NoPython: there is none, or an unknown one.
    """
    try:
        mappings = mappings_of(pid)
        program = os.readlink(f"/proc/{pid}/exe")
    except OSError as error:
        raise NoPython("read-fault", f"its memory map cannot be read: {error.strerror}") from None
    names = dict.fromkeys(one.file for one in mappings if os.path.basename(one.file).startswith("libpython"))
    why: str | None = None
    for name in [*names, program]:
        try:
            if python := _python_in(pid, memory, name, [one for one in mappings if one.file == name], name == program):
                return python
        except (Unsupported, OSError) as error:
            why = why or f"{name}: {error}"
    if why:
        raise NoPython("no-runtime", why)
    raise NoPython("not-python", "it is not a Python program")


def mappings_of(pid: int) -> list[Mapped]:
    """Return the mapped files of a process, mapping by mapping.

    Raises:
        OSError: it is gone, or not for this user.
    """
    with open(f"/proc/{pid}/maps", errors="backslashreplace") as lines:
        parts = [match.groups() for match in map(_MAPPING.match, lines) if match]
    return [
        Mapped(int(start, 16), int(end, 16), "x" in rights, int(offset, 16), file)
        for start, end, rights, offset, inode, file in parts
        if int(inode)
    ]


def _python_in(pid: int, memory: Memory, name: str, mappings: list[Mapped], is_program: bool) -> Python | None:
    with open(_open_mapped(pid, mappings, name, is_program), "rb") as file:
        interpreter = describe(file.fileno(), os.path.basename(name))
        if interpreter is None:
            return None
        bias = _load_bias(file.fileno(), memory, mappings)
    folders = library_folders(name, interpreter, f"/proc/{pid}/root")
    runtime = bias + interpreter.fields["runtime"] & _U64
    return Python(name, interpreter.version, interpreter.fields, runtime, tuple(folders))


def _open_mapped(pid: int, mappings: list[Mapped], name: str, is_program: bool) -> int:
    """Open a file that a process has mapped: by the mapping (root only), else by its name in that process's root."""
    for one in mappings[:1]:
        with contextlib.suppress(OSError):
            return os.open(f"/proc/{pid}/map_files/{one.start:x}-{one.end:x}", os.O_RDONLY | os.O_CLOEXEC)
    return open_regular(f"/proc/{pid}/exe" if is_program else f"/proc/{pid}/root{name}")


def _load_bias(descriptor: int, memory: Memory, mappings: list[Mapped]) -> int:
    """The load bias: what to add to an address in the file. Mappings that only read the file do not count.

    Raises:
        Unsupported: the file is not the one that is mapped.
    """
    for flags, offset, address, size in Elf(descriptor).segments:
        for one in mappings:
            if flags & _PF_X and one.executable and one.offset <= offset < one.offset + one.end - one.start:
                at = one.start + offset - one.offset
                with contextlib.suppress(Unreadable):
                    length = min(size, _HEAD_BYTES)
                    if memory.read(at, length) == os.pread(descriptor, length, offset):
                        return int(at - address)
    raise Unsupported("the file is not the one that runs")


class _Seen(NamedTuple):
    """A frame of one reading. `text` None: it stands for a call from C, or has no line."""

    address: int
    code: int
    text: Frame | None


class Reader:
    """Reads the stacks of a process's threads, once: `python` is what find_python said of it."""

    def __init__(self, memory: Memory, python: Python) -> None:
        self._memory = memory
        self._at = defaultdict(int, python.fields)  # what a version does not have is 0, as for the probes
        self._runtime = python.runtime

    def stacks(self, tids: list[int]) -> list[ThreadStack]:
        """Return the stack of each of these threads, and the stacks of thread states whose thread is not known.

        A single thread and a single thread state belong together.
        """
        states = self._states()
        pthreads = {tid: pthread for tid in tids if (pthread := _robust_list(tid))}
        of_tid = {tid: _state_of(states, pthread) for tid, pthread in pthreads.items()}
        if not pthreads and len(tids) == len(states) == 1:
            of_tid = dict(zip(tids, states.values(), strict=True))
        known = [self._stack(tid, state) for tid, state in of_tid.items()]
        if len(of_tid) == len(tids):
            return known
        return known + [self._stack(None, state) for state in states.values() if state not in of_tid.values()]

    def _states(self) -> dict[int, int]:
        """The address of each thread state, by pthread_self."""
        before: dict[int, int] | None = None
        for _ in range(TRIES):
            with contextlib.suppress(Unreadable):
                now = self._list_states()
                if now == before:
                    break
                before = now
        return before or {}

    def _list_states(self) -> dict[int, int]:
        """Read the list once. Of several states of one thread the first counts, as in the probes."""
        found: dict[int, int] = {}
        interpreter = self._memory.word(self._runtime + self._at["runtime_interpreters"])
        state = 0
        for _ in range(MOST_THREADS):
            if state:
                found.setdefault(self._memory.word(state + self._at["thread_id"]), state)
                state = self._memory.word(state + self._at["thread_next"])
            elif interpreter:
                state = self._memory.word(interpreter + self._at["interpreter_threads"])
                interpreter = self._memory.word(interpreter + self._at["interpreter_next"])
            else:
                return found
        raise Unreadable("a list without an end")

    def _stack(self, tid: int | None, state: int | None) -> ThreadStack:
        if state is None:
            return ThreadStack(tid, (), "no-thread-state")
        before: list[_Seen] = []
        common: list[_Seen] = []
        for _ in range(TRIES):
            try:
                now = self._reading(state)
            except Unreadable:
                before = []
                continue
            if not now:
                return ThreadStack(tid, (), "no-thread-state")
            if _agree(before, now):
                return ThreadStack(tid, _texts(now[:MOST_FRAMES]), "truncated" if len(now) > MOST_FRAMES else "ok")
            common = _in_common(before, now) or common
            before = now
        return ThreadStack(tid, _texts(common), "changing" if common else "read-fault")

    def _reading(self, state: int) -> list[_Seen]:
        """Read a stack once, innermost frame first."""
        found: list[_Seen] = []
        codes: dict[int, Code] = {}
        frame = self._memory.word(state + self._at["thread_frame"])
        if frame and self._at["has_cframe"]:
            frame = self._memory.word(frame + self._at["cframe_frame"])
        while frame and len(found) <= MOST_FRAMES:
            data = self._memory.read(frame, self._at["frame_bytes"])
            found.append(self._seen(frame, data, codes))
            frame = _word_of(data, self._at["frame_back"])
        return found

    def _seen(self, frame: int, data: bytes, codes: dict[int, Code]) -> _Seen:
        at = self._at
        if at["frame_owner"] and data[at["frame_owner"]] >= OWNED_BY_C:
            return _Seen(frame, 0, None)
        code = _word_of(data, at["frame_code"]) & ~7  # from 3.14 on the lowest bits are a tag
        instruction = _word_of(data, at["frame_instruction"])
        if at["instruction_is_pointer"]:
            instruction -= self._bytecode(code, data)
        if code not in codes:
            codes[code] = self._code(code)
        one = codes[code]
        if one.path == SHIM:
            return _Seen(frame, code, None)
        return _Seen(frame, code, Frame(one.path, one.line(instruction & 0xFFFFFFFF), one.name))

    def _bytecode(self, code: int, frame: bytes) -> int:
        """The address of the bytecode that a frame runs: in the code object, or (free-threaded) the thread's copy."""
        copy = _word_of(frame, self._at["frame_copy"]) & 0xFFFFFFFF if self._at["code_copies"] else 0
        if copy:
            return self._memory.word(self._memory.word(code + self._at["code_copies"]) + 8 + 8 * copy)
        return code + self._at["code_instructions"]

    def _code(self, code: int) -> Code:
        at = self._at
        data = self._memory.read(code, _CODE_BYTES)
        (first_line,) = struct.unpack_from("<i", data, at["code_first_line"])
        path, name = (self.text(_word_of(data, at[field])) for field in ("code_path", "code_name"))
        lines = _word_of(data, at["code_lines"])
        size = self._memory.word(lines + at["head_bytes"])
        table = self._memory.read(lines + at["bytes_data"], min(size, MOST_LINES))
        return Code(path, name, first_line, table, at["version"], size > MOST_LINES)

    def text(self, text: int) -> str:
        """Read a str, in Python 2 a bytes object; of a long one the beginning."""
        length, state = self._memory.unpack("<Q8xI", text + self._at["head_bytes"])
        kind = state >> self._at["text_kind"]
        width = kind & self._at["text_width_mask"] | self._at["text_width"]
        start = text + self._at["text_ascii" if kind >> 4 & 1 else "text_compact"]
        data = self._memory.read(start, min(length * width, MOST_TEXT))
        return decode_text(data, width, self._at["version"])


def _word_of(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")


def _agree(before: list[_Seen], now: list[_Seen]) -> bool:
    """Whether two readings saw the same calls; the line of the innermost frame may differ."""
    if not before or before[0][:2] != now[0][:2]:
        return False
    return before[1:] == now[1:]


def _in_common(before: list[_Seen], now: list[_Seen]) -> list[_Seen]:
    """The outermost frames that two readings (innermost first) have in common; the line of the innermost is the later one."""
    alike = 0
    for one, other in zip(reversed(before), reversed(now), strict=False):
        if one[:2] != other[:2]:
            break
        alike += 1
        if one != other:
            break
    return now[len(now) - alike :]


def _texts(seen: list[_Seen]) -> tuple[Frame, ...]:
    return tuple(one.text for one in reversed(seen) if one.text)


def _robust_list(tid: int) -> int:
    """Return an address in the struct that pthread_self of a thread points to; 0: none, or not allowed."""
    head, size = ctypes.c_uint64(), ctypes.c_size_t()
    if platform.machine() not in MACHINES:
        return 0
    number = this_machine().calls["GET_ROBUST_LIST"]
    if _libc.syscall(number, tid, ctypes.byref(head), ctypes.byref(size)):
        return 0
    return head.value


def _state_of(states: Mapping[int, int], inside: int) -> int | None:
    """The state of the thread whose struct pthread contains the address `inside`; None: it has no state."""
    below = [pthread for pthread in states if 0 <= inside - pthread < _PTHREAD_BYTES]
    return states[max(below)] if below else None
