"""Which start of a process cleared which zombies, and the forks that failed."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from forktrace.analysis.history import WNOHANG, History
from forktrace.analysis.log import NONE, Flags, Ints, Log, empty_texts, nullable, pick
from forktrace.trace import events

# A sweep and the fork after it are neighbouring lines of one function: microseconds apart on an idle machine. 100 ms leaves
# room for a loaded one and tells them from a poll that happens to come before a start.
SWEEP_GAP_NS: Final = 100_000_000


def cleared_by(history: History) -> Ints:
    """Return for each process the one whose start swept it away; NONE where none did.

    Without stacks this is inferred: one thread reaps named children with WNOHANG, one or several in a row, and then forks,
    with no other fork or wait of that thread between, each step within `SWEEP_GAP_NS` of the one before.
    """
    log = history.log
    rows = np.flatnonzero(log.is_kind("fork", "fork-failed", "reap", "wait") & (log.numbers("by_tid") != NONE))
    rows = rows[np.lexsort((rows, log.numbers("by_tid")[rows], log.by_id[rows]))]
    if not len(rows):
        return np.full(log.count, NONE)
    sweeps, forks = _is_sweep(history)[rows], np.isin(rows, log.fork_row)
    follows = _follows(log, rows)
    linked = np.append(follows[:-1] & (sweeps | forks)[1:], False)
    broken = np.cumsum(~(sweeps & linked))  # a chain from one row to a later one is whole if this does not grow between
    last = np.minimum.accumulate(np.where(sweeps, len(rows), np.arange(len(rows)))[::-1])[::-1]  # the next that is no sweep
    whole = sweeps & linked & (last < len(rows))
    whole &= broken[np.minimum(last, len(rows)) - 1] == broken
    swept, start = rows[whole], rows[last[whole]]
    cleared = np.full(log.count, NONE)
    cleared[log.id[swept]] = log.id[start]
    return cleared


def _is_sweep(history: History) -> Flags:
    """Reaps of a named child with WNOHANG that are the reap of that child."""
    log = history.log
    real = np.zeros(len(log.time_ns), bool)
    real[history.release_row[history.waited]] = True
    named = log.codes("target") == events.TARGETS.index("pid")
    sweeps: Flags = real & log.is_kind("reap") & named & (log.numbers("flags") & WNOHANG != 0)
    return sweeps


def _follows(log: Log, rows: Ints) -> Flags:
    """Whether the next row is by the same thread and soon enough."""
    tid, process, time_ns = log.numbers("by_tid")[rows], log.by_id[rows], log.time_ns[rows]
    same = (tid[1:] == tid[:-1]) & (process[1:] == process[:-1]) & (time_ns[1:] - time_ns[:-1] <= SWEEP_GAP_NS)
    return np.append(same, False)


def starts(history: History) -> pd.DataFrame:
    """Return one row per start and process that it cleared, one with `<NA>` for a start that cleared none, in time order.

    Columns:
        time_ns               int64, ns  the fork of the start
        start_id, parent_id   int64, Int64  the process that was started; its parent
        site                  string     empty: traces carry no stacks yet
        cleared_id            Int64      the zombie that was cleared, in the order of their forks
        zombie_ms             float64    how long it had been a zombie
    """
    log = history.log
    started = np.flatnonzero(pick(log.codes("origin"), log.fork_row) == events.ORIGINS.index("forked"))
    by = cleared_by(history)
    cleared = np.flatnonzero(by != NONE)
    idle = np.setdiff1d(started, by[cleared])
    start, swept = np.concatenate([by[cleared], idle]), np.concatenate([cleared, np.full(len(idle), NONE)])
    order = np.lexsort((swept, start))
    start, swept = start[order], swept[order]
    zombie_ns = pick(history.gone_ns, swept) - pick(history.zombie_ns, swept)
    return pd.DataFrame(
        {
            "time_ns": log.fork_ns[start],
            "start_id": start,
            "parent_id": nullable(history.parents.id[start]),
            "site": empty_texts(len(start)),
            "cleared_id": nullable(swept),
            "zombie_ms": np.where(swept == NONE, np.nan, np.maximum(zombie_ns, 0) / 1e6),
        }
    )


def failed_forks(history: History) -> pd.DataFrame:
    """Return one row per fork, vfork, clone or clone3 of a process that returned an error, in time order.

    Columns:
        time_ns   int64, ns  when the call returned
        id, tid   Int64      the process and the thread that called
        errno     Int64      the error's number
        limit     string     which limit was met; `<NA>`: cannot be told
        site      string     empty: traces carry no stacks yet
    """
    log = history.log
    rows = log.rows("fork-failed")
    return pd.DataFrame(
        {
            "time_ns": log.time_ns[rows],
            "id": nullable(log.id[rows]),
            "tid": nullable(log.at("by_tid", rows)),
            "errno": nullable(log.at("result", rows)),
            "limit": log.texts("detail", rows),
            "site": empty_texts(len(rows)),
        }
    )
