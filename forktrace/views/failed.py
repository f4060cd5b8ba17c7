"""What is said of forks that failed: the damage that zombies do, since each counts against the limits on processes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.text import Text

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.events import errno_name
from forktrace.trace.words import count


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


def lines(recording: Recording, names: Names) -> Iterator[Text]:
    """Yield what the report says: how many forks of whom failed at which line, why, and how many zombies there were then."""
    for group in groups(recording.failed_forks()):
        first = _first(group)
        at = f"{'first ' if len(group) > 1 else ''}at {(first.time_ns - recording.start_ns) / 1e9:+.3f} s"
        who, why = names.of(first.id, pd.NA, full=True), reason(first.errno, first.limit, first.allowed)
        blame = "" if pd.isna(first.limit) else zombies(int(first.zombies))
        yield Text(f"{count(len(group), 'fork')} of {who} failed with {why}{_at_line(first.site)}, {at}{blame}.", "red")


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
        yield int(first.time_ns), f"{reason(first.errno, first.limit, first.allowed)}{_at_line(first.site)}{times}{blame}"


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
        forks = f"{count(len(group), 'fork')} of {who} failed with {why}{_at_line(first.site)}"
        yield f"meanwhile {forks}; it counts against that limit"


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


def _at_line(site: Any) -> str:
    return "" if pd.isna(site) else f" at {printable(site)}"
