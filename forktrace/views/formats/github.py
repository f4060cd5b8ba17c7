"""The verdict of a check for GitHub Actions: errors at the lines of the change, and the rest in the summary of the step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from forktrace.analysis.causes.names import printable
from forktrace.analysis.gate.verdict import BROKEN, HOLDS, UNKNOWN, Verdict
from forktrace.analysis.recording import Recording
from forktrace.views.formats.places import Places
from forktrace.views.problems import Problem, headline, measured, over, problems

MOST_ERRORS: Final = 10  # that GitHub shows of a step
_STATES: Final = {BROKEN: "**broken**", UNKNOWN: "**cannot tell**", HOLDS: "holds"}


def errors(recording: Recording, verdict: Verdict, places: Places) -> Iterator[str]:
    """Yield the workflow commands, the worst first; of limits that cannot be told one each, without a line."""
    unknown = [one for one in verdict.outcomes if one.state == UNKNOWN]
    room = max(MOST_ERRORS - len(unknown), 1)
    for one in list(problems(recording, verdict))[:room]:
        yield _error(_where(one, places), f"forktrace: {one.finding.limit.text}", f"{one.text}\n{one.command}")
    for outcome in unknown:
        yield _error({}, f"forktrace: {outcome.limit.text}", f"cannot tell: {'; '.join(outcome.missing)}")


def summary(recording: Recording, verdict: Verdict) -> str:
    """Return all of it in Markdown, for the summary of the step."""
    lines = [f"### forktrace check: {headline(verdict)}", "", "| limit | | measured |", "|---|---|---|"]
    for one in verdict.outcomes:
        figures = "; ".join(filter(None, [measured(one), over(one), *one.missing]))
        lines.append(f"| {cell(one.limit.text)} | {_STATES[one.state]} | {cell(figures)} |")
    found = list(problems(recording, verdict))
    lines += ["", "| limit | what breaks it | explained by |", "|---|---|---|"] if found else []
    lines += [f"| {cell(one.finding.limit.text)} | {cell(one.text)} | <code>{cell(one.command)}</code> |" for one in found]
    return "\n".join([*lines, ""])


def _where(one: Problem, places: Places) -> dict[str, str]:
    place = places.of_site(one.finding.site)
    if place is None or not place.inside:
        return {}
    return {"file": place.path} | ({"line": str(place.line)} if place.line else {})


def _error(where: dict[str, str], title: str, message: str) -> str:
    """A workflow command; what would end it, or begin another, is escaped as GitHub's toolkit does."""
    properties = ",".join(f"{name}={_property(value)}" for name, value in (where | {"title": title}).items())
    lines = "\n".join(printable(line) for line in message.split("\n"))
    return f"::error {properties}::{_data(lines)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(printable(text)).replace(":", "%3A").replace(",", "%2C")


def cell(text: str) -> str:
    """Return a text for a cell of a Markdown table, in which nothing is markup."""
    safe = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"&#{ord(one)};" if one in "|\\`*_[]{}#!~@" else one for one in safe)
