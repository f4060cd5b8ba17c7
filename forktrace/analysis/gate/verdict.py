"""The verdict of a check: which limits hold, which are broken at which lines, and of which the recording cannot tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from forktrace.analysis.gate import sites
from forktrace.analysis.gate.figures import Forks, Items, figure, figures, missing
from forktrace.analysis.gate.limits import COUNT, Kind, Limit
from forktrace.analysis.log import Flags, Ints
from forktrace.analysis.recording import Recording
from forktrace.trace.words import count

HOLDS, BROKEN, UNKNOWN = "holds", "broken", "unknown"
STATUSES: Final = {HOLDS: 0, BROKEN: 1, UNKNOWN: 66}
LONGER: Final = 1.1  # a time counts as worse from this multiple of the baseline's on: no two runs take the same


class Allowance(NamedTuple):
    """A line or function whose processes no limit counts, and why."""

    site: str
    reason: str = ""


class Finding(NamedTuple):
    """Processes of one line and one cause that break a limit.

    Attributes:
        limit: which
        site, reap_site: the line that started them (a thief's or a failed fork's own); that reaped the worst of them
        cause: `reap_cause`, or `stolen` `running` `failed-fork EAGAIN`
        processes: how many; `measured`: what they come to by themselves, in the limit's unit
        id: the worst of them; None: not known
    """

    limit: Limit
    site: str | None
    reap_site: str | None
    cause: str | None
    processes: int
    measured: float
    id: int | None


@dataclass(frozen=True)
class Outcome:
    """What became of one limit; `measured` is at least so much. `missing`: why it cannot be told, or why it may be more."""

    limit: Limit
    state: str
    measured: float
    missing: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    forgiven: int = 0

    @property
    def over(self) -> float:
        """By which factor the limit is exceeded; of a limit of 0, by how much."""
        return self.measured / self.limit.most if self.limit.most else self.measured * 1e6


@dataclass(frozen=True)
class Verdict:
    """The outcomes, the broken first and among these the worst; how many processes each allowance excused; remarks."""

    outcomes: Sequence[Outcome]
    allowed: Sequence[tuple[Allowance, int]] = ()
    remarks: Sequence[str] = field(default=())

    @property
    def state(self) -> str:
        """`broken`, else `unknown`, else `holds`."""
        states = {one.state for one in self.outcomes}
        return next((state for state in (BROKEN, UNKNOWN) if state in states), HOLDS)

    @property
    def exit_status(self) -> int:
        """The exit status of `check`."""
        return STATUSES[self.state]

    @property
    def findings(self) -> list[Finding]:
        """All findings, the worst first."""
        return [finding for one in self.outcomes for finding in one.findings]


def judge(
    recording: Recording,
    limits: Sequence[Limit],
    allowances: Sequence[Allowance] = (),
    baseline: Recording | None = None,
) -> Verdict:
    """Hold a recording against limits. A limit that `baseline` breaks too counts where the recording is worse (docs/ci.md).

    Raises:
        TraceError: the events of a trace contradict each other.
    """
    allowed = _Allowed(allowances)
    new, old = Items(recording), None if baseline is None else Items(baseline)
    outcomes = [_outcome(limit, new, allowed, old) for limit in limits]
    outcomes.sort(key=lambda one: ((BROKEN, UNKNOWN, HOLDS).index(one.state), -one.over))
    remarks = [f"{one.site} is allowed, and names no process of this recording" for one, ids in allowed.ids.items() if not ids]
    if baseline is not None and baseline.lifecycles()["fork_site"].isna().all():
        remarks.append("the baseline has no lines, so nothing could be compared with it")
    return Verdict(outcomes, [(one, len(ids)) for one, ids in allowed.ids.items()], remarks)


class _Allowed:
    """What the allowances excuse; `ids` are the processes that each has excused so far."""

    def __init__(self, allowances: Iterable[Allowance]) -> None:
        self.ids: dict[Allowance, set[int]] = {one: set() for one in allowances}

    def without(self, made: Items, kind: Kind) -> pd.DataFrame:
        """Return the items that are left."""
        table = made.of(kind)
        found = np.zeros(len(table), bool)
        for one, ids in self.ids.items():
            mine = self._excuses(one, table, "exec" in made.recording.whole.lost())
            ids.update(table.loc[mine, "id"].dropna().tolist())
            found |= mine
        return table[~found]

    def _excuses(self, one: Allowance, table: pd.DataFrame, program_lost: bool) -> Flags:
        """Which items are excused: none whose line is not known, or may be an older program's."""
        good = {site for site in table["site"].dropna().unique() if sites.names(one.site, site)}
        excused: Flags = table["site"].isin(good).to_numpy(bool)
        return excused & (table["complete"].to_numpy(bool) | (not program_lost))


