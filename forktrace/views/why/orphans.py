"""What is said of orphans that nobody reaps: the finding `adopter-not-init`, for the report and for `why`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import pandas as pd
from rich.text import Text

from forktrace.analysis.causes.names import Names
from forktrace.analysis.recording import Recording
from forktrace.trace.words import count, duration
from forktrace.views import explanations
from forktrace.views.findings import Facts, Finding, of_processes

NAME: Final = "adopter-not-init"
MOST_ADOPTERS: Final = 3


class Adopter(NamedTuple):
    """One who inherits orphans and does not reap them: `id` may be `<NA>`; `orphans` are the ids of those that it left."""

    id: Any
    name: str
    text: str
    orphans: list[int]
    facts: Facts


def adopters(recording: Recording, names: Names) -> Iterator[Adopter]:
    """Yield them, those with the most orphans left first."""
    table = recording.orphans()
    found = table[table["finding"].notna()]
    of = table.groupby(["adopter_pid", "adopter_id"], dropna=False)
    groups = found.groupby(["adopter_pid", "adopter_id"], dropna=False, sort=False)
    for (pid, ident), left in sorted(groups, key=lambda one: -len(one[1])):
        whole = of.get_group((pid, ident))
        inherited, reaped = whole["id"].nunique(), int((whole["outcome"] == "reaped").sum())
        text, orphans = _text(recording, names, left, inherited, reaped), left["id"].tolist()
        who = {"adopter_id": ident, "adopter_pid": pid, "inherited": inherited, "reaped": reaped}
        facts = of_processes(orphans, finding=NAME, max_ms=left["zombie_ms"].max(), **who)
        yield Adopter(ident, names.of(ident, pid), text, orphans, facts)


def _text(recording: Recording, names: Names, left: pd.DataFrame, inherited: int, reaped: int) -> str:
    """`4700 python, PID 1 of its namespace, inherited 6 orphans and reaped none: 6 zombies, the longest for 1.433 s`."""
    first = next(left.itertuples())
    who = names.of(first.adopter_id, first.adopter_pid, full=True)
    longest = f"{'the longest ' if len(left) > 1 else ''}for {duration(left['zombie_ms'].max())}"
    did = f"inherited {count(inherited, 'orphan')} and reaped {f'{reaped:,} of them' if reaped else 'none'}"
    role = _role(recording, first.adopter_id, first.adopter_pid)
    return f"{who}, {role}, {did}: {count(len(left), 'zombie')}, {longest}"


def _role(recording: Recording, ident: Any, pid: Any) -> str:
    """Why orphans are reparented to it."""
    number = pid if pd.isna(ident) else recording.whole.lifecycles().at[int(ident), "ns_pid"]
    return "PID 1 of its namespace" if number == 1 else "a subreaper"


def lines(recording: Recording, names: Names) -> Iterator[Finding]:
    """Yield what the report says: who does not reap its orphans, what helps, and what makes it worse."""
    found = list(adopters(recording, names))
    for one in found[:MOST_ADOPTERS]:
        yield Finding(Text(f"{one.text} ({NAME}).", "red"), one.facts)
    if rest := found[MOST_ADOPTERS:]:
        text = Text(f"{count(len(rest), 'more adopter')} in the table of `forktrace export --table orphans`.")
        yield Finding(text, of_processes(orphan for one in rest for orphan in one.orphans))
    if found:
        yield from (Finding(Text(f"{text[0].upper()}{text[1:]}.")) for text in texts().values())


def texts() -> Mapping[str, str]:
    """Return what is said of the finding, whoever it is about."""
    found: Mapping[str, str] = explanations.texts()["finding"][NAME]
    return found
