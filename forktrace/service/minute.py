"""The last minute of a recording that goes on: what each parent did in it, and a trace of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forktrace.analysis.causes.reasons import causes
from forktrace.analysis.causes.rules import load
from forktrace.analysis.history import History
from forktrace.analysis.log import NONE, Log
from forktrace.errors import ForktraceError
from forktrace.now.inquiry import Recording
from forktrace.service.growing import Growing
from forktrace.service.parents import MINUTE_NS, Recorded, summed
from forktrace.service.window import Window
from forktrace.system.procfs import kernel_boottime_ns
from forktrace.system.users import User, as_user
from forktrace.trace import events, stream
from forktrace.trace.batches import SCHEMA, by_time, integers, merged

CAUSES_EVERY_S: Final = 5.0  # they take the longest
_SETTLE_EVERY_NS: Final = 15 * 10**9
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # linux/falloc.h

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class _Part:
    """What came between two looks: its rows, and how many forks, zombies and reaps each parent had in them."""

    table: pa.Table
    end_ns: int
    counts: dict[str, Counter[int]] = field(default_factory=dict)


class Minute:
    """Follows a recording that is kept in memory only; what was read of it is freed.

    Attributes:
        words: what became of the recording, for the screen; "": it goes on
    """

    def __init__(self, recording: Recording) -> None:
        self.words = "the recording begins"
        self._recording = recording
        self._trace = Growing(recording.path)
        self._parts: deque[_Part] = deque()
        self._window = Window(load())
        self._settled_ns = 0
        self._alone = threading.Lock()  # the screen looks in one thread, and writes in another
        self._causes: dict[int, str] = {}
        self._next_s = 0.0

    def recorded(self) -> Mapping[int, Recorded]:
        """Return what each parent did in the last minute, by its number."""
        with self._alone:
            return self._look()

    def _look(self) -> Mapping[int, Recorded]:
        self._read()
        if not self._trace.header:
            return {}
        now_ns = kernel_boottime_ns()
        self._let_go(now_ns)
        seconds = min(max((now_ns - self._trace.header["start_ns"]) / 1e9, 1.0), 60.0)
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + CAUSES_EVERY_S
            self._causes |= self._last_causes()
        forks, came, went = (summed(part.counts[kind] for part in self._parts) for kind in ("fork", "zombie", "reap"))
        parents = forks.keys() | came.keys() | went.keys()
        return {pid: Recorded(came[pid], went[pid], forks[pid] / seconds, self._causes.get(pid, "")) for pid in parents}

    def write(self, path: str, who: User) -> None:
        """Write the minute as a trace of the user's: the processes that live, and all that happened in it.

        Raises:
            ForktraceError: there is nothing to write yet, or the file cannot be made.
        """
        if not self._trace.header:
            raise ForktraceError("the recording has not begun yet")
        try:
            descriptor = as_user(who, os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ForktraceError(f"{path}: {error.strerror}") from None
        with open(descriptor, "wb", buffering=0) as file, self._alone:
            self._read()
            writer = stream.Writer(file, self._trace.header)
            for batches in (self._window.batches, *(part.table.to_batches() for part in self._parts)):
                if batches:
                    writer.write(merged(batches))
            writer.close(stream.batch_of([events.end(kernel_boottime_ns())]))  # up to now the open zombies age

    def _read(self) -> None:
        """Take in what has come since the last look."""
        batches: list[pa.RecordBatch] = []
        if self._trace.header:
            self.words = "the recording has ended" if self._recording.has_ended() else ""
        try:
            while (more := self._trace.read()) or self._trace.is_behind:
                batches += more
        except ForktraceError as error:
            self.words = f"{error}"
        table = pa.Table.from_batches(batches, SCHEMA)
        if table.num_rows:
            self._parts.append(_counted(table))
            self._give_back()

    def _give_back(self) -> None:
        """Free the memory of what was read."""
        with contextlib.suppress(OSError), open(self._trace.path, "r+b") as file:
            whole = ctypes.c_long(self._trace.offset)
            _libc.fallocate(file.fileno(), _KEEP_SIZE | _PUNCH_HOLE, ctypes.c_long(0), whole)

    def _let_go(self, now_ns: int) -> None:
        """Of what is older than a minute keep only the rows about processes that live."""
        if now_ns - self._settled_ns < _SETTLE_EVERY_NS or not self._parts or self._parts[0].end_ns > now_ns - MINUTE_NS:
            return
        self._settled_ns = now_ns
        old: list[pa.RecordBatch] = []
        while self._parts and self._parts[0].end_ns <= now_ns - MINUTE_NS:
            old += self._parts.popleft().table.to_batches()
        self._window.add(self._trace.path, self._trace.header, old)
        self._window.settle(now_ns - MINUTE_NS)

    def _table(self) -> pa.Table:
        """All rows that are kept, in time order."""
        return by_time([*self._window.batches, *(batch for part in self._parts for batch in part.table.to_batches())])

    def _last_causes(self) -> dict[int, str]:
        """Why the last child of each parent was released."""
        table = self._table()
        pid, known = integers(table["pid"])
        by, named = integers(table["by_pid"])
        kind = integers(table["kind"])[0]
        reaps = np.flatnonzero((kind == events.KINDS.index("reap")) & known & named)
        last = dict(zip(by[reaps].tolist(), reaps.tolist(), strict=True))
        about = np.isin(pid, pid[list(last.values())]) | np.isin(pid, list(last)) | (kind == events.KINDS.index("runtime"))
        rows = table.filter(pa.array(about))
        part = stream.Trace(self._trace.path, self._trace.header, rows, "it is a part", np.zeros(rows.num_rows, bool))
        history = History(Log(part), load())
        found, names = causes(history), history.readings.names("cause")
        reaper = history.log.at("by_pid", history.release_row)
        order = np.argsort(history.gone_ns, kind="stable")
        return {int(reaper[one]): names[found[one]] for one in order if reaper[one] != NONE and found[one] != NONE}


def _counted(table: pa.Table) -> _Part:
    """A part with its counts: forks and reaps by who made them, zombies by their parent."""
    kind = integers(table["kind"])[0]
    counts = {}
    for name, column in (("fork", "by_pid"), ("zombie", "parent_pid"), ("reap", "by_pid")):
        pid, known = integers(table[column])
        who, times = np.unique(pid[known & (kind == events.KINDS.index(name))], return_counts=True)
        counts[name] = Counter(dict(zip(who.tolist(), times.tolist(), strict=True)))
    return _Part(table, int(pc.max(table["time_ns"]).as_py()), counts)
