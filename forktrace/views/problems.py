"""What a verdict says in words: one sentence for a limit, one for the lines that break it, and the command that explains."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final, NamedTuple

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.gate.limits import COUNT, in_words, short
from forktrace.analysis.gate.verdict import BROKEN, HOLDS, UNKNOWN, Finding, Outcome, Verdict
from forktrace.analysis.recording import Recording
from forktrace.trace.words import count
from forktrace.views import explanations

RULES: Final = {
    "stolen": "an exit status was stolen from who waits for it",
    "running": "a child still ran at the end",
    "failed-fork": "a fork failed",
}


class Problem(NamedTuple):
    """A finding in words: the rule (a cause), the sentence, the line that it is about, and the command that explains it."""

    finding: Finding
    rule: str
    text: str
    where: str
    command: str


def problems(recording: Recording, verdict: Verdict) -> Iterator[Problem]:
    """Yield what breaks limits, the worst first."""
    names = Names(recording.whole.lifecycles(), recording.header["recorder_pid"], marks=False)
    for one in verdict.findings:
        where = "a line that is not known" if one.site is None else printable(one.site)
        yield Problem(one, rule_of(one.cause), _sentence(one, where), where, explaining(recording, one.id, names))


def rule_of(cause: str | None) -> str:
    """Return the rule that a cause stands for: itself, without what differs each time."""
    return "unknown" if cause is None else printable(cause.partition(" ")[0])


def rule_words(rule: str) -> str:
    """Return what a rule is about, in a few words."""
    return RULES.get(rule) or explanations.cause(rule).short


def _sentence(one: Finding, where: str) -> str:
    kind = one.limit.kind
    words = _SENTENCES[kind.name].format(
        processes=count(one.processes, "process"),
        measured=in_words(kind, one.measured),
        where=where,
        was="was a zombie for" if one.processes == 1 else "were zombies for up to",
    )
    return f"{words}; at most {short(kind, one.limit.most)}{_why(one.cause)}"


def _why(cause: str | None) -> str:
    """The cause in brackets, and in words where it is one of `reap_cause`."""
    if cause is None or cause in RULES:
        return ""
    rule, _, detail = cause.partition(" ")
    return f" ({printable(detail)})" if rule in RULES else f" ({printable(rule)}: {rule_words(rule)})"


_SENTENCES: Final = {
    "max-zombie": "{processes} started at {where} {was} {measured}",
    "max-unreaped": "{measured} started at {where}, not reaped until the end",
    "max-zombies": "{measured} at once, started at {where}",
    "max-stolen": "{measured}, taken at {where}",
    "max-failed-forks": "{measured} at {where}",
    "max-orphans": "{measured} started at {where}, left as a zombie by who inherited it",
    "max-zombie-seconds": "{measured} zombie seconds per 1,000 forks by {processes} started at {where}",
    "max-running": "{measured} started at {where}, still running at the end",
}


def explaining(recording: Recording, process: int | None, names: Names) -> str:
    """Return the command that explains a process; without one, the recording."""
    trace = shlex.quote(printable(recording.trace.path))
    if process is None:
        return f"forktrace report {trace}"
    name = names.pid(process)
    return f"forktrace why {trace} {shlex.quote('#' + name.partition('#')[2]) if '#' in name else name}"


def measured(one: Outcome) -> str:
    """Return what was measured for a limit: `2.138 s`, `at least 3 zombies` where more may be missing."""
    least = "at least " if one.missing and one.state != HOLDS else ""
    return f"{least}{in_words(one.limit.kind, one.measured)}"


def over(one: Outcome) -> str:
    """Return by how much a broken limit is exceeded; nothing of one that is not broken."""
    if one.state != BROKEN:
        return ""
    more = one.measured - one.limit.most
    return f"{more:,.0f} over" if one.limit.kind.unit == COUNT else f"{in_words(one.limit.kind, more)} over"


def headline(verdict: Verdict) -> str:
    """Return the verdict in a sentence."""
    states = [one.state for one in verdict.outcomes]
    broken, unknown, every = states.count(BROKEN), states.count(UNKNOWN), len(states)
    lacks = f": the recording lacks what could break {'it' if unknown == 1 else 'them'}"
    every_word = "both" if every == 2 else f"all {every}"
    if every == 1:
        return {BROKEN: "the limit is broken", HOLDS: "the limit holds"}.get(states[0], f"the limit cannot be told{lacks}")
    told = f"{unknown} of {every} limits cannot be told{lacks}" if unknown else f"{every_word} limits hold"
    if not broken:
        return told
    also = f", {unknown} cannot be told" if unknown else ""
    return f"{broken} of {every} limits {'is' if broken == 1 else 'are'} broken{also}"
