"""How many zombies each parent has, over time."""

from __future__ import annotations

import numpy as np
import pandas as pd

from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE, Ints, nullable
from forktrace.analysis.selection import Selection


def zombie_count(history: History, selected: Selection) -> pd.DataFrame:
    """Return one row per change of the number of zombies that a parent has, in time order.

    A zombie counts from its notification to its release, for the parent that it has at the moment: for the adopter from the
    handing over on. One that is still there at the end of the trace is never taken off.
    `selected` limits the count to some zombies and the rows to a stretch of time; what was there before is then a row at its
    beginning.

    Columns:
        time_ns     int64, ns  the moment of the change
        parent_id   Int64      the parent; `<NA>`: all those outside the recording together
        zombies     int64      how many it has from then on
    """
    known = history.parents
    wanted = np.ones(history.log.count, bool) if selected.ids is None else np.isin(np.arange(history.log.count), selected.ids)
    zombie = np.flatnonzero(wanted & (history.zombie_ns != NONE))
    born_ns, gone_ns = history.zombie_ns[zombie], history.gone_ns[zombie]
    released = gone_ns < NEVER
    gone_ns = np.maximum(gone_ns, born_ns)
    step_ns, child = known.step_ns, known.child_id
    moved = (
        wanted[child]
        & (history.zombie_ns[child] != NONE)
        & (history.zombie_ns[child] < step_ns)
        & (step_ns < history.gone_ns[child])
    )
    time_ns = np.concatenate([born_ns, gone_ns[released], step_ns[moved], step_ns[moved]])
    parent = np.concatenate(
        [
            known.at(zombie, born_ns),
            known.at(zombie[released], gone_ns[released]),
            known.old_id[moved],
            known.new_id[moved],
        ]
    )
    ones = np.ones(len(time_ns), np.int64)
    ones[len(born_ns) : len(born_ns) + int(released.sum()) + int(moved.sum())] = -1
    if selected.since_ns is not None:
        time_ns = np.maximum(time_ns, selected.since_ns)
    within = selected.in_time(time_ns)
    return _summed(time_ns[within], parent[within], ones[within])


def _summed(time_ns: Ints, parent: Ints, change: Ints) -> pd.DataFrame:
    changes = pd.DataFrame({"parent_id": parent, "time_ns": time_ns, "change": change})
    changes = changes.groupby(["parent_id", "time_ns"], as_index=False).agg({"change": "sum"})
    changes = changes[changes["change"] != 0]
    counts = changes.groupby("parent_id")["change"].cumsum()
    table = pd.DataFrame(
        {
            "time_ns": changes["time_ns"].to_numpy(),
            "parent_id": nullable(changes["parent_id"].to_numpy()),
            "zombies": counts.to_numpy(),
        }
    )
    return table.sort_values(["time_ns", "parent_id"], kind="stable", ignore_index=True)


def total_zombies(zombie_count: pd.DataFrame) -> pd.DataFrame:
    """Return one row per moment (`time_ns`) with the number of zombies of all parents together (`zombies`) from then on."""
    before = zombie_count.groupby("parent_id", dropna=False)["zombies"].shift(fill_value=0)
    change = (zombie_count["zombies"] - before).groupby(zombie_count["time_ns"]).sum()
    return change.cumsum().rename("zombies").reset_index()
