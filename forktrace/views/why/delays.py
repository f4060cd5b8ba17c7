"""Why a wait that began in time reaped its child late."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import pandas as pd

from forktrace.analysis.recording import Call, Recording
from forktrace.analysis.tables.remarks import PARENT_STOPPED
from forktrace.trace.words import NOTICEABLE_MS

_STOPS: Final = ("SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU")
_RUN: Final = ("run", "call", "check_call", "check_output", "getstatusoutput")
_PAUSE_MS: Final = 50 + NOTICEABLE_MS  # of subprocess between two looks, when it waits with a timeout (subprocess.py, `_wait`)


def delays(recording: Recording, table: pd.DataFrame) -> pd.Series:
    """Return why the reap of each row of lifecycles was late, a name of `explanations.delay`; "": the wait came only then."""
    polls = table["reap_options"].str.contains(r"\bWNOHANG\b").fillna(False).astype(bool)
    waits = table["reap_target"].notna() & ~polls
    by_subprocess = (table["reap_cause"] == "subprocess-wait").fillna(False)
    communicates = by_subprocess & table["reap_stack"].isin(_communicating(recording, table.loc[by_subprocess, "reap_stack"]))
    held_up = table["id"].isin(_held_up(recording))
    told = {
        "watched": table["id"].isin(_watched(recording)),
        "stopped": _was_stopped(recording, table),
        "waited": waits & table["awaited"].fillna(False),
        "held-up": communicates & held_up,
        "runs": by_subprocess & waits & table["reap_stack"].isin(_running(recording, table.loc[by_subprocess, "reap_stack"])),
        "pipes": communicates,
        "pauses": by_subprocess & polls & (table["zombie_ms"] <= _PAUSE_MS),
        "unknown": waits & table["awaited"].isna(),
    }
    conditions = [one.to_numpy(bool, na_value=False) for one in told.values()]
    return pd.Series(np.select(conditions, [*told], ""), table.index, dtype="str")


def _watched(recording: Recording) -> pd.Series:
    """The processes that somebody still waits for by reading a pipe to its end."""
    table = recording.whole.open_waits()
    reads = table["call"].isna() & table["stack"].str.contains("communicate", regex=False).fillna(False)
    return table.loc[reads & table["child_id"].notna(), "child_id"]


def _was_stopped(recording: Recording, table: pd.DataFrame) -> pd.Series:
    """Whether the parent of each was stopped as it ended, or between that and the reap."""
    so = table["notes"].str.contains(PARENT_STOPPED, regex=False).fillna(False).astype(bool)
    for parent, group in _stopping(recording).groupby("id"):
        time_ns = np.sort(group["time_ns"].to_numpy())
        mine = (_last_parent(table) == parent).fillna(False) & table["zombie_ns"].notna()
        begin_ns = table.loc[mine, "zombie_ns"].to_numpy(np.int64)
        gone_ns = table.loc[mine, "reap_ns"].fillna(recording.end_ns).to_numpy(np.int64)
        so[mine] |= np.searchsorted(time_ns, begin_ns) < np.searchsorted(time_ns, gone_ns, "right")
    return so


def stops(recording: Recording, row: Any) -> pd.DataFrame:
    """Return the rows of signals that stopped the last parent of a process while it was a zombie."""
    table = _stopping(recording)
    parent = row.parent_id if pd.isna(row.adopter_pid) else row.adopter_id
    until_ns = recording.end_ns if pd.isna(row.reap_ns) else row.reap_ns
    if pd.isna(parent) or pd.isna(row.zombie_ns):
        return table[:0]
    then: pd.DataFrame = table[(table["id"] == parent) & table["time_ns"].between(row.zombie_ns, until_ns).to_numpy(bool)]
    return then


def _stopping(recording: Recording) -> pd.DataFrame:
    table = recording.whole.signals()
    return table[table["signal"].isin(_STOPS).to_numpy(bool) & table["id"].notna()]


def _last_parent(table: pd.DataFrame) -> pd.Series:
    return table["parent_id"].where(table["adopter_pid"].isna(), table["adopter_id"])


def _communicating(recording: Recording, stacks: pd.Series) -> list[str]:
    """Those of the stacks on which subprocess reads pipes to their end before it waits."""
    return _stacks_with(recording, stacks, ("communicate",))


def _running(recording: Recording, stacks: pd.Series) -> list[str]:
    """Those on which one function both starts a command and waits for it."""
    return _stacks_with(recording, stacks, _RUN)


def _stacks_with(recording: Recording, stacks: pd.Series, functions: Collection[str]) -> list[str]:
    """Those on which one of these functions of subprocess is."""
    return [one for one in stacks.dropna().unique() if any(_is_one_of(functions, call) for call in recording.calls(one))]


def _is_one_of(functions: Collection[str], call: Call) -> bool:
    return call.frame.name in functions and call.home != "own" and call.module.rpartition("/")[2] == "subprocess.py"


def _held_up(recording: Recording) -> pd.Series:
    """The processes of which a descendant ended just as they were reaped: it probably held their pipes open.

    Before or after the reap: a program may close them itself, on its way out.
    """
    table = recording.whole.lifecycles()
    left = table[table["parent_id"].notna() & table["exit_ns"].notna()]
    parents = table.loc[left["parent_id"].to_numpy(np.int64)]
    known = (left["exit_ns"], parents["zombie_ns"], parents["reap_ns"])
    ended_ns, zombie_ns, reap_ns = (one.reset_index(drop=True) for one in known)
    so = (ended_ns > zombie_ns) & ((ended_ns - reap_ns).abs() < _PAUSE_MS * 1e6)
    return parents["id"].reset_index(drop=True)[so.fillna(False).to_numpy(bool)]
