"""The verdict of a check for a terminal or a pipe: a line for each limit, below it what breaks it and what explains that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.text import Text

from forktrace.analysis.causes.names import printable
from forktrace.analysis.gate.verdict import BROKEN, HOLDS, UNKNOWN, Outcome, Verdict
from forktrace.analysis.recording import Recording
from forktrace.trace.words import count
from forktrace.views.problems import Problem, headline, measured, over, problems
from forktrace.views.text.screen import print_text

MOST_PROBLEMS: Final = 10  # of a limit
_STATES: Final = {BROKEN: ("broken", "red"), UNKNOWN: ("cannot tell", "yellow"), HOLDS: ("holds", "green")}


def show(console: Console, recording: Recording, verdict: Verdict) -> None:
    """Print the verdict. Names from the trace are escaped."""
    print_text(console, Text(f"{printable(recording.trace.path)}: {headline(verdict)}", "bold"))
    room = max(len(one.limit.text) for one in verdict.outcomes)
    found = list(problems(recording, verdict))
    for one in verdict.outcomes:
        word, style = _STATES[one.state]
        print_text(console, Text(_figures(one), style), f"  {one.limit.text:<{room}}  {word:<11}  ")
        mine = [problem for problem in found if problem.finding.limit == one.limit]
        for line in _lines(mine):
            print_text(console, Text(line), "    ")
    for line in _remarks(verdict):
        print_text(console, Text(line, "dim"))


def _figures(one: Outcome) -> str:
    lacking = f"; {'; '.join(printable(each) for each in one.missing)}" if one.missing and one.state != BROKEN else ""
    forgiven = f"; {count(one.forgiven, 'process')} as in the baseline" if one.forgiven else ""
    return ", ".join(filter(None, [measured(one), over(one)])) + lacking + forgiven


def _lines(found: list[Problem]) -> Iterator[str]:
    for one in found[:MOST_PROBLEMS]:
        yield one.text
        yield f"  {one.command}"
    if len(found) > MOST_PROBLEMS:
        yield f"and {count(len(found) - MOST_PROBLEMS, 'more line')}"


def _remarks(verdict: Verdict) -> Iterator[str]:
    for one, processes in verdict.allowed:
        if processes:
            reason = f": {printable(one.reason)}" if one.reason else ""
            yield f"allowed: {count(processes, 'process')} of {printable(one.site)}{reason}"
    yield from (printable(each) for each in verdict.remarks)
