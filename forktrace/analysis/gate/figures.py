"""What a recording has of each thing that can be limited: one row per item, with bounds where its size is not certain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.gate.limits import Kind
from forktrace.analysis.log import Flags, Ints, empty_texts
from forktrace.analysis.recording import Recording
from forktrace.analysis.requests import start_sites
from forktrace.analysis.tables.events import errno_name
from forktrace.analysis.tables.lifecycles import LIVING
from forktrace.analysis.tables.remarks import EXIT_AT_THE_LATEST, EXIT_ESTIMATED
from forktrace.analysis.tables.zombies import most_at_once

Floats = npt.NDArray[np.float64]

# Losses that cannot make a figure larger; any other may.
_WITHOUT_ZOMBIES: Final = frozenset(
    {"exec", "signal", "oom", "wait", "request", "fork-failed", "stack", "code", "wait place", "process number", "unknown file"}
)
_WITHOUT_THEFTS: Final = frozenset({"signal", "oom", "autoreap", "fork-failed", "request", "wait place", "unknown file"})
_WITHOUT_FAILURES: Final = frozenset(
    {"fork", "exec", "exit", "zombie", "wait", "reap", "autoreap", "signal", "oom", "stack", "code"}
    | {"request", "wait place", "process number", "unknown file", "child not adopted"}
)


class Items:
    """The items of one recording, each kind made once; `forks` of it were seen, and perhaps more."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._made: dict[Callable[[Recording], pd.DataFrame], pd.DataFrame] = {}
        forked = recording.lifecycles()["origin"] == "forked"
        self.forks = Forks(int(forked.sum()), int(forked.sum()) + _lost_forks(recording))

    def of(self, kind: Kind) -> pd.DataFrame:
        """Return one row per item that counts for a limit. The command itself is forktrace's child and never counts.

        Columns:
            id                Int64    the process, of lifecycles
            site              string   line that started it; of a failed fork, that called; of a theft, the thief's
            reap_site         string   line that reaped it
            cause             string   `reap_cause`, or `stolen` `running` `failed-fork EAGAIN`
            low, high         float64  its size at least and at most: ms of a zombie, 1 for what is counted
            begin_ns, end_ns  int64    from when to when it was a zombie, as far as that is known
            sure              bool     it is certain that it is one
            still             bool     it was a zombie at the end
            complete          bool     as in lifecycles
        """
        make = _MAKERS[kind.name]
        if make not in self._made:
            self._made[make] = make(self.recording)
        return self._made[make]


class Forks(NamedTuple):
    """How many processes were forked, at least and at most."""

    least: int
    most: int


def _lost_forks(recording: Recording) -> int:
    return sum(recording.whole.lost().get(what, 0) for what in ("fork", "process not followed"))


def figure(kind: Kind, table: pd.DataFrame, forks: Forks) -> tuple[float, float]:
    """Return what the items of `table` come to, at least and at most."""
    low, high = figures(kind, table, np.zeros(len(table), np.int64), 1, forks)
    return float(low[0]), float(high[0])


def figures(kind: Kind, table: pd.DataFrame, group: Ints, groups: int, forks: Forks) -> tuple[Floats, Floats]:
    """Return what the items of each group come to by themselves, at least and at most; `group` says whose each item is."""
    if kind.name == "max-zombies":
        return _sure_at_once(table, group, groups), _perhaps_at_once(table, group, groups)
    sizes = [table[name].to_numpy() for name in ("low", "high")]
    if kind.name == "max-zombie":
        most = np.zeros((2, groups))
        for place, size in enumerate(sizes):
            np.maximum.at(most[place], group, size)
        return most[0], most[1]
    low, high = (np.bincount(group, size, minlength=groups).astype(np.float64) for size in sizes)
    if kind.name != "max-zombie-seconds":
        return low, high
    if not forks.least:
        return np.zeros(groups), np.where(high > 0, np.inf, 0)  # there is nothing to relate it to
    return low / forks.most, high / forks.least  # ms a fork are s per 1,000


def missing(recording: Recording, kind: Kind) -> list[str]:
    """Return what the recording lacks that could make the figure larger, in words; nothing: it is exact, or an upper bound."""
    whole = recording.whole
    if whole.lifecycles().empty:
        return ["nothing was recorded"]
    harmless = _HARMLESS.get(kind.name, _WITHOUT_ZOMBIES)
    lost = {what: number for what, number in whole.lost().items() if what not in harmless}
    found = [f"lost: {', '.join(f'{number:,} {what}' for what, number in lost.items())}"] if lost else []
    found += [f"the trace is not whole: {whole.cut}"] if whole.cut else []
    found += ["the recording ended early, since the trace was full"] if whole.full else []
    unexplained = whole.balance().unexplained if harmless is not _WITHOUT_FAILURES else 0
    found += [f"{unexplained:,} releases are missing and were not counted as lost"] if unexplained else []
    return found


def _zombies(recording: Recording) -> pd.DataFrame:
    table = recording.lifecycles()
    rows = table[(table["origin"] != "target") & table["zombie_ns"].notna()]
    low, high = _bounds(rows)
    doubtful = bool(recording.whole.cut and recording.whole.lost())  # nothing says which of them the kernel still had
    sure = ~(rows["zombie_open"].to_numpy(bool) & doubtful) & ~np.isinf(high)
    return _items(rows, "reap_cause", np.where(sure, low, 0), high, sure)


