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

NAME: Final = "adopter-not-init"
MOST_ADOPTERS: Final = 3


class Adopter(NamedTuple):
    """One who inherits orphans and does not reap them: `id` may be `<NA>`; `orphans` are the ids of those that it left."""

    id: Any
    name: str
    text: str
    orphans: list[int]


def adopters(recording: Recording, names: Names) -> Iterator[Adopter]:
    """Yield them, those with the most orphans left first."""
    table = recording.orphans()
    found = table[table["finding"].notna()]
    of = table.groupby(["adopter_pid", "adopter_id"], dropna=False)
    groups = found.groupby(["adopter_pid", "adopter_id"], dropna=False, sort=False)
    for (pid, ident), left in sorted(groups, key=lambda one: -len(one[1])):
        whole = of.get_group((pid, ident))
        yield Adopter(ident, names.of(ident, pid), _text(recording, names, whole, left), left["id"].tolist())


def _text(recording: Recording, names: Names, whole: pd.DataFrame, left: pd.DataFrame) -> str:
    """`4700 python, PID 1 of its namespace, inherited 6 orphans and reaped none: 6 zombies, the longest for 1.433 s`."""
    first = next(left.itertuples())
    reaped = int((whole["outcome"] == "reaped").sum())
    who = names.of(first.adopter_id, first.adopter_pid, full=True)
    longest = f"{'the longest ' if len(left) > 1 else ''}for {duration(left['zombie_ms'].max())}"
    inherited = f"inherited {count(whole['id'].nunique(), 'orphan')} and reaped {f'{reaped:,} of them' if reaped else 'none'}"
    role = _role(recording, first.adopter_id, first.adopter_pid)
    return f"{who}, {role}, {inherited}: {count(len(left), 'zombie')}, {longest}"


def _role(recording: Recording, ident: Any, pid: Any) -> str:
    """Why it is the one who inherits."""
    number = pid if pd.isna(ident) else recording.whole.lifecycles().at[int(ident), "ns_pid"]
    return "PID 1 of its namespace" if number == 1 else "a subreaper"


def lines(recording: Recording, names: Names) -> Iterator[Text]:
    """Yield what the report says: who does not reap its orphans, what helps, and what makes it worse."""
    found = list(adopters(recording, names))
    for one in found[:MOST_ADOPTERS]:
        yield Text(f"{one.text} ({NAME}).", "red")
    if len(found) > MOST_ADOPTERS:
        yield Text(f"{count(len(found) - MOST_ADOPTERS, 'more adopter')} in the table of `forktrace export --table orphans`.")
    if found:
        yield from (Text(f"{text[0].upper()}{text[1:]}.") for text in texts().values())


def texts() -> Mapping[str, str]:
    """Return what is said of the finding, whoever it is about."""
    found: Mapping[str, str] = explanations.texts()["finding"][NAME]
    return found
