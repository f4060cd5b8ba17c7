"""What the commands report and why say, as JSON: the same sentences, and beside them the facts that these are made of."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import pandas as pd

from forktrace.analysis.causes.names import Names
from forktrace.analysis.recording import Recording
from forktrace.views.findings import Facts, Finding
from forktrace.views.formats.documents import about, plain, written
from forktrace.views.formats.export import records
from forktrace.views.problems import explaining
from forktrace.views.text import report as words
from forktrace.views.text.screen import Grid
from forktrace.views.text.why import NO_ZOMBIE, most_harm
from forktrace.views.why.chain import Chains
from forktrace.views.why.happened import EVENTS
from forktrace.views.why.sentences import ChainLine
from forktrace.views.zombies import zombies_in

SECTIONS: Final = (
    *("stolen", "lost_statuses", "late_waits", "open_waits", "unreaped", "orphans", "failed_forks", "reaped", "zombies"),
    *("causes", "reapers", "starts", "killed"),
)
_OF_TARGET: Final = ("id", "pid", "run_ms", "exit_code", "term_signal", "core_dumped", "state")
_OF_PROCESS: Final[Mapping[str, tuple[Callable[[Recording], pd.DataFrame], str]]] = {  # the table, and its column for whom
    "starts": (Recording.starts, "start_id"),
    "signals": (Recording.signals, "id"),
    "failed_forks": (Recording.failed_forks, "id"),
    "late_waits": (Recording.late_waits, "child_id"),
    "stolen": (Recording.stolen, "id"),
    "orphans": (Recording.orphans, "id"),
}


def report(recording: Recording) -> str:
    """Return what `forktrace report` says."""
    found = {one.name: one.content for one in words.sections(recording)}
    names = Names(recording.whole.lifecycles(), recording.header["recorder_pid"], marks=False)
    selected = recording.selected
    document = {
        **about(recording, "report"),
        "summary": [line.plain for line in words.summary(recording)],
        "processes": len(recording.whole.lifecycles()),
        "recorded_ms": (recording.end_ns - recording.start_ns) / 1e6,
        "target": _target(recording),
        "part": {"since_ns": selected.since_ns, "until_ns": selected.until_ns, "processes": len(recording.lifecycles())},
        "lost": dict(recording.lost()),
        "cut": recording.cut or None,
        "max_size": recording.full or None,
        "figures": _plain(words.figures(recording)._asdict()),
        **{name: [_explained(recording, names, one) for one in _entries(found.get(name, ()))] for name in SECTIONS},
        "doubts": [one["text"] for one in _entries(found.get("doubts", ()))],
    }
    return written(document)


def _target(recording: Recording) -> dict[str, Any] | None:
    table = recording.whole.lifecycles()
    found = records(table.loc[table["origin"] == "target", list(_OF_TARGET)])
    return found[0] if found else None


def _entries(content: Any) -> Iterator[dict[str, Any]]:
    """What a section says, one for each sentence or row."""
    if isinstance(content, Grid):
        yield from map(_plain, content.facts)
    else:
        yield from (_sentence(one) for one in content)


def _sentence(one: Finding) -> dict[str, Any]:
    return {**_plain(one.facts), "text": one.text.plain}


def _plain(facts: Facts) -> dict[str, Any]:
    return {name: plain(value) for name, value in facts.items()}


def _explained(recording: Recording, names: Names, entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with the command that explains its process, where it names one."""
    known = entry.get("id") is not None
    return {**entry, "explain": explaining(recording, entry["id"], names)} if known else entry


def why(recording: Recording, process: int | None) -> str:
    """Return what `forktrace why` says of a process; None: of the one to look at first."""
    chosen = most_harm(recording) if process is None else process
    document = {**about(recording, "why"), **(_nothing() if chosen is None else _process(recording, chosen))}
    return written({**document, "zombies": zombies_in(recording)})


def _nothing() -> dict[str, Any]:
    return {"summary": NO_ZOMBIE, "process": None, "lines": [], "tables": {}}


def _process(recording: Recording, process: int) -> dict[str, Any]:
    row = recording.whole.lifecycles().loc[[process]]
    headline, *told = Chains(recording, row).lines_by_section(0)
    return {
        "summary": headline.line.text,
        "process": records(row)[0],
        "lines": list(_lines(recording, told)),
        "tables": {name: _rows(recording, process, *where) for name, where in _OF_PROCESS.items()},
    }


def _lines(recording: Recording, told: list[ChainLine]) -> Iterator[dict[str, Any]]:
    """The lines of the chain; `kind` is the section of an event, else the word in front, which the lines below share."""
    kind = ""
    for section, since_ns, (mark, text, source, _) in told:
        kind = section if section in EVENTS else mark or kind
        known = section in EVENTS and mark and not math.isnan(since_ns)
        time_ns = recording.start_ns + int(since_ns) if known else None
        words = re.sub(r"^(\w+) +", r"\1 ", text) if section in EVENTS else text.removeprefix("- ")
        yield {"kind": kind, "time_ns": time_ns, "text": words, "source": source}


def _rows(recording: Recording, process: int, table: Callable[[Recording], pd.DataFrame], column: str) -> list[dict[str, Any]]:
    rows = table(recording.whole)
    return records(rows[(rows[column] == process).fillna(False)])
