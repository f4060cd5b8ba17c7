"""A rotation: the files of one recording in a directory, one after the other, each readable by itself.

The header of each says which recording it is of (`rotation`: when that began) and its number in the directory (`file`). Each
begins by repeating what is known of the processes that began before. To read several files as one, that is left out.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from forktrace.errors import NoFile, TraceError
from forktrace.trace import events
from forktrace.trace.batches import Validity, as_carried, batch_of, by_time, carried_over, integers, rows_of
from forktrace.trace.files import paths
from forktrace.trace.stream import Trace, read, read_header
from forktrace.trace.words import count

OVERLAP_NS: Final = 1_000_000_000  # so long after a turn a file may still get an event from before it
FILE_MISSING: Final = "file of the rotation"  # `detail` of what was lost with one

MAX_COUNT: Final = 1 << 62  # of totals that are believed

_IDENTIFYING: Final = ("kind", "time_ns", "pid", "start_ns", "by_pid", "by_start_ns", "line")


@dataclass(frozen=True)
class File:
    """One file of a rotation, by its header."""

    path: str
    header: dict[str, Any]

    @property
    def number(self) -> int:
        """Its number in the directory."""
        return int(self.header["file"])

    @property
    def start_ns(self) -> int:
        """When it begins (CLOCK_BOOTTIME)."""
        return int(self.header["start_ns"])

    @property
    def recording(self) -> tuple[str, str, int]:
        """Which recording it is of."""
        return self.header["host"], self.header["boot_id"], self.header["rotation"]


@dataclass(frozen=True)
class Rotation:
    """The newest recording in a directory.

    Attributes:
        folder: the directory
        files: its files, the first one first
        earlier: how many files of other recordings there are beside it
        remarks: what cannot be read, or is no part of a rotation; in words
    """

    folder: str
    files: tuple[File, ...]
    earlier: int = 0
    remarks: tuple[str, ...] = ()

    def all_remarks(self) -> list[str]:
        """Return what to tell the reader of this recording, in words."""
        others = f"{count(self.earlier, 'file')} of earlier recordings in {self.folder} not read (name one to read it)"
        return [*self.remarks, *([others] if self.earlier else [])]

    def needed(self, since_ns: int | None = None, until_ns: int | None = None) -> tuple[File, ...]:
        """Return the files that hold what was between two moments (CLOCK_BOOTTIME), at least one; None: open."""
        ends = [*(file.start_ns for file in self.files[1:]), None]
        found = [
            file
            for file, end_ns in zip(self.files, ends, strict=True)
            if (since_ns is None or end_ns is None or end_ns + OVERLAP_NS >= since_ns)
            and (until_ns is None or file.start_ns <= until_ns)
        ]
        return tuple(found) or self.files[:1]


def find(folder: str | os.PathLike[str]) -> Rotation:
    """Return the newest recording in a directory, by the headers of the files there.

    Raises:
        TraceError: there is none.
        NoFile, PermissionMissing, ForktraceError: the directory cannot be read.
    """
    name = os.fspath(folder)
    files, remarks = _files(name)
    if not files:
        others = f": {remarks[0]}" if remarks else ""
        raise TraceError(f"{name}: no file of a rotation is in this directory{others}", "forktrace record --rotate makes one")
    newest = max(files, key=lambda file: (file.number, file.start_ns))
    its = sorted((file for file in files if file.recording == newest.recording), key=lambda file: file.number)
    return Rotation(name, tuple(its), len(files) - len(its), tuple(remarks))


def is_rotation(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a directory with a file of a rotation in it, which is read as one trace."""
    try:
        return os.path.isdir(path) and bool(find(path))
    except TraceError:
        return False


def _files(folder: str) -> tuple[list[File], list[str]]:
    found, remarks = [], []
    for path in paths(folder):
        try:
            header = read_header(path)
        except NoFile:  # the oldest one, removed just now
            continue
        except TraceError as error:
            remarks += [] if _is_empty(path) else [str(error)]
            continue
        if "rotation" in header and "file" in header:
            found.append(File(path, header))
        else:
            remarks.append(f"{path} is no part of a rotation")
    return found, remarks


