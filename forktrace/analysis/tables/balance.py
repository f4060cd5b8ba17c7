"""Where the processes of a recording have gone, compared with the counts of the kernel and the recorder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE

_RELEASES = ("reap", "autoreap")


@dataclass(frozen=True)
class Balance:
    """How many processes were started, and how each of them ended.

    Attributes:
        started: what the recorder counted; of a trace that was cut off the sum of all others
        reaped, autoreaped, zombie, running: those whose fork is in the trace
        lost: whose fork was lost, by the kernel's count, or whose release
        unexplained: of the releases that are missing, how many the kernel did not count as lost
    """

    started: int
    reaped: int
    autoreaped: int
    zombie: int
    running: int
    lost: int
    unexplained: int = 0

    @property
    def known(self) -> int:
        """The sum of what is known."""
        return self.reaped + self.autoreaped + self.zombie + self.running + self.lost

    @property
    def holds(self) -> bool:
        """Every started process is accounted for, and what is missing was counted as lost."""
        return self.started == self.known and self.unexplained == 0


def balance(history: History, lost: Mapping[str, int]) -> Balance:
    """Return the balance; `lost` is how many events of which kind could not be delivered."""
    log = history.log
    seen = log.fork_row != NONE
    gone = seen & (history.gone_ns < NEVER)
    ended = (log.exit_row != NONE) | (log.zombie_row != NONE)
    ended[log.still[1][log.still[2]]] = True
    autoreaped = gone & (history.autoreaped | history.silent)
    forks, releases = lost.get("fork", 0), sum(lost.get(kind, 0) for kind in _RELEASES)
    missing = int(np.count_nonzero(history.vanished | history.silent))
    started = log.totals.get("processes")
    return Balance(
        started if isinstance(started, int) else int(seen.sum()) + forks,
        int((gone & ~autoreaped & ~history.vanished).sum()),
        int(autoreaped.sum()),
        int((seen & ended & ~gone).sum()),
        int((seen & ~ended & ~gone).sum()),
        forks + int((seen & history.vanished).sum()),
        0 if log.trace.cut or "events" in lost else max(missing - releases, 0),
    )
