"""What is said of forks that failed: the damage that zombies do, since each counts against the limits on processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.events import errno_name
from forktrace.trace.words import count
from forktrace.views.findings import Facts
from forktrace.views.text.screen import Grid
from forktrace.views.words import at_line, short_site

MOST_ROWS: Final = 10
MOST_SITE: Final = 40  # characters of a line


def reason(errno: Any, limit: Any, allowed: Any) -> str:
    """Return `EAGAIN (RLIMIT_NPROC of 20)`."""
    name = "an unknown error" if pd.isna(errno) else errno_name(int(errno))
    if pd.isna(limit):
        return name
    return f"{name} ({printable(limit)}{'' if pd.isna(allowed) else f' of {allowed:,}'})"


def groups(failed: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the failed forks of one process, error, limit and line together, in the order of their first ones."""
    key = ["id", "errno", "limit", "allowed", "site"]
    return [group for _, group in failed.groupby(key, dropna=False, sort=False)]


def grid(recording: Recording, names: Names) -> Grid:
    """Return the report's table: how many forks failed with which error at which line, and how many zombies there were then."""
    columns = [("forks", "right"), ("failed with", "left"), ("line", "left"), ("in", "left"), ("first", "right")]
    columns.append(("zombies", "right"))
    table = recording.failed_forks()
    groups = [group for _, group in table.groupby(["errno", "limit", "allowed", "site"], dropna=False, sort=False)]
    most = sorted(groups, key=len, reverse=True)[:MOST_ROWS]
    rows = [_cells(recording, names, group) for group in most]
    return Grid(columns, rows, "line", 12, ["red"] * len(rows), ("in",), list(map(_facts, most)))


def _facts(group: pd.DataFrame) -> Facts:
    """What a row of the table is made of; `time_ns` and `zombies` at its first failed fork."""
    first, makers = _first(group), group["id"].unique().tolist()
    of_first = {name: getattr(first, name) for name in ("errno", "limit", "allowed", "site", "time_ns", "zombies")}
    return {"forks": len(group), "text": reason(first.errno, first.limit, first.allowed), "ids": makers, **of_first}


def _cells(recording: Recording, names: Names, group: pd.DataFrame) -> list[str]:
    """A row of the table: the failed forks with one error at one line; zombies are named where a limit was met."""
    first, makers = _first(group), group["id"].nunique()
    who = names.of(first.id, pd.NA, full=True) if makers == 1 else count(makers, "process")
    line = "?" if pd.isna(first.site) else short_site(printable(first.site), MOST_SITE)
    then = "-" if pd.isna(first.limit) else f"{int(first.zombies):,}"
    at = f"{(first.time_ns - recording.start_ns) / 1e9:+.3f} s"
    return [f"{len(group):,}", reason(first.errno, first.limit, first.allowed), line, who, at, then]


def zombies(number: int) -> str:
    """Return how many zombies took a place under a limit that was met, as the end of a sentence."""
    return f"; {count(number, 'zombie')} {'counts' if number == 1 else 'count'} against that limit then" if number else ""


def of_process(recording: Recording, process: int) -> Iterator[tuple[int, str]]:
    """Yield the moment, in ns, and the words for the failed forks of one process."""
    table = recording.whole.failed_forks()
    for group in groups(table[(table["id"] == process).fillna(False)]):
        first = _first(group)
        times = f", {len(group):,} times from here on" if len(group) > 1 else ""
        blame = "" if pd.isna(first.limit) else zombies(int(first.zombies))
        yield int(first.time_ns), f"{reason(first.errno, first.limit, first.allowed)}{at_line(first.site)}{times}{blame}"


def during(recording: Recording, names: Names, row: Any) -> Iterator[str]:
    """Yield which forks of its parents failed at a limit while the process of this row of lifecycles was a zombie."""
    if pd.isna(row.zombie_ns):
        return
    table = recording.whole.failed_forks()
    gone_ns = recording.end_ns if pd.isna(row.reap_ns) else row.reap_ns
    parents = [int(one) for one in (row.parent_id, row.adopter_id) if not pd.isna(one)]
    then = table["time_ns"].between(row.zombie_ns, gone_ns) & table["id"].isin(parents) & table["limit"].notna()
    for group in groups(table[then]):
        first = _first(group)
        who, why = names.of(first.id, pd.NA), reason(first.errno, first.limit, first.allowed)
        forks = f"{count(len(group), 'fork')} of {who} failed with {why}{at_line(first.site)}"
        yield f"meanwhile {forks}; it counts against that limit"


def met_by(recording: Recording, failures: pd.DataFrame, table: pd.DataFrame) -> pd.Series:
    """Return for each row of lifecycles the fork that it kept from succeeding, the first, as a label of `failures`.

    That is one of its parents' that failed at a limit while the process was a zombie; `<NA>`: there is none.
    """
    found = pd.Series(pd.NA, table.index, dtype="Int64")
    limited = failures[failures["limit"].notna() & failures["id"].notna()].sort_values("time_ns", kind="stable")
    for parent, group in limited.groupby("id"):
        time_ns = group["time_ns"].to_numpy()
        mine = (table["parent_id"] == parent).fillna(False) | (table["adopter_id"] == parent).fillna(False)
        zombies = table[mine & table["zombie_ns"].notna()]
        first = np.searchsorted(time_ns, zombies["zombie_ns"].to_numpy(np.int64))
        gone_ns = zombies["reap_ns"].fillna(recording.end_ns).to_numpy(np.int64)
        so = first < np.searchsorted(time_ns, gone_ns, "right")
        found[zombies.index[so]] = group.index[first[so]]
    return found


def labels(recording: Recording) -> list[str]:
    """Return the entry of the timeline's legend; none: no fork failed."""
    table = recording.failed_forks()
    if table.empty:
        return []
    first = _first(table)
    others = len(table[["errno", "limit", "allowed"]].drop_duplicates()) > 1
    return [f"failed fork, {reason(first.errno, first.limit, first.allowed)}{' and other errors' if others else ''}"]


def _first(table: pd.DataFrame) -> Any:
    """The first row as a named tuple."""
    return next(table.itertuples())
