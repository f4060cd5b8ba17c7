"""Which processes lost events affect: those that lived then, and later ones whose program's exec was not seen."""

from __future__ import annotations

import numpy as np

from forktrace.analysis.causes.endings import killing_rows
from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE, Flags, Ints, Latest, Log, pick
from forktrace.trace.events import NOT_RUN


def lost_until(log: Log, *kinds: str) -> int:
    """Return the time of the last loss, or the last of these kinds, in ns; NONE: nothing was lost.

    A loss happened between its row and the row before of its kind; a process that lived then may miss an event. These intervals
    have no gap from the beginning of the trace to the last loss.
    """
    rows = log.rows("lost")
    rows = rows[log.at("count", rows) != 0]
    if kinds:
        said = log.texts("detail", rows)
        rows = rows[(said.isin([*kinds, NOT_RUN]) | said.isna()).to_numpy(bool)]
    return int(log.time_ns[rows].max(initial=NONE))


def lived_through_loss(log: Log) -> Flags:
    """Return which processes may miss an event: those forked before the last loss."""
    lived: Flags = log.fork_ns <= lost_until(log)
    return lived


def touched_by_lost_exec(history: History) -> Flags:
    """Return which processes, forked after the last loss, have a row that may name an older program: an exec may be lost.

    A row depends on the programs of the process itself, its forker, its killer and its reaper: a command line says which frames
    are the user's own.
    """
    log, until_ns = history.log, lost_until(history.log, "exec")
    if until_ns == NONE:
        return np.zeros(log.count, bool)
    programs = _Programs(log, until_ns)
    touched = programs.are_doubtful(np.arange(log.count), np.full(log.count, NEVER))
    touched |= programs.are_doubtful(pick(log.by_id, log.fork_row), log.fork_ns)
    for row in (killing_rows(history), np.where(history.waited, history.release_row, NONE)):
        touched |= programs.are_doubtful(pick(log.by_id, row), pick(log.time_ns, row))
    return touched & ~lived_through_loss(log)


class _Programs:
    """What processes run, as far as it is known after the last loss of an exec, at `until_ns`."""

    def __init__(self, log: Log, until_ns: int) -> None:
        execs = log.rows("exec")
        execs = execs[log.id[execs] != NONE]
        self._until_ns, self._exec_ns = until_ns, log.time_ns[execs]
        self._latest = Latest(log.id[execs], log.time_ns[execs])
        self._inherited = self._inherit_doubt(log)

    def _inherit_doubt(self, log: Log) -> Flags:
        """Whether the first program of each process is in doubt: who it came from lived at a loss. The last entry is NONE's."""
        lived = np.append(log.fork_ns <= self._until_ns, False)
        forker = pick(log.by_id, log.fork_row)
        its_own = lived[:-1] | self._is_seen(forker, log.fork_ns) | (forker == NONE)
        source = np.append(np.where(its_own, np.arange(log.count), forker), NONE)
        for _ in range(log.count.bit_length()):  # from each to its forker's forker: the distance doubles each time
            source = source[source]
        doubtful: Flags = lived[source]
        return doubtful

    def _is_seen(self, process: Ints, time_ns: Ints) -> Flags:
        """Whether the exec of what a process runs at a time was seen, after the last loss."""
        seen: Flags = pick(self._exec_ns, self._latest.until(process, time_ns)) > self._until_ns
        return seen

    def are_doubtful(self, process: Ints, time_ns: Ints) -> Flags:
        """Return whether it is not certain what a process runs at a time."""
        doubtful: Flags = ~self._is_seen(process, time_ns) & self._inherited[process]
        return doubtful
