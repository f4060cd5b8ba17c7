"""The line of an instruction of a code object, and its texts.

CPython stores the lines: 2.7 to 3.9 in `co_lnotab`, 3.10 in `co_linetable` (both: Objects/lnotab_notes.txt), from 3.11 on
in the location table (InternalDocs/code_objects.md).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

_ENCODINGS: Final = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}
SHIM: Final = "__init__"  # 3.12 and later: the file and the function of a frame that stands for the call of a class
_NEGATIVE: Final = 1 << 31  # offsets are 32 bits wide, in two's complement
_NO_LINE: Final = -128  # 3.10: instead of a difference
_LINES: Final = range(1 << 31)
_BITS_MOST: Final = 60  # of a number in a location table; longer ones are damage


def decode_text(data: bytes, width: int, version: int) -> str:
    """Return the text that an interpreter stores as `data`, `width` bytes a character."""
    encoding = _ENCODINGS.get(width, "latin-1") if version >= 0x300 else "utf-8"
    return data.decode(encoding, "backslashreplace")


@dataclass(frozen=True)
class Code:
    """A code object, as far as a stack needs it."""

    path: str
    name: str
    first_line: int
    table: bytes
    version: int
    is_cut: bool = False  # the table is longer than what was sent

    def line(self, instruction: int) -> int:
        """Return the line of the instruction at this offset; 0: it has none; -1 is before the first: the function's line."""
        if instruction >= _NEGATIVE:
            return self._lines[1][0]
        starts, lines = self._lines
        place = bisect_right(starts, instruction) - 1
        return lines[place] if place >= 0 else 0

    @cached_property
    def _lines(self) -> tuple[array[int], array[int]]:
        """The offsets at which lines begin, with these lines."""
        decode = _before_3_10 if self.version < 0x30A else _in_3_10 if self.version == 0x30A else _from_3_11
        starts, lines = array("I", [0]), array("I", [self.first_line if self.first_line in _LINES else 0])
        for start, line in decode(self.table, self.first_line, self.version):
            starts.append(start)
            lines.append(line if line in _LINES else 0)
        if self.is_cut:
            lines[-1] = 0
        return starts, lines


def _before_3_10(table: bytes, line: int, version: int) -> Iterator[tuple[int, int]]:
    at = 0
    for step, difference in zip(table[::2], table[1::2], strict=False):
        at += step
        line += difference - 256 if difference > 127 and version >= 0x306 else difference
        yield at, line


def _in_3_10(table: bytes, line: int, version: int) -> Iterator[tuple[int, int]]:
    at = 0
    for step, difference in zip(table[::2], table[1::2], strict=False):
        signed = difference - 256 if difference > 127 else difference
        if signed != _NO_LINE:
            line += signed
        if step:
            yield at // 2, 0 if signed == _NO_LINE else line
        at += step


def _from_3_11(table: bytes, line: int, version: int) -> Iterator[tuple[int, int]]:
    at, place = 0, 0
    while place < len(table):
        head = table[place]
        place += 1
        kind, units = head >> 3 & 15, (head & 7) + 1
        has_line = kind != 15
        if kind in (13, 14):
            difference, place = _signed(table, place)
            line += difference
            if kind == 14:
                for _ in range(3):
                    _, place = _unsigned(table, place)
        elif 10 <= kind <= 12:
            line += kind - 10
            place += 2
        elif kind < 10:
            place += 1
        yield at, line if has_line else 0
        at += 2 * units
    yield at, 0


def _unsigned(table: bytes, place: int) -> tuple[int, int]:
    """Read 6 bits a byte, the lowest first, up to a byte without bit 6; return the number and the next place."""
    number = shift = 0
    while place < len(table) and shift < _BITS_MOST:
        byte = table[place]
        place += 1
        number |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            break
    return number, place


def _signed(table: bytes, place: int) -> tuple[int, int]:
    number, place = _unsigned(table, place)
    return -(number >> 1) if number & 1 else number >> 1, place
