"""Turns the probes' stacks into text: files, lines and functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from forktrace.cpython.line_tables import SHIM, Code, decode_text
from forktrace.kernel.layout import layouts
from forktrace.trace.events import STACK_STATUSES
from forktrace.trace.stacks import HANDLER, Frame, fold
from forktrace.trace.waitstatus import signal_name

# About so many bytes of code and stacks are kept. At the limit the probes forget everything that they have sent. Here only what
# was kept at their previous forgetting goes: events in the ring can still refer to the rest.
MOST_BYTES: Final = 16 << 20
TEXT_MOST: Final = 256 << 10  # characters of a stack; of a longer one the outermost frames are left out
_ENTRY_BYTES: Final = 400  # of an entry, without its texts

NO_RUNTIME, TRUNCATED, NOT_PYTHON, LOST = map(STACK_STATUSES.index, ("no-runtime", "truncated", "not-python", "lost"))


@cache
def _head_of_code() -> list[tuple[int, int]]:
    """The offset and size of each number of a `struct code_record`, without its kind."""
    fields: Mapping[str, Any] = layouts()["code_record"].fields or {}
    return [(place[1], place[0].itemsize) for name, place in fields.items() if name not in ("kind", "data")]


class StackTable:
    """All code and all stacks that the probes have sent.

    Attributes:
        new_frames: the frames of new stacks since the owner cleared this
        interpreters: the keys of the files whose code was seen

    `forget(codes, stacks)` makes the probes send these keys again; `not_python(file)` says whether a file was found to be no
    interpreter.
    """

    def __init__(self, forget: Callable[[list[int], list[int]], None], not_python: Callable[[int], bool]) -> None:
        self._forget = forget
        self._not_python = not_python
        self._codes: dict[int, Code] = {}
        self._stacks: dict[int, str | None] = {}
        self.new_frames: set[Frame] = set()
        self.interpreters: set[int] = set()
        self._frames: dict[tuple[int, int], Frame] = {}
        self._cut: set[int] = set()  # stacks of which the outermost frames are left out
        self._before: tuple[dict[int, Code], dict[int, str | None], set[int]] = ({}, {}, set())
        self._bytes = 0

    def add_code(self, record: bytes) -> None:
        """Add a `struct code_record`."""
        one = _head_of_code()
        key, version, file, first_line, name_bytes, name_width, path_bytes, path_width, lines_bytes, lines_whole = (
            int.from_bytes(record[offset : offset + size], "little") for offset, size in one
        )
        self.interpreters.add(file)
        data = record[-(name_bytes + path_bytes + lines_bytes) :] if name_bytes + path_bytes + lines_bytes else b""
        name = decode_text(data[:name_bytes], name_width, version)
        path = decode_text(data[name_bytes : name_bytes + path_bytes], path_width, version)
        table = data[name_bytes + path_bytes :]
        self._bytes += _ENTRY_BYTES + len(path) + len(name) + 9 * len(table)  # at most two numbers per byte of the table
        self._codes[key] = Code(path, name, first_line, table, version, lines_whole > lines_bytes)

    def add_stack(self, record: bytes) -> None:
        """Add a `struct stack_record`."""
        head = layouts()["stack_record"].fields["frames"][1]  # type: ignore[index]
        identity, count = np.frombuffer(record, "<u8", 1)[0], int(np.frombuffer(record, "<u4", 1, 12)[0])
        frames = np.frombuffer(record, layouts()["frame"], count, head)
        innermost_first = self._unfolded(frames.tolist())
        text = None if innermost_first is None else fold(reversed(innermost_first))
        if innermost_first and text and len(text) > TEXT_MOST:
            text = fold(reversed(list(_fitting(innermost_first))))
            self._cut.add(int(identity))
        self._stacks[int(identity)] = text
        self._bytes += _ENTRY_BYTES + len(text or "")

    def _unfolded(self, frames: list[tuple[int, int, int]]) -> list[Frame] | None:
        """The frames of a stack: key of the code object, offset in it, and the signal that the frame handles (0: none)."""
        innermost_first: list[Frame] = []
        for key, instruction, handled in frames:
            frame = self._frame(key, instruction) if key else None
            if key and frame is None:
                return None
            if frame and frame.file != SHIM:
                innermost_first.append(frame)
            if handled:
                innermost_first.append(Frame(HANDLER, 0, signal_name(handled)))
        return innermost_first

    def _frame(self, key: int, instruction: int) -> Frame | None:
        found = self._frames.get((key, instruction))
        if found is None and (code := self._codes.get(key) or self._before[0].get(key)):
            found = Frame(code.path, code.line(instruction), code.name)
            self._frames[key, instruction] = found
            self._bytes += _ENTRY_BYTES
            self.new_frames.add(found)
        return found

    def texts(self, identities: Any, statuses: Any) -> tuple[list[str | None], Any]:
        """Return the folded stacks of events with these ids and statuses, and the final statuses.

        Id 0 is no stack. With `no-runtime` the id is a file that was not known at that moment.
        """
        asked = list(zip(identities.tolist(), statuses.tolist(), strict=True))
        found = {each: self._text(*each) for each in dict.fromkeys(asked)}
        return [found[each][0] for each in asked], np.array([found[each][1] for each in asked], np.int64)

    def _text(self, identity: int, status: int) -> tuple[str | None, int]:
        if status == NO_RUNTIME:
            return None, NOT_PYTHON if self._not_python(identity) else NO_RUNTIME
        _, stacks, cut = self._before
        text = self._stacks.get(identity) or stacks.get(identity)
        return text, LOST if identity and text is None else TRUNCATED if identity in self._cut | cut else status

    def make_room(self) -> None:
        """Forget what is too much; the probes send it again when it occurs again."""
        if self._bytes > MOST_BYTES:
            self._forget(list(self._codes), list(self._stacks))
            self._before = (self._codes, self._stacks, self._cut)
            self._codes, self._stacks, self._cut = {}, {}, set()
            self._frames.clear()
            self._bytes = 0


def _fitting(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The first of `frames`, as many as a text may hold."""
    room = TEXT_MOST
    for frame in frames:
        room -= len(fold([frame])) + 1
        if room < 0:
            return
        yield frame
