"""The rows of a running recording that are not settled: those that `analysis` still needs for a decision, and no others.

A process is settled some seconds after its release; then it is counted and its rows go. What stays are the rows of processes
that live or are zombies, of their forkers and adopters, and of those whose reap may yet prove to be stolen. So memory
follows the number of living processes and the rate of forks, not the length of the recording.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from forktrace.analysis.causes.rules import Rules
from forktrace.analysis.history import History
from forktrace.analysis.log import NONE, Flags, Ints, Log, first_of_each, last_rows, pick
from forktrace.analysis.tables.stolen import suspects
from forktrace.trace.batches import SCHEMA, by_time
from forktrace.trace.events import COLUMNS
from forktrace.trace.stream import Trace

MOST_SUSPECTS: Final = 2_000  # whose reap may yet prove to be stolen: the last ones
MOST_RUNTIMES: Final = 1_000  # interpreters that are remembered: the first ones
MOST_GENERATIONS: Final = 16  # of ancestors that are remembered where a process has its command line from them
_UNFINISHED: Final = "it is still being recorded"  # and settled rows are no longer there
_MOMENTS: Final = ("fork", "exit", "zombie", "reap", "autoreap")


class Window:
    """The rows of a recording that are not settled.

    Attributes:
        history: what they say about each process; None: there has been no row yet
    """

    def __init__(self, rules: Rules) -> None:
        self.history: History | None = None
        self._rules = rules
        self._table = SCHEMA.empty_table()

    @property
    def batches(self) -> list[pa.RecordBatch]:
        """The rows."""
        found: list[pa.RecordBatch] = self._table.to_batches()
        return found

    def add(self, path: str, header: Mapping[str, Any], batches: Iterable[pa.RecordBatch]) -> History:
        """Take in the batches that have come, and return what the window says with them.

        Raises:
            TraceError: the rows contradict each other.
        """
        self._table = by_time([*self._table.to_batches(), *batches])
        none_repeated = np.zeros(self._table.num_rows, bool)
        self.history = History(Log(Trace(path, dict(header), self._table, _UNFINISHED, none_repeated)), self._rules)
        return self.history

    def settle(self, before_ns: int) -> tuple[Flags, Flags]:
        """Let go of what was settled by a moment; return which processes stay, and which rows of `history` go."""
        history = self.history
        assert history is not None
        processes = _staying(history, before_ns)
        rows = _rows_of(history.log, processes) | (history.log.time_ns >= before_ns)
        self._table = _compact(self._table.filter(pa.array(rows)))
        return processes, ~rows


def _staying(history: History, before_ns: int) -> Flags:
    """Which processes may still change a figure, and those that tell of these."""
    log = history.log
    open_ = history.gone_ns >= before_ns
    suspect = np.flatnonzero(suspects(history) & ~open_)
    suspect = suspect[pick(history.gone_ns, pick(log.by_id, history.release_row[suspect])) >= before_ns]  # who asks must live
    newest = suspect[np.argsort(history.gone_ns[suspect], kind="stable")][-MOST_SUSPECTS:]
    staying = open_.copy()
    staying[newest] = True
    needed = np.flatnonzero(staying)
    forker = pick(log.by_id, log.fork_row)
    for other in (history.parents.id, history.parents.last_id, forker):
        _mark(staying, other[needed])
    for _ in range(MOST_GENERATIONS):
        needed = forker[needed[needed != NONE]]
        _mark(staying, needed)
    return staying


def _mark(flags: Flags, ids: Ints) -> None:
    flags[ids[ids != NONE]] = True


def _rows_of(log: Log, processes: Flags) -> Flags:
    """Which rows tell of these processes: their moments, the last program that each runs; and the interpreters there are."""
    wanted = np.append(processes, False)  # the last place is that of NONE
    rows: Flags = log.is_kind(*_MOMENTS) & wanted[log.id]
    execs = log.rows("exec")
    last = last_rows(log.id, execs[log.id[execs] != NONE], log.count)
    _mark(rows, last[processes])
    runtimes = log.rows("runtime")
    first = first_of_each(log.distinct("detail", runtimes)[0], log.distinct("file", runtimes)[0])
    rows[np.sort(runtimes[first])[:MOST_RUNTIMES]] = True
    return rows


def _compact(table: pa.Table) -> pa.Table:
    """The same rows, without the words that no row uses any more."""
    columns = [
        table[name].cast(pa.string()).dictionary_encode() if what == "text" else table[name] for name, what in COLUMNS.items()
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA).combine_chunks()
