"""The verdict of a check as SARIF 2.1.0 (OASIS): a rule for each cause, a result for each line that breaks a limit."""

from __future__ import annotations

import json
from typing import Any, Final

import pandas as pd

from forktrace import __version__
from forktrace.analysis.gate.verdict import UNKNOWN, Verdict
from forktrace.analysis.recording import Recording
from forktrace.trace.words import duration, printable
from forktrace.views.formats.places import Place, Places
from forktrace.views.problems import Problem, headline, problems, rule_words

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT: Final = "SRCROOT"


def document(recording: Recording, verdict: Verdict, places: Places) -> str:
    """Return the log. Paths inside of the checkout are relative to `SRCROOT`."""
    found = list(problems(recording, verdict))
    rules = list(dict.fromkeys(one.rule for one in found))
    run = {
        "tool": {"driver": _driver(rules)},
        "originalUriBaseIds": {_ROOT: {"description": {"text": "the top of the checkout"}}},
        "invocations": [_invocation(verdict)],
        "results": [_result(recording, one, rules, places) for one in found],
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, allow_nan=False)


def _driver(rules: list[str]) -> dict[str, Any]:
    described = [{"id": rule, "shortDescription": {"text": rule_words(rule)}} for rule in rules]
    return {"name": "forktrace", "version": __version__, "rules": described}


def _invocation(verdict: Verdict) -> dict[str, Any]:
    """How the check itself went: what it could not tell is an error of its own."""
    unknown = [one for one in verdict.outcomes if one.state == UNKNOWN]
    notes = [f"{one.limit.text} cannot be told: {printable('; '.join(one.missing))}" for one in unknown]
    said: dict[str, Any] = {
        "executionSuccessful": not unknown,
        "exitCode": verdict.exit_status,
        "exitCodeDescription": headline(verdict),
    }
    if notes:
        said["toolExecutionNotifications"] = [{"level": "error", "message": {"text": one}} for one in notes]
    return said


def _result(recording: Recording, one: Problem, rules: list[str], places: Places) -> dict[str, Any]:
    fork, reap = places.of_site(one.finding.site), places.of_site(one.finding.reap_site)
    said: dict[str, Any] = {
        "ruleId": one.rule,
        "ruleIndex": rules.index(one.rule),
        "level": "error",
        "message": {"text": f"{one.text}. {one.command} explains it."},
        "partialFingerprints": {"limitFunctionCause/v1": _fingerprint(one)},
    }
    said |= {"locations": [_location(fork)]} if fork else {}
    said |= {"relatedLocations": [_location(reap, "reaped here")]} if reap else {}
    flow = [] if one.finding.id is None else _flow(recording, one.finding.id, places)
    return said | ({"codeFlows": [{"threadFlows": [{"locations": flow}]}]} if flow else {})


def _fingerprint(one: Problem) -> str:
    """What stays the same when lines move: limit, function and cause."""
    function = (one.finding.site or "").rpartition(" ")[2]
    return printable(f"{one.finding.limit.kind.name}/{function}/{one.rule}")


def _flow(recording: Recording, process: int, places: Places) -> list[dict[str, Any]]:
    """The chain of one process: the calls down to its fork, its end, the calls down to its reap."""
    row: Any = recording.whole.lifecycles().loc[process]
    steps = [*_calls(recording, row["start_stack"], "forked", places)]
    lasted = "" if pd.isna(row["zombie_ms"]) else f", zombie for {duration(row['zombie_ms'])}"
    ended = {"message": {"text": f"process {row['pid']} ended{lasted}"}}
    steps += [{"location": ended}] if steps and not pd.isna(row["exit_ns"]) else []
    return [*steps, *_calls(recording, row["reap_stack"], "reaped", places)]


def _calls(recording: Recording, stack: Any, what: str, places: Places) -> list[dict[str, Any]]:
    calls = [] if pd.isna(stack) else recording.calls(stack)
    steps = []
    for call in calls:
        if place := places.of_file(call.frame.file, call.frame.line):
            innermost = f": {what}" if call is calls[-1] else ""
            steps.append({"location": _location(place, printable(call.name) + innermost)})
    return steps


def _location(place: Place, words: str = "") -> dict[str, Any]:
    artifact = {"uri": place.uri} | ({"uriBaseId": _ROOT} if place.inside else {})
    physical: dict[str, Any] = {"artifactLocation": artifact} | ({"region": {"startLine": place.line}} if place.line else {})
    return {"physicalLocation": physical} | ({"message": {"text": words}} if words else {})
