"""Orphans: their adopters, and which adopters do not reap as an init does."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.causes.endings import removed
from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE, Flags, Ints, category, nullable, pick

OUTCOMES: Final = ("reaped", "autoreaped", "left", "running")
FINDINGS: Final = ("adopter-not-init",)

LEFT_MS: Final = 100.0  # an init always waits, and reaps within a few ms even on a busy machine
LEFT_OUTSIDE_MS: Final = 5000.0  # an init outside the recording may wait only now and then; its waits are not seen


def orphans(history: History) -> pd.DataFrame:
    """Return one row per orphan and process that inherited it, in time order.

    An orphan that still exists when its adopter ends goes to the next adopter: then it has several rows. An adopter gets the
    finding `adopter-not-init` if it left a zombie for longer than an init takes, and for longer than any that it reaped.

    Columns:
        time_ns       int64, ns    when it was inherited: the notification of its dead parent's own parent
        id            int64        the orphan
        adopter_id    Int64        who inherited it; `<NA>`: a process outside the recording
        adopter_pid   int64        its number
        zombie_ms     float64, ms  how long it was a zombie of this adopter; NaN: it was none
        outcome       category     `reaped` by this adopter; `autoreaped`, since that ignores SIGCHLD; `left` a zombie, when the
                                   adopter or the recording ended; `running` then
        finding       category     `adopter-not-init`; `<NA>`: none
    """
    child, since_ns, pid, ident = _inherited(history)
    until_ns = np.minimum(_next_step(child, since_ns), history.gone_ns[child])
    end_ns = np.minimum(until_ns, history.log.end_ns)
    zombie_ns = np.where(history.zombie_ns[child] == NONE, NEVER, history.zombie_ns[child])
    was_zombie = zombie_ns <= end_ns
    zombie_ms = np.where(was_zombie, (end_ns - np.maximum(zombie_ns, since_ns)) / 1e6, np.nan)
    released = (until_ns == history.gone_ns[child]) & (until_ns < NEVER)
    gone = removed(history)
    outcome = np.select(
        [released & history.autoreaped[child] & ~gone[child], released & ~gone[child], was_zombie],
        [OUTCOMES.index(name) for name in ("autoreaped", "reaped", "left")],
        OUTCOMES.index("running"),
    )
    found = _not_init(pid, ident, zombie_ms, outcome)
    return pd.DataFrame(
        {
            "time_ns": since_ns,
            "id": child,
            "adopter_id": nullable(ident),
            "adopter_pid": pid,
            "zombie_ms": zombie_ms,
            "outcome": category(outcome, OUTCOMES),
            "finding": category(np.where(found, 0, NONE), FINDINGS),
        }
    )


def _inherited(history: History) -> tuple[Ints, Ints, Ints, Ints]:
    """Each child that was inherited, when, and the adopter's number and id; in time order.

    From known reparentings, orphans from outside the recording, and orphans whose parent's death was not seen.
    """
    log, known = history.log, history.parents
    ids = np.arange(log.count)
    last = np.full(log.count, NONE)
    last[known.child_id] = known.new_pid  # of several the last: they are in time order
    unseen = known.orphaned & (known.last_pid != last)
    adopted = log.has_origin("adopted")
    adopted_ns = pick(log.time_ns, log.fork_row)
    unseen_ns = np.where(history.exit_ns == NONE, log.fork_ns, history.exit_ns)
    child = np.concatenate([known.child_id, ids[adopted], ids[unseen]])
    since_ns = np.concatenate([known.step_ns, adopted_ns[adopted], unseen_ns[unseen]])
    pid = np.concatenate([known.new_pid, known.pid[adopted], known.last_pid[unseen]])
    ident = np.concatenate([known.new_id, known.id[adopted], known.last_id[unseen]])
    order = np.lexsort((child, since_ns))
    return child[order], since_ns[order], pid[order], ident[order]


def _next_step(child: Ints, since_ns: Ints) -> Ints:
    """When each child went to its next adopter; NEVER: it did not."""
    order = np.lexsort((since_ns, child))
    following = np.full(len(child), NEVER)
    same = child[order][1:] == child[order][:-1]
    following[order[:-1][same]] = since_ns[order][1:][same]
    return following


def _not_init(pid: Ints, ident: Ints, zombie_ms: npt.NDArray[np.float64], outcome: Ints) -> Flags:
    """The rows of orphans whose adopter does not reap, or has stopped to."""
    keys = pd.MultiIndex.from_arrays([pid, ident]).factorize()[0]
    reaped = outcome == OUTCOMES.index("reaped")
    slowest_ms = np.full(len(pid), LEFT_MS)
    np.fmax.at(slowest_ms, keys[reaped], zombie_ms[reaped])
    most_ms = np.maximum(slowest_ms[keys], np.where(ident == NONE, LEFT_OUTSIDE_MS, 0))
    left = outcome == OUTCOMES.index("left")
    longest_ms = np.zeros(len(pid))
    np.maximum.at(longest_ms, keys[left], zombie_ms[left])
    found: Flags = left & (longest_ms[keys] > most_ms)
    return found
