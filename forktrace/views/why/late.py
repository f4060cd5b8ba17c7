"""What is said of waits for a child that was gone already: exit statuses that nobody got, and waits that came too late."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pandas as pd
from rich.text import Text

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.once import once
from forktrace.analysis.recording import Recording
from forktrace.trace.words import count
from forktrace.views import explanations
from forktrace.views.findings import Finding, of_processes
from forktrace.views.words import some

MOST_LINES: Final = 3  # of each kind
_UNASKED: Final = "not asked"  # a sweep of all children: no line of the program waited
_IGNORES: Final = {"ignored": "ignores SIGCHLD", "nocldwait": "set SA_NOCLDWAIT"}


@once
def asked(recording: Recording) -> pd.DataFrame:
    """Return the waits that a line of the program made too late, with how their child ended; not those of stolen statuses."""
    table = recording.late_waits()
    table = table[(table["seen"] != _UNASKED) & ~table["child_id"].isin(recording.stolen()["id"])]
    ends = recording.whole.lifecycles()[["exit_code", "term_signal", "reap_call", "reap_cause", "reap_site"]]
    found = table.join(ends, on="child_id").astype({"reap_call": "string", "reap_cause": "string"})
    return found.assign(lost=(found["reap_call"] == "autoreap").fillna(False), failed=_failed(found))


def _failed(table: pd.DataFrame) -> pd.Series:
    """Which children ended by a signal, or with an exit code that is not 0."""
    return table["term_signal"].notna() | (table["exit_code"] != 0).fillna(False)


def got(seen: Any) -> str:
    """Return what a line got for a child that was gone: `returncode 0, whatever it was`."""
    return printable(str(explanations.texts()["seen"].get(seen, seen)))


def lost_statuses(recording: Recording, names: Names) -> Iterator[Finding]:
    """Yield whose exit status nobody got since SIGCHLD is ignored, by the line that waited; the failed first."""
    return _lines(asked(recording).query("lost"), names, "red")


def late_lines(recording: Recording, names: Names) -> Iterator[Finding]:
    """Yield which lines waited for a child that something else had reaped."""
    return _lines(asked(recording).query("not lost"), names, "")


def _lines(table: pd.DataFrame, names: Names, style: str) -> Iterator[Finding]:
    key = ["id", "site", "seen", "reap_cause", "reap_site"]
    groups = [group.drop_duplicates("child_id") for _, group in table.groupby(key, dropna=False, observed=True, sort=False)]
    groups.sort(key=lambda group: (-int(group["failed"].sum()), -len(group)))
    for group in groups[:MOST_LINES]:
        first: Any = next(group.itertuples())
        line = names.of(first.id, pd.NA, full=True) if pd.isna(first.site) else printable(str(first.site))
        words = f"{line} waited for {_children(group, names)}, and got {got(first.seen)}: {_reason(first, names)}."
        facts = {"cause": first.reap_cause, "reap_site": first.reap_site, "failed": int(group["failed"].sum())}
        waiter = {"waiter_id": first.id, "wait_site": first.site, "seen": first.seen}
        yield Finding(Text(words, style), of_processes(group["child_id"].tolist(), **facts, **waiter))
    if rest := groups[MOST_LINES:]:
        text = Text(f"{count(len(rest), 'more line')} in the table of `forktrace export --table late_waits`.")
        yield Finding(text, of_processes(pd.concat(rest)["child_id"].tolist()))


def _children(group: pd.DataFrame, names: Names) -> str:
    """`4711, which exited 3`, or `4711, 4712 and 4713, of which 2 failed`."""
    who, failed = some([names.pid(one) for one in group["child_id"].head(4)], len(group)), int(group["failed"].sum())
    if not failed:
        return who
    return f"{who}, of which {failed:,} failed" if len(group) > 1 else f"{who}, which {ended(next(group.itertuples()))}"


def ended(row: Any) -> str:
    """Return how a process ended: `exited 3`, `was killed by SIGKILL`."""
    return f"exited {row.exit_code}" if pd.isna(row.term_signal) else f"was killed by {row.term_signal}"


def _reason(row: Any, names: Names) -> str:
    """Why the child was gone."""
    if row.lost:
        return f"{names.of(row.id, pd.NA, full=True)} {_IGNORES.get(str(row.reap_cause).removeprefix('autoreap-'), '?')}"
    return f"it had been reaped{'' if pd.isna(row.reap_site) else f' at {printable(str(row.reap_site))}'}"
