"""The verdict of a check as JSON. docs/json.md describes the fields."""

from __future__ import annotations

from typing import Any

from forktrace.analysis.gate.verdict import Outcome, Verdict
from forktrace.analysis.recording import Recording
from forktrace.views.formats.documents import about, written
from forktrace.views.formats.places import Place, Places
from forktrace.views.problems import Problem, headline, problems


def document(recording: Recording, verdict: Verdict, places: Places) -> str:
    """Return the document; the words are those of the tables (docs/tables.md)."""
    found: dict[str, Any] = {
        **about(recording, "check"),
        "state": verdict.state,
        "exit_status": verdict.exit_status,
        "summary": headline(verdict),
        "limits": [_limit(one) for one in verdict.outcomes],
        "problems": [_problem(one, places) for one in problems(recording, verdict)],
        "allowed": [{"site": one.site, "reason": one.reason, "processes": number} for one, number in verdict.allowed],
        "remarks": list(verdict.remarks),
    }
    return written(found)


def _limit(one: Outcome) -> dict[str, Any]:
    return {
        "limit": one.limit.kind.name,
        "unit": one.limit.kind.unit,
        "most": one.limit.most,
        "measured": one.measured,
        "state": one.state,
        "missing": list(one.missing),
        "forgiven": one.forgiven,
    }


def _problem(one: Problem, places: Places) -> dict[str, Any]:
    found = one.finding
    return {
        "limit": found.limit.kind.name,
        "cause": found.cause,
        "processes": found.processes,
        "measured": found.measured,
        "id": found.id,
        "site": found.site,
        "place": _place(places.of_site(found.site)),
        "reap_site": found.reap_site,
        "reap_place": _place(places.of_site(found.reap_site)),
        "text": one.text,
        "explain": one.command,
    }


def _place(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else {"path": place.path, "line": place.line or None}
