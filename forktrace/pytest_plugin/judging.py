"""What each test left behind, by the trace of the session: the processes below its own that were forked while it ran."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console

from forktrace.analysis.gate.figures import missing
from forktrace.analysis.gate.limits import BY_NAME, Limit, parse
from forktrace.analysis.gate.verdict import HOLDS, judge
from forktrace.analysis.recording import read
from forktrace.analysis.selection import descendants
from forktrace.pytest_plugin.limits import Left, broken_counts
from forktrace.views.problems import measured, over
from forktrace.views.text.why import why

WIDTH = 100  # of a report section
_HELPERS = r"multiprocessing\.(?:resource_tracker|forkserver)\b"


class Behind(NamedTuple):
    """The processes of a test, by id; which of them were zombies or ran at its end; the longest zombie, and for how long."""

    ids: npt.NDArray[np.int64]
    unreaped: list[int]
    running: list[int]
    worst: int | None
    longest_ms: float


class Judge:
    """Reads the trace of a session once, and answers for each test.

    Raises:
        TraceError: the trace cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._recording = read(path)
        self._table = self._recording.lifecycles()
        self._below: dict[int, npt.NDArray[np.int64]] = {}

    def left(self, pid: int, begin_ns: int, end_ns: int) -> Behind:
        """Return what the processes below `pid` were at the end of a test that it ran."""
        rows = self._table.loc[self._descendants(pid, begin_ns)]
        rows = rows[rows["fork_ns"].between(begin_ns, end_ns)]
        gone = _by(rows["reap_ns"], end_ns) | ((rows["state"] == "gone") & rows["reap_ns"].isna())
        zombie = _by(rows["zombie_ns"], end_ns) & ~gone
        running = ~_by(rows["exit_ns"], end_ns) & ~gone & ~zombie & ~_is_helper(rows)
        lasted = rows["zombie_ms"].dropna()
        worst = None if lasted.empty else int(rows["id"].to_numpy()[np.nanargmax(rows["zombie_ms"])])
        ids = rows["id"].to_numpy()
        longest_ms = 0.0 if worst is None else float(lasted.max())
        return Behind(ids, rows.loc[zombie, "id"].tolist(), rows.loc[running, "id"].tolist(), worst, longest_ms)

    def _descendants(self, pid: int, begin_ns: int) -> npt.NDArray[np.int64]:
        there = self._table[(self._table["pid"] == pid) & (self._table["fork_ns"] <= begin_ns)]
        if there.empty:
            raise LookupError(f"process {pid}, which ran a test, is not in the recording")
        process = int(there["id"].iloc[-1])
        if process not in self._below:
            below = descendants(self._table, process)
            self._below[process] = below[below != process]
        return self._below[process]

    def broken(self, left: Behind, limits: Left) -> list[str]:
        """Return what is beyond the limits, or cannot be told, in words."""
        found = broken_counts(limits, len(left.unreaped), len(left.running))
        named: list[Limit] = []
        named += [] if limits.max_ms is None else [parse("max-zombie", f"{limits.max_ms}ms")]
        named += [] if limits.stolen is None else [parse("max-stolen", limits.stolen)]
        if not found and (limits.unreaped is not None or limits.running is not None):
            found += [f"cannot be told: {one}" for one in missing(self._recording, BY_NAME["max-unreaped"])]
        for one in judge(self._recording.part(left.ids), named).outcomes:
            if one.state != HOLDS:
                words = ", ".join(filter(None, [measured(one), over(one)]))
                found.append(f"{one.limit.text}: {words}{'; cannot be told: ' * (not over(one))}{'; '.join(one.missing)}")
        return found

    def why(self, process: int) -> str:
        """Return what `forktrace why` says of a process."""
        page = io.StringIO()
        why(self._recording, process, Console(file=page, width=WIDTH))
        return page.getvalue()


def _by(times_ns: Any, end_ns: int) -> Any:
    """Whether a moment came until `end_ns`."""
    return (times_ns <= end_ns).fillna(False).astype(bool)


def _is_helper(rows: pd.DataFrame) -> Any:
    """Helpers of multiprocessing, one for all tests to come."""
    return rows["argv"].str.contains(_HELPERS).fillna(False).astype(bool)
