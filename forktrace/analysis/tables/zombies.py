"""How many zombies each parent has, over time; and how many each branch of the family left, and for how long."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.causes.reasons import by_recorder
from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE, Ints, nullable, pick
from forktrace.analysis.selection import Selection


def zombie_count(history: History, selected: Selection) -> pd.DataFrame:
    """Return one row per change of the number of zombies that a parent has, in time order.

    A zombie counts from its notification to its release, for the parent that it has at the moment: for the adopter from the
    handing over on. One that is still there at the end of the trace is never taken off.
    The command itself is not counted: forktrace is its parent, and reaps it. `selected` limits the count to some zombies and
    the rows to a stretch of time; what was there before is then a row at its beginning.

    Columns:
        time_ns     int64, ns  the moment of the change
        parent_id   Int64      the parent; `<NA>`: all those outside the recording together
        zombies     int64      how many it has from then on
    """
    known = history.parents
    wanted = np.ones(history.log.count, bool) if selected.ids is None else np.isin(np.arange(history.log.count), selected.ids)
    wanted &= ~by_recorder(history)
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


def branches(lifecycles: pd.DataFrame, process: int) -> pd.DataFrame:
    """Return one row per child of the process with id `process`, in fork order, about all that descends from that child.

    The child itself is not counted: its zombie is one of `process`. Zombies of orphans count for the branch that they were
    born in, whoever inherited them. `lifecycles` is the table of a whole recording; the counts are over the whole time.

    Columns:
        id           int64        the child
        processes    int64        its descendants
        zombies      int64        of these, those that have been zombies
        zombie_ms    float64, ms  the time that these were zombies, added up; of those still there until the end of the trace
        longest_ms   float64, ms  the longest of these times; 0 without zombies
        most         int64        how many were zombies at once, at most
        open         int64        how many are zombies still
    """
    parent = lifecycles["parent_id"].to_numpy(np.int64, na_value=NONE)
    child = np.flatnonzero(parent == process)
    branch = np.append(np.where(parent == process, np.arange(len(parent)), parent), NONE)
    for _ in range(len(parent).bit_length()):  # each time twice as far up; the last place stands for NONE
        branch = branch[branch]
    row = pick(np.append(np.cumsum(parent == process) - 1, NONE), branch[:-1])
    below = np.isin(branch[:-1], child) & (parent != process)
    zombie_ms = lifecycles["zombie_ms"].to_numpy()
    zombie = below & ~np.isnan(zombie_ms)
    open_ = zombie & lifecycles["zombie_open"].to_numpy()
    zombie_ns = lifecycles["zombie_ns"][zombie].to_numpy(np.int64)
    longest = np.zeros(len(child))
    np.maximum.at(longest, row[zombie], zombie_ms[zombie])
    return pd.DataFrame(
        {
            "id": child,
            "processes": np.bincount(row[below], minlength=len(child)),
            "zombies": np.bincount(row[zombie], minlength=len(child)),
            "zombie_ms": np.bincount(row[zombie], zombie_ms[zombie], minlength=len(child)),
            "longest_ms": longest,
            "most": most_at_once(row[zombie], zombie_ns, zombie_ms[zombie], len(child)),
            "open": np.bincount(row[open_], minlength=len(child)),
        }
    )


def most_at_once(group: Ints, begin_ns: Ints, lasted_ms: npt.NDArray[np.float64], groups: int) -> Ints:
    """Return how many stretches of time of each group overlap at most; one that ends as another begins does not."""
    end_ns = begin_ns + np.rint(lasted_ms * 1e6).astype(np.int64)
    group, time_ns = np.tile(group, 2), np.concatenate([begin_ns, end_ns])
    change = np.repeat([1, -1], len(begin_ns))
    order = np.lexsort((change, time_ns, group))
    level = np.cumsum(change[order])  # each group ends at 0, where the next one begins
    most = np.zeros(groups, np.int64)
    np.maximum.at(most, group[order], level)
    return most
