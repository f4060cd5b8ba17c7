"""Stacks in words: the calls from a line of the program inward, and the text of that line."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from forktrace.analysis.causes.names import printable
from forktrace.analysis.recording import Call, Recording
from forktrace.trace.stacks import HANDLER, Frame

MOST_FRAMES: Final = 6  # of a call chain; of a longer one the middle is left out


def calls_of(site: str, calls: Sequence[Call]) -> tuple[bool, list[str]]:
    """Return whether `site` is a line of the program's own, and the calls from it inward, as people know them.

    Where the program has no line on the stack, as in a thread of the standard library, they are those of the library.
    """
    found = [number for number, call in enumerate(calls) if is_at(call.frame, site)]
    own = not found or calls[found[-1]].home != "python"
    handler = max((number for number, call in enumerate(calls) if call.frame.file == HANDLER), default=0)
    library = list(itertools.dropwhile(_starts_thread, calls[handler:]))
    inner = library if not own else calls[found[-1] + 1 :] if found else []
    outer = [None, *inner] if not own or not found else [calls[found[-1]], *inner]
    words = [printable(_word(one, before)) for one, before in zip(inner, outer, strict=False)]
    return own, words if len(words) <= MOST_FRAMES else [*words[:2], "...", *words[3 - MOST_FRAMES :]]


def passes_a_package(site: str, calls: Sequence[Call]) -> bool:
    """Whether an installed package stands between `site` and the call that the kernel saw."""
    found = [number for number, call in enumerate(calls) if is_at(call.frame, site)]
    return any(call.home == "packages" for call in calls[found[-1] + 1 :]) if found else False


def _word(call: Call, before: Call | None) -> str:
    """A call in a chain, with its file where the chain comes into an installed package: `rq/worker.py work`."""
    if call.frame.file == HANDLER:
        return f"handler of {call.name}"
    goes_on = before is not None and before.home == "packages" and _package(before) == _package(call)
    plain = call.name == call.frame.name and call.home == "packages" and not goes_on
    return f"{call.module} {call.name}" if plain else call.name


def _package(call: Call) -> str:
    return call.module.partition("/")[0]


def _starts_thread(call: Call) -> bool:
    """Every thread begins in threading.py."""
    return call.home == "python" and call.frame.file.endswith("/threading.py")


def is_at(frame: Frame, site: str) -> bool:
    """Return whether a site is about this frame."""
    if not site.endswith(frame.name):  # most frames are not, and this is quick
        return False
    place = f"{frame.file}:{frame.line or '?'} {frame.name}"
    return place == site or place.endswith(f"/{site}")


class Sources:
    """The source lines that a trace has, by the sites that stand on them."""

    def __init__(self, recording: Recording) -> None:
        table = recording.trace.table
        rows = table.filter(pc.equal(table["kind"].cast(pa.string()), "source")).select(["file", "line", "detail"])
        self._lines: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for one in rows.to_pylist():
            place = f"/{one['file']}:{one['line']}"
            self._lines[_last(place)].append((place, one["detail"]))

    def text(self, site: str) -> str | None:
        """Return the text of the source line on which `site` stands; None: the trace does not have it, or several fit."""
        end = "/" + site.rpartition(" ")[0]
        texts = {text for place, text in self._lines.get(_last(end), ()) if place.endswith(end)}
        text = texts.pop() if len(texts) == 1 else None
        return None if text is None else printable(text)


def _last(place: str) -> str:
    return place.rpartition("/")[2]
