"""When a process stopped running, and how long it was a zombie, in words that say how exactly that is known."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from forktrace.analysis.tables.remarks import EXIT_AT_THE_LATEST, EXIT_ESTIMATED
from forktrace.trace.words import NOTICEABLE_MS, duration

_SIGNS: Final = {"about": "~", "at most": "<", "at least": ">"}


def bound_of(row: Any) -> str:
    """Return what `zombie_ms` of a row of lifecycles is, as `zombie_headline` takes it; "" when it is exact."""
    notes = "" if pd.isna(row.notes) else row.notes
    if row.reap_call == "unseen":
        return "at most"
    return "about" if EXIT_ESTIMATED in notes else "at least" if EXIT_AT_THE_LATEST in notes else ""


def zombie_time(row: Any) -> str:
    """Return how long the process of a row of lifecycles was a zombie, `~1.926 s` where that is no exact time."""
    bound, lasted_ms = bounded(row)
    return _SIGNS.get(bound, "") + duration(lasted_ms)


def zombie_words(row: Any) -> str:
    """Return the same in words, `about 1.926 s`."""
    bound, lasted_ms = bounded(row)
    return f"{bound} {duration(lasted_ms)}".lstrip()


def is_at_least(rows: Any) -> Any:
    """Return of a row of lifecycles, or of each in a table, whether its `own_zombie_ms` is said, as a lower bound.

    When nobody saw the reap, `zombie_ms` is an upper bound, which says less than a lower bound that is long enough.
    """
    return (rows.reap_call == "unseen") & (rows.own_zombie_ms >= NOTICEABLE_MS)


def bounded(row: Any) -> tuple[str, float]:
    """Return what to say of the time that a process was a zombie, and that time in ms: a lower bound, if it says anything."""
    return ("at least", row.own_zombie_ms) if is_at_least(row) else (bound_of(row), row.zombie_ms)


def ends(row: Any, end_ns: int) -> tuple[int, int]:
    """Return when a process stopped running and when it was gone; the next known moment where one is not known."""
    last = [one for one in (row.exit_ns, row.zombie_ns, row.reap_ns) if one is not pd.NA]
    run_end_ns = min(last) if last else (row.fork_ns if row.state == "gone" else end_ns)
    gone_ns = end_ns if pd.isna(row.reap_ns) else row.reap_ns
    zombie_ns = row.fork_ns if pd.isna(row.zombie_ns) else row.zombie_ns
    return max(run_end_ns, row.fork_ns), max(gone_ns, zombie_ns)
