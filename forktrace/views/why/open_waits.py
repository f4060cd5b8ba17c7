"""Waits that never returned a child, in words: who waited for whom, since when, and what ended the wait."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

import pandas as pd
from rich.text import Text

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.recording import Recording
from forktrace.trace.words import count, duration
from forktrace.views.findings import Finding, of_processes
from forktrace.views.why.calls import calls_of

MOST_LINES: Final = 5
_UNTIL: Final = {
    "recording": "still when the recording ended",
    "killed": "until it was killed",
    "interrupted": "until a signal interrupted it",
}


def lines(recording: Recording, names: Names) -> Iterator[Finding]:
    """Yield who waited for whom: first the waits that were open when the recording ended, the longest first."""
    table = recording.open_waits()
    lasted = table["time_ns"] - table["since_ns"].fillna(0)
    table = table.assign(lasted=lasted).sort_values(["until", "lasted"], ascending=[True, False], kind="stable")
    first: Iterator[Any] = table.head(MOST_LINES).itertuples()
    for row in first:
        who = thread(row, names)
        whom = f"{who} waited for {_whom(row, names)}{place(recording, row)}"
        text = Text(f"{whom}, {since(recording, row)}, {_UNTIL[str(row.until)]}.")
        yield Finding(text, of_processes([_meant(row)], waiter_id=row.id, wait_site=row.site))
    rest: list[Any] = list(table[MOST_LINES:].itertuples())
    if rest:
        text = Text(f"{count(len(rest), 'more wait')} in the table of `forktrace export --table open_waits`.")
        yield Finding(text, of_processes(map(_meant, rest)))


def _meant(row: Any) -> int:
    """Whom a wait is about: the child, where it is known."""
    return int(row.id if pd.isna(row.child_id) else row.child_id)


def thread(row: Any, names: Names) -> str:
    """Return the thread that waited: `4700 python`, `thread 4702 of 4700 python`."""
    who = names.full(int(row.id))
    return who if pd.isna(row.tid) or str(row.tid) == names.pid(int(row.id)).partition("#")[0] else f"thread {row.tid} of {who}"


def _whom(row: Any, names: Names) -> str:
    if not pd.isna(row.child_id):
        return names.full(int(row.child_id))
    return "any child" if row.target == "any" else "a child"


def place(recording: Recording, row: Any) -> str:
    """Return where it waited: ` at app.py:9 main > Process.join`."""
    if pd.isna(row.site):
        return "" if pd.isna(row.call) else f" with {row.call}"
    calls = calls_of(row.site, recording.calls(row.stack))[1][:1]
    return " at " + " > ".join([printable(str(row.site)), *calls])


def since(recording: Recording, row: Any) -> str:
    """Return for how long: `for about 5.000 s (since +0.104)`."""
    if pd.isna(row.since_ns):
        return "since when is not known"
    most, later = ("about", "") if row.since == "about" else ("at most", " or later")
    began = (int(row.since_ns) - recording.start_ns) / 1e9
    return f"for {most} {duration((row.time_ns - row.since_ns) / 1e6)} (since {began:+.3f}{later})"


def told(recording: Recording, names: Names) -> dict[int, list[tuple[int, str, Any]]]:
    """Return the lines about each process, by id: when, the words, and the site; of its own waits, and of those for it."""
    found: dict[int, list[tuple[int, str, Any]]] = defaultdict(list)
    table = recording.open_waits()
    each: Iterator[Any] = table.itertuples()
    for row in each:
        rest = f"{place(recording, row)}, {since(recording, row)}, {_UNTIL[str(row.until)]}"
        moment_ns = int(row.time_ns if pd.isna(row.since_ns) else row.since_ns)
        found[int(row.id)].append((moment_ns, f"waits   for {_whom(row, names)}{rest}", row.site))
        if not pd.isna(row.child_id):
            found[int(row.child_id)].append((moment_ns, f"awaited by {thread(row, names)}{rest}", row.site))
    return {ident: several[:MOST_LINES] for ident, several in found.items()}