def _is_empty(path: str) -> bool:
    """Whether a file is empty, or gone: it is the next one then, or was the oldest."""
    try:
        return os.path.getsize(path) == 0
    except OSError:
        return True


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Return the trace in a file, or that of the newest recording in the directory of a rotation.

    Raises:
        TraceError, PermissionMissing, ForktraceError: as `stream.read`.
    """
    if not os.path.isdir(path):
        return read(path)
    rotation = find(path)
    return read_files(rotation, rotation.files)


def read_files(rotation: Rotation, files: Sequence[File]) -> Trace:
    """Return some files of a rotation as one trace. A file that is missing or damaged is said in `cut`.

    Raises:
        TraceError: none of them can be read.
    """
    joined = _Joined()
    for file in files:
        try:
            joined.add(file, read(file.path))
        except (TraceError, NoFile) as error:
            joined.problems.append(str(error))
    return joined.trace(rotation.folder)


class _Joined:
    """Files that are put together, each without what it repeats of the one before."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self._parts: list[pa.RecordBatch] = []
        self._totals: list[dict[str, Any]] = []
        self._header: dict[str, Any] | None = None
        self._number = 0
        self._last: Trace | None = None

    def add(self, file: File, trace: Trace) -> None:
        """Add the next file. What it repeats is needed where the file before is missing or cut off."""
        new = np.ones(len(trace.table), np.bool_)
        if self._last is None:
            self._header = file.header
        elif file.number == self._number + 1 and self._last.cut is None:
            new = ~trace.carried
        else:
            self._add_gap(file, trace)
            new = ~self._known(trace)
        ends = integers(trace.table["kind"])[0] == events.KINDS.index("end")
        self._totals += [json.loads(trace.table["detail"][int(row)].as_py()) for row in np.flatnonzero(ends)]
        new &= ~ends
        self._parts += _batches(trace.table, new & ~trace.carried)
        self._parts += map(as_carried, _batches(trace.table, new & trace.carried))
        self._last, self._number = trace, file.number

    def _add_gap(self, file: File, trace: Trace) -> None:
        """Say what is missing, and that the processes that this file does not repeat were released meanwhile."""
        missing = file.number - self._number - 1
        if missing > 0:
            self.problems.append(f"{count(missing, 'file')} before {file.path} missing")
        if self._last and self._last.cut:
            self.problems.append(f"{self._last.path}: {self._last.cut}")
        gone = _processes(self._parts, "fork") - _processes(self._parts, "reap", "autoreap")
        gone -= _processes(_batches(trace.table, trace.carried), "fork")
        rows = [events.lost(file.start_ns, 1, FILE_MISSING)]
        rows += [events.reap(file.start_ns, pid, call="unseen", target=None, start_ns=start) for pid, start in sorted(gone)]
        self._parts.append(batch_of(rows))

    def _known(self, trace: Trace) -> Validity:
        """Which of the rows that a file repeats were read before."""
        known = set().union(*map(_keys, self._parts))
        repeated = np.flatnonzero(trace.carried)
        found = np.zeros(len(trace.table), np.bool_)
        if len(repeated):
            found[repeated] = [key in known for key in _keys(rows_of(trace.table, repeated))]
        return found

    def trace(self, folder: str) -> Trace:
        """Return them as one.

        Raises:
            TraceError: there is none.
        """
        if self._last is None or self._header is None:
            raise TraceError(f"{folder}: no file of this rotation can be read: {'; '.join(self.problems)}")
        closed = self._last.cut is None
        ends = [batch_of([events.end(_last_ns(self._last.table), json.dumps(_summed(self._totals)))])] if closed else []
        table, carried = carried_over(by_time([*self._parts, *ends]))
        cut = [*self.problems, *([] if closed else [f"{self._last.path}: {self._last.cut}"])]
        return Trace(folder, self._header, table, "; ".join(cut) or None, carried)


def _batches(table: pa.Table, wanted: Validity) -> list[pa.RecordBatch]:
    """The rows of a table that are wanted."""
    return [rows_of(table, np.flatnonzero(wanted))] if wanted.any() else []


def _column(batch: pa.RecordBatch, name: str) -> list[int | None]:
    values, valid = integers(pa.chunked_array([batch[name]]))
    return [value if known else None for value, known in zip(values.tolist(), valid.tolist(), strict=True)]


def _keys(batch: pa.RecordBatch) -> list[tuple[int | None, ...]]:
    """What identifies each row of a batch."""
    plain, _ = carried_over(pa.Table.from_batches([batch]))
    (rows,) = plain.to_batches() or [batch]
    return list(zip(*(_column(rows, name) for name in _IDENTIFYING), strict=True))


def _processes(parts: Iterable[pa.RecordBatch], *kinds: str) -> set[tuple[int, int]]:
    """The processes, by number and start, that rows of these kinds are about."""
    codes = {events.STORED_KINDS.index(kind) for kind in kinds} | {
        events.STORED_KINDS.index(name) for name, kind in events.CARRIED.items() if kind in kinds
    }
    return {
        (pid, start_ns)
        for part in parts
        for kind, pid, start_ns in zip(*(_column(part, name) for name in ("kind", "pid", "start_ns")), strict=True)
        if kind in codes and pid is not None and start_ns is not None
    }


def _last_ns(table: pa.Table) -> int:
    return int(table["time_ns"][len(table) - 1].as_py())


def _summed(totals: list[dict[str, Any]]) -> dict[str, Any]:
    """The totals of several files: those of the last one, with the sums over all for events, losses and processes."""
    events_of, lost = Counter[str](), Counter[str]()
    for one in totals:
        events_of.update(_numbers(one.get("events")))
        lost.update(_numbers(one.get("lost")))
    started = [_number(one.get("processes")) - _number(one.get("carried")) * (place > 0) for place, one in enumerate(totals)]
    return totals[-1] | {"events": events_of, "lost": lost, "processes": sum(started)}


def _numbers(found: object) -> dict[str, int]:
    """The counts in what totals say, which may be anything."""
    return {key: _number(value) for key, value in found.items()} if isinstance(found, dict) else {}


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < MAX_COUNT else 0