def _outcome(limit: Limit, new: Items, allowed: _Allowed, old: Items | None) -> Outcome:
    table, forgiven = allowed.without(new, limit.kind), 0
    if old is not None:
        worse = _worse(limit, table, new.forks, _Allowed(allowed.ids).without(old, limit.kind), old.forks)
        table, forgiven = table[worse], int((~worse).sum())
    least, most = figure(limit.kind, table, new.forks)
    lacking = missing(new.recording, limit.kind)
    if least > limit.most:
        return Outcome(limit, BROKEN, least, lacking, _findings(limit, table, new.forks), forgiven)
    if most > limit.most:
        lacking = [*lacking, _inexact(limit.kind, table, new.forks)]
    return Outcome(limit, UNKNOWN if lacking else HOLDS, least, lacking, (), forgiven)


def _inexact(kind: Kind, table: pd.DataFrame, forks: Forks) -> str:
    """What of the items is not known exactly, where that could break the limit."""
    if kind.name == "max-zombie-seconds" and not forks.least:
        return "the recording has no fork to relate the zombies to"
    doubtful = count(int((table["low"] < table["high"]).sum()), "process")
    if kind.name == "max-stolen":
        return f"without stacks it is not known whether the exit status of {doubtful} was stolen"
    return f"the trace does not know exactly how long {doubtful} had not been reaped"


def _worse(limit: Limit, table: pd.DataFrame, forks: Forks, before: pd.DataFrame, forks_before: Forks) -> Flags:
    """Which items count: all where the older recording keeps the limit, else those of functions that had less then."""
    if figure(limit.kind, before, forks_before)[0] <= limit.most:
        return np.ones(len(table), bool)
    group, functions = _functions(table)
    had_group, had_functions = _functions(before)
    had = np.stack(figures(limit.kind, before, had_group, len(had_functions) + 1, forks_before))
    has = np.stack(figures(limit.kind, table, group, len(functions) + 1, forks))
    then = sites.Functions(had_functions)
    tolerance = 1.0 if limit.kind.unit == COUNT else LONGER
    worse = np.ones(len(functions) + 1, bool)  # the last: lines that are not known
    for place, one in enumerate(functions):
        if same := then.matching(one):
            worse[place] = bool((has[:, place] > had[:, same].max(axis=1) * tolerance).any())
    return worse[group]


def _functions(table: pd.DataFrame) -> tuple[Ints, list[sites.Site]]:
    """Which function each item's line is in, an index into the list; the list's length where the line is not known."""
    codes, texts = pd.factorize(table["site"])
    functions: dict[sites.Site, int] = {}
    place = [functions.setdefault(sites.site_of(text)._replace(line=0), len(functions)) for text in texts]
    return np.array([*place, len(functions)], np.int64)[codes], list(functions)


def _findings(limit: Limit, table: pd.DataFrame, forks: Forks) -> list[Finding]:
    """One for each line and cause, the worst first; of a limit on each single process those that break it."""
    least = limit.most if limit.kind.name == "max-zombie" else 0.0
    table = table[table["low"] > least]
    group = table.groupby(["site", "cause"], dropna=False, sort=False).ngroup().to_numpy().astype(np.int64)
    sizes = np.bincount(group)
    measured, _ = figures(limit.kind, table, group, len(sizes), forks)
    worst = np.argsort(-table["low"].to_numpy(), kind="stable")
    first = worst[np.unique(group[worst], return_index=True)[1]]  # the longest of each group
    rows = zip(table.iloc[first].itertuples(), sizes.tolist(), measured.tolist(), strict=True)
    found = [_finding(limit, row, size, one) for row, size, one in rows if one > least]
    return sorted(found, key=lambda one: -one.measured)


def _finding(limit: Limit, row: Any, processes: int, measured: float) -> Finding:
    site, reap_site, cause = (_text(one) for one in (row.site, row.reap_site, row.cause))
    return Finding(limit, site, reap_site, cause, processes, measured, None if pd.isna(row.id) else int(row.id))


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)
