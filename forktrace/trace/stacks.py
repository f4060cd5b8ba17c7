"""Python stacks as a trace keeps them: one line of text, outermost frame first, `/srv/consumer.py:41 main;...`."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final, NamedTuple

HANDLER: Final = "<signal handler>"  # the file of a frame, named for the signal, between a handler and what it interrupted
_LINE_DIGITS: Final = 10


class Frame(NamedTuple):
    """A frame: the file as its code object names it, the line (0: not known), the function's plain name (`co_name`)."""

    file: str
    line: int
    name: str


def fold(frames: Iterable[Frame]) -> str:
    """Return the text of `frames`, outermost first. A `;` in a file or a name, and a space in a name, become escapes."""
    return ";".join(f"{_escaped(one.file)}:{one.line} {_escaped(one.name, ' ')}" for one in frames)


def _escaped(text: str, *more: str) -> str:
    for each in (";", *more):
        text = text.replace(each, f"\\x{ord(each):02x}")
    return text


def unfold(stack: str) -> list[Frame]:
    """Return the frames of a folded stack, outermost first; what cannot be read as a frame becomes a file with line 0."""
    return [_frame(text) for text in stack.split(";") if text]


@functools.lru_cache(maxsize=1 << 16)  # stacks share most of their frames
def _frame(text: str) -> Frame:
    place, _, name = text.rpartition(" ")
    file, _, line = place.rpartition(":")
    if not file or not line.isdecimal() or len(line) > _LINE_DIGITS:
        return Frame(text, 0, "")
    return Frame(file, int(line), name)
