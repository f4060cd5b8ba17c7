"""The verdict of a check as JUnit XML, as Jenkins, GitLab and others read it: a test case for each limit."""

from __future__ import annotations

from xml.etree import ElementTree as xml

from forktrace.analysis.causes.names import printable
from forktrace.analysis.gate.verdict import BROKEN, HOLDS, UNKNOWN, Outcome, Verdict
from forktrace.analysis.recording import Recording
from forktrace.views.problems import Problem, headline, measured, over, problems

_CASE = {BROKEN: "failure", UNKNOWN: "error"}


def document(recording: Recording, verdict: Verdict) -> str:
    """Return the document: a broken limit is a failure, one that cannot be told an error."""
    states = [one.state for one in verdict.outcomes]
    figures = {"tests": len(states), "failures": states.count(BROKEN), "errors": states.count(UNKNOWN), "skipped": 0}
    attributes = {name: str(number) for name, number in figures.items()} | {"time": "0"}
    top = xml.Element(
        "testsuites", {"name": "forktrace"} | {name: attributes[name] for name in ("tests", "failures", "errors")}
    )
    suite = xml.SubElement(top, "testsuite", {"name": "forktrace check"} | attributes)
    found = list(problems(recording, verdict))
    for one in verdict.outcomes:
        _add_case(suite, one, [problem for problem in found if problem.finding.limit == one.limit])
    xml.SubElement(suite, "system-out").text = _printable([headline(verdict), *verdict.remarks])
    xml.indent(top)
    return xml.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def _add_case(suite: xml.Element, one: Outcome, found: list[Problem]) -> None:
    case = xml.SubElement(suite, "testcase", {"classname": "forktrace.check", "name": one.limit.text, "time": "0"})
    if one.state == HOLDS:
        return
    why = ", ".join(filter(None, [measured(one), over(one)])) if one.state == BROKEN else "; ".join(one.missing)
    result = xml.SubElement(case, _CASE[one.state], {"message": printable(why), "type": one.limit.kind.name})
    result.text = _printable([*one.missing, *(line for each in found for line in (each.text, f"  {each.command}"))])


def _printable(lines: list[str]) -> str:
    """The lines, without anything that XML cannot hold."""
    return "\n".join(printable(line) for line in lines)
