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


class Doubts:
    """Which programs are not certain: an exec of the process, or of one that it has its program from, may be lost.

    Its command line may then be an older one, and so the user's own frames may be others.

    Attributes:
        touch: the processes forked after the last loss whose row such a doubt touches
    """

    def __init__(self, history: History) -> None:
        log = history.log
        execs = log.rows("exec")
        execs = execs[log.id[execs] != NONE]
        self._until_ns = lost_until(log, "exec")
        self.touch: Flags = np.zeros(log.count, bool)
        if self._until_ns == NONE:
            return
        self._exec_ns, self._latest = log.time_ns[execs], Latest(log.id[execs], log.time_ns[execs])
        self._lived = np.append(log.fork_ns <= self._until_ns, False)  # the last entry is that of NONE
        forker = pick(log.by_id, log.fork_row)
        known = self._lived[:-1] | self._is_fresh(forker, log.fork_ns) | (forker == NONE)
        source = np.append(np.where(known, np.arange(log.count), forker), NONE)
        for _ in range(log.count.bit_length()):  # doubles the distance each time
            source = source[source]
        self._inherited = self._lived[source]
        killer, reaper = killing_rows(history), np.where(history.waited, history.release_row, NONE)
        touch = self._about(np.arange(log.count), np.full(log.count, NEVER)) | self._about(forker, log.fork_ns)
        for row in (killer, reaper):
            touch |= self._about(pick(log.by_id, row), pick(log.time_ns, row))
        self.touch = touch & ~lived_through_loss(log)

    def _is_fresh(self, process: Ints, time_ns: Ints) -> Flags:
        """Whether the exec of what a process runs at a time was seen, after the last loss."""
        fresh: Flags = pick(self._exec_ns, self._latest.until(process, time_ns)) > self._until_ns
        return fresh

    def _about(self, process: Ints, time_ns: Ints) -> Flags:
        """Whether it is not certain what a process runs at a time."""
        doubtful: Flags = ~self._is_fresh(process, time_ns) & self._inherited[process]
        return doubtful