def _bounds(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """How long each was a zombie, in ms, at least and at most; docs/ci.md says what of it is exact."""
    known = rows["zombie_ms"].to_numpy(np.float64)
    low, high = np.nan_to_num(known), np.where(np.isnan(known), np.inf, known)
    unseen = (rows["reap_call"] == "unseen").to_numpy(bool, na_value=False)
    if unseen.any():
        low[unseen] = rows.loc[unseen, "own_zombie_ms"].fillna(0)
    notes = rows["notes"].fillna("")
    found_dead = notes.str.contains(EXIT_ESTIMATED, regex=False) | notes.str.contains(EXIT_AT_THE_LATEST, regex=False)
    if found_dead.any():
        end_ns = rows["zombie_ns"].to_numpy(np.float64) + np.nan_to_num(known) * 1e6
        age_ms = (end_ns - rows["fork_ns"].to_numpy(np.float64)) / 1e6
        high = np.where(found_dead.to_numpy(bool), np.maximum(high, age_ms), high)
    return low, high


def _unreaped(recording: Recording) -> pd.DataFrame:
    table = _zombies(recording)
    still = table[table["still"]]
    return still.assign(low=still["sure"].astype(float), high=1.0)


def _running(recording: Recording) -> pd.DataFrame:
    table = recording.lifecycles()
    below = table["origin"].isin(["forked", "adopted"]) | table["parent_id"].notna()
    return _counted(table[table["state"].isin(LIVING) & below & (table["origin"] != "target")], "running")


def _stolen(recording: Recording) -> pd.DataFrame:
    thefts = recording.stolen()
    line = thefts["thief_site"].array
    rows = recording.whole.lifecycles().loc[thefts["id"]].assign(start_site=line, fork_site=line)
    perhaps = _counted(recording.perhaps_stolen(), "stolen").assign(low=0.0)
    return pd.concat([_counted(rows, "stolen"), perhaps], ignore_index=True)


def _failed_forks(recording: Recording) -> pd.DataFrame:
    table = recording.failed_forks()
    named = table["errno"].map(lambda number: errno_name(int(number)), na_action="ignore").astype("string").fillna("?")
    limits = (" " + table["limit"]).fillna("")
    rows = table.assign(cause="failed-fork " + named + limits, complete=True, zombie_open=False)
    rows = rows.assign(
        start_site=table["site"], fork_site=table["site"], reap_site=empty_texts(len(rows)), zombie_ns=0, zombie_ms=0.0
    )
    return _items(rows, "cause", np.ones(len(rows)), np.ones(len(rows)))


def _orphans(recording: Recording) -> pd.DataFrame:
    table = recording.orphans()
    left = table.loc[table["outcome"] == "left", "id"].drop_duplicates()
    rows = recording.whole.lifecycles().loc[left]
    return _items(rows, "reap_cause", np.ones(len(rows)), np.ones(len(rows)))


def _counted(rows: pd.DataFrame, cause: str) -> pd.DataFrame:
    return _items(rows.assign(cause=cause), "cause", np.ones(len(rows)), np.ones(len(rows)))


def _items(rows: pd.DataFrame, cause: str, low: Floats, high: Floats, sure: Flags | None = None) -> pd.DataFrame:
    begin_ns = rows["zombie_ns"].astype("Int64").to_numpy(np.int64, na_value=0)
    lasted_ms = rows["zombie_ms"].fillna(0).to_numpy(np.float64)
    end_ns = begin_ns + np.rint(lasted_ms * 1e6).astype(np.int64)
    columns: dict[str, Any] = {
        "id": rows["id"].astype("Int64").array,
        "site": start_sites(rows).astype("string").array,
        "reap_site": rows["reap_site"].astype("string").array,
        "cause": rows[cause].astype("string").array,
        "low": low,
        "high": high,
        "begin_ns": begin_ns,
        "end_ns": end_ns,
        "sure": np.ones(len(rows), bool) if sure is None else sure,
        "still": rows["zombie_open"].to_numpy(bool),
        "complete": rows["complete"].to_numpy(bool),
    }
    return pd.DataFrame(columns)


def _sure_at_once(table: pd.DataFrame, group: Ints, groups: int) -> Floats:
    """How many of each group were zombies at once; each counts while it certainly was one."""
    sure = table["sure"].to_numpy()
    rows = table[sure]
    return most_at_once(group[sure], rows["begin_ns"].to_numpy(), rows["low"].to_numpy(), groups).astype(np.float64)


def _perhaps_at_once(table: pd.DataFrame, group: Ints, groups: int) -> Floats:
    """How many of each group may have been zombies at once; one whose end is not known counts to the end of the recording."""
    if table.empty:
        return np.zeros(groups)
    end_ns, high = table["end_ns"].to_numpy(), table["high"].to_numpy()
    endless = np.isinf(high)
    longest_ns = np.rint(np.where(endless, 0, high) * 1e6).astype(np.int64)
    begin_ns: Ints = np.where(endless, table["begin_ns"].to_numpy(), end_ns - longest_ns)
    lasting_ms = (np.where(endless, end_ns.max() + 1, end_ns) - begin_ns) / 1e6
    return most_at_once(group, begin_ns, lasting_ms, groups).astype(np.float64)


_MAKERS: Final[Mapping[str, Callable[[Recording], pd.DataFrame]]] = {
    "max-zombie": _zombies,
    "max-unreaped": _unreaped,
    "max-zombies": _zombies,
    "max-stolen": _stolen,
    "max-failed-forks": _failed_forks,
    "max-orphans": _orphans,
    "max-zombie-seconds": _zombies,
    "max-running": _running,
}
_HARMLESS: Final[Mapping[str, frozenset[str]]] = {"max-stolen": _WITHOUT_THEFTS, "max-failed-forks": _WITHOUT_FAILURES}
