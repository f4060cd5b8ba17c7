"""What would help against a zombie: chosen by what made it, by what the program does already, and by whose line it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd

from forktrace.analysis.causes.names import printable
from forktrace.analysis.causes.sites import Libraries, Owner, package_of
from forktrace.analysis.recording import Call
from forktrace.views import explanations
from forktrace.views.explanations import Cause
from forktrace.views.why.calls import is_at
from forktrace.views.why.sentences import Line

ASIDE = "nothing in the program: {} belongs to multiprocessing, which starts it and ends it by itself"


class Case(NamedTuple):
    """What the choice depends on.

    Attributes:
        made: what made the child, one of `created_by`
        orphan: its parent ended first
        left: who inherited it reaps no orphans
        inside: who reaped it, or has it now, is one of the recording
        nohang: it was reaped by a call with WNOHANG
        handles: its parent had a handler of SIGCHLD
        held: it was a zombie for long while its parent, a process of the recording, was there
    """

    made: str
    orphan: bool = False
    left: bool = False
    inside: bool = True
    nohang: bool = False
    handles: bool = False
    held: bool = False


def chosen(cause: Cause, case: Case) -> tuple[Sequence[str], str]:
    """Return the names of the remedies that help, and at which line: `fork` or `reap`."""
    if case.left:
        return explanations.creator("orphan").fix, "fork"
    if case.orphan and case.inside and cause.fix_inside:
        return cause.fix_inside, "reap"
    if case.orphan and cause.fix is None and (case.inside or not case.held):
        return (explanations.creator("orphan").fix if case.inside else ["parent-waits"]), "fork"
    names = cause.fix_of.get(case.made, explanations.creator(case.made).fix if cause.fix is None else cause.fix)
    names = cause.fix_nohang if case.nohang and cause.fix_nohang else names
    return [name for name in names if not (case.handles and name == "sigchld")], cause.at


def package_at(site: Any, calls: Sequence[Call], own: Owner) -> str:
    """Return the installed package in whose file a site lies; "" where it is a line of the user's own or the library's.

    Whose line it is to mend goes by where the file lies, also where an entry point makes the package the program.
    """
    if pd.isna(site):
        return ""
    frame = next((call.frame for call in reversed(calls) if is_at(call.frame, site)), None)
    place = Libraries({}).place(frame.file) if frame else None
    if frame is None or place is None or place.home != "packages" or own.owns(frame.file, place):
        return ""
    return package_of(place)


def package_lines(package: str, site: str) -> Iterator[Line]:
    """Yield that a line is not the user's to mend, and what the user can set."""
    yield Line("fix", f"{printable(site).rpartition(' ')[0]} is a line of {printable(package)}: it is for its authors to mend")
    if known := explanations.package(package):
        yield Line("", f"you can: {known}")


def fix_lines(remedies: list[str], site: Any, unless: str = "") -> Iterator[Line]:
    """What would help, and the line to change; `unless`: when nothing is needed."""
    where = "" if pd.isna(site) else printable(site).rpartition(" ")[0]
    heads = [one for one in (where, unless and f"{unless}; else") if one]
    if len(remedies) == 1:
        yield Line("fix", f"{', '.join(heads)}: {remedies[0]}" if heads else remedies[0])
    elif remedies:
        yield Line("fix", f"{', '.join(heads)}{' ' if unless else ', ' if where else ''}one of:")
        yield from (Line("", f"- {each}") for each in remedies)


def after_theft(site: Any, words: dict[str, str]) -> Iterator[Line]:
    """What would help against a stolen exit status, at the line that took it."""
    return fix_lines([explanations.remedy(each, **words) for each in ("own-children", "leave-it")], site)


def none_needed(cause: Cause) -> Line:
    """Return that nothing has to change."""
    return Line("fix", f"none needed: it was reaped at once{', by luck' if cause.accident else ''}")
