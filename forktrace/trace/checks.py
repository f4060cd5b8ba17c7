"""Checks a trace, which is untrusted input: the keys of its header, and values that no recorder writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from forktrace.errors import TraceError
from forktrace.trace.batches import INTEGERS, Values, integers
from forktrace.trace.events import COLUMNS, KINDS
from forktrace.trace.trace_context import parse_traceparent
from forktrace.trace.words import printable

FORMAT: Final = 3  # 1 had no requests, 2 no rows that are carried over

_MAX_TIME_NS: Final = 1 << 62  # 146 years: a time plus the clock's offset stays an int64
_HEADER: Final[Mapping[str, type | tuple[type, ...]]] = {
    "forktrace": str,
    "command": list,
    "cwd": str,
    "target_pid": int,
    "target_start_ns": (int, type(None)),
    "user": str,
    "host": str,
    "boot_id": str,
    "kernel": str,
    "start_ns": int,
    "clock_offset_ns": int,
    "recorder_pid": int,
    "pid_ns": int,
}
# Not every recording has these.
_OPTIONAL: Final[Mapping[str, type]] = {"lacks": list, "traceparent": str, "rotation": int, "file": int}
_ANY_NUMBER: Final = ("flags", "target_pid", "result")
# Bytes of a text at most: what the kernel and the probes keep (events.h), four times and more for what is no UTF-8.
_MAX_BYTES: Final = {"comm": 1 << 10, "cgroup": 1 << 16, "file": 1 << 14, "argv": 1 << 16, "stack": 1 << 23, "detail": 1 << 16}
_MAX_FRAMES: Final = 1 << 13  # of one stack: 1,024, and what marks the handlers among them
_MAX_ALL_FRAMES: Final = 1 << 22  # of all distinct stacks


def header_of(data: bytes, path: str) -> dict[str, Any]:
    """Return the header whose JSON is `data`.

    Raises:
        TraceError: no JSON, a key is missing or impossible, or the format is newer than this reader.
    """
    try:
        header: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}: damaged at byte 0: the header is no JSON: {error}") from None
    number = header.get("format") if isinstance(header, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise TraceError(f"{path}: damaged at byte 0: the header names no format")
    if number > FORMAT:
        raise TraceError(
            f"{path}: written by forktrace {printable(str(header.get('forktrace')))[:20]} in format {str(number)[:20]}; "
            f"this one reads up to {FORMAT}",
            "upgrade forktrace to read it",
        )
    optional = {key: kind for key, kind in _OPTIONAL.items() if key in header}
    for key, kind in {**_HEADER, **optional}.items():
        if not _is_possible(header.get(key), kind) or (key == "traceparent" and not parse_traceparent(header[key])):
            raise TraceError(f"{path}: damaged at byte 0: the header's {key} is {header.get(key)!r:.40}")
    return dict(header)


def _is_possible(value: object, kind: type | tuple[type, ...]) -> bool:
    if not isinstance(value, kind) or isinstance(value, bool):
        return False
    if isinstance(value, int):
        return 0 <= value < _MAX_TIME_NS
    return not isinstance(value, list) or all(isinstance(word, str) for word in value)


def fault_of(table: pa.Table) -> str | None:
    """Return what is impossible among the values of `table`, None when nothing is."""
    for name in ("time_ns", "kind"):
        if table[name].null_count:
            return f"an event without {name}"
    for name, what in COLUMNS.items():
        if what in INTEGERS and name not in _ANY_NUMBER and (number := _impossible(table[name], name)) is not None:
            return f"{name} is {number}"
    if (status := _no_ending(table)) is not None:
        return f"the wait status of an exit is {status:#x}"
    for name, most in _MAX_BYTES.items():
        if (longest := int(_lengths(table[name])[1].max(initial=0))) > most:
            return f"{'an' if name == 'argv' else 'a'} {name} of {longest:,} bytes"
    frames = _frames(table["stack"])
    if len(frames) and (frames.max() > _MAX_FRAMES or frames.sum() > _MAX_ALL_FRAMES):
        return f"stacks of {frames.sum():,} frames, one of {frames.max():,}"
    return None if all(map(_is_object, _end_details(table))) else "the totals of the end are no JSON object"


def _impossible(column: pa.ChunkedArray, name: str) -> int | None:
    if column.null_count == len(column):
        return None
    values, valid = integers(column)
    bad = (values < 0) | (values >= _MAX_TIME_NS) if name.endswith("_ns") else values < 0
    found = values[bad & valid]
    return int(found[0]) if len(found) else None


def _lengths(column: pa.ChunkedArray) -> tuple[Values, Values]:
    """Return where each text of a column, or of its dictionary, begins, and how many bytes it has."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    array = array.dictionary if isinstance(array.type, pa.DictionaryType) else array
    if not len(array):
        return np.zeros(1, np.int32), np.zeros(0, np.int32)
    places = np.frombuffer(array.buffers()[1], np.int32)[array.offset : array.offset + len(array) + 1]
    return places, np.diff(places)


def _frames(column: pa.ChunkedArray) -> Values:
    """Return how many frames each distinct stack has at most."""
    places, lengths = _lengths(column)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not lengths.any():
        return lengths
    between = np.flatnonzero(np.frombuffer(array.dictionary.buffers()[2], np.uint8) == ord(";"))
    return np.diff(np.searchsorted(between, places)) + 1


def _no_ending(table: pa.Table) -> int | None:
    """Return the status of an exit that is a stop or a continue, or none at all."""
    status, valid = integers(table["status"])
    status = status[valid & (integers(table["kind"])[0] == KINDS.index("exit"))]
    found = status[(status > 0xFFFF) | (status & 0x7F == 0x7F)]
    return int(found[0]) if len(found) else None


def _end_details(table: pa.Table) -> list[str | None]:
    rows = np.flatnonzero(integers(table["kind"])[0] == KINDS.index("end"))
    return [table["detail"][int(row)].as_py() for row in rows]


def _is_object(text: str | None) -> bool:
    try:
        return isinstance(json.loads(text or ""), dict)
    except (ValueError, RecursionError):
        return False
