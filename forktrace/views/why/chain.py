"""The chain of a process from its fork to its reap, and what would help: sentences, made once for processes that are alike."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.names import printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.lifecycles import LIVING, what_ended
from forktrace.trace.words import zombie_headline
from forktrace.views import explanations, failed
from forktrace.views.bounds import bound_of
from forktrace.views.why import delays, orphans, remedies
from forktrace.views.why.calls import MOST_FRAMES, calls_of
from forktrace.views.why.late import ended, got
from forktrace.views.why.particulars import MOMENTS, MOST_ARGV, MOST_SIGNALS, VALUES, About, particulars
from forktrace.views.why.remedies import Line, Told, fix_lines
from forktrace.views.why.sentences import blank
from forktrace.views.words import at_line, shorten, some

_EXEC_FAILED: Final = {"subprocess": 255, "asyncio": 255, "posix-spawn": 127}  # _posixsubprocess.c; posix_spawn(3)
_WAITID_TARGETS: Final = {"pid": "P_PID, {}", "any": "P_ALL", "pgid": "P_PGID", "pidfd": "P_PIDFD"}
_WAIT4_TARGETS: Final = {"pid": "{}", "any": "-1", "pgid": "-pgid", "pidfd": "pidfd"}

# Section -> the columns that its lines depend on. A line that needs another one fails, so that no two processes that differ in
# it are told the same.
_HEAD: Final[Mapping[str, Sequence[str]]] = {
    "headline": ("state", "was_zombie", "zombie_open", "begun", "reap_call", "reap_cause", "notes", "helper", "exited"),
}
_EVENTS: Final[Mapping[str, Sequence[str]]] = {
    "forked": (
        *("origin", "fork_site", "fork_stack", "fork_stack_status", "by_parent"),
        *("became", "passes", "requested", "of_init", "made_site", "made_stack"),
    ),
    "start": ("stepped", "sweeps", "method"),
    "ran": ("origin", "executed"),
    "failures": ("failed",),
    "got": ("signals",),
    "orphaned": ("orphan", "lost_seen", "from_outside"),
    "ended": (
        *("exited", "exit_path", "exit_code", "exit_site", "term_signal", "core_dumped"),
        *("killer_kind", "killer_site", "killer_itself", "executed", "created_by"),
    ),
    "asked": ("asked",),
    "gone": (
        *("state", "released", "reaper_known", "by_recorder", "reap_call", "reap_target", "reap_options"),
        *("reap_site", "reap_stack", "reap_stack_status"),
    ),
    "late": ("waited_late",),
    "waiting": ("waited_on",),
    "stopped": ("parent_stopped",),
}
_REMARKS: Final[Mapping[str, Sequence[str]]] = {
    "robbed": ("thefts", "robber_pid"),
    "thief": ("taken",),
    "adopting": ("adopts", "not_init"),
    "damage": ("damaged", "status_lost"),
    "why": (
        *("state", "origin", "was_zombie", "noticed", "inferred", "stolen", "thefts", "orphan", "not_init", "created_by"),
        *("reap_cause", "reap_site", "reap_own", "reap_stack_status", "reap_options", "reap_package"),
        *("made_site", "made_own", "made_package", "helper", "inside", "handled", "at_end", "delay", "status_lost"),
    ),
    "note": ("notes",),
}
EVENTS: Final = tuple(_EVENTS)


Event = tuple[str | int, Line]  # with its moment, for their order: a name of MOMENTS, or ns since the target's start


class Chains:
    """What is said of the processes of `table`, rows of lifecycles.

    Attributes:
        said: the lines with their blanks, by section; those of EVENTS come by their moments
        values: what goes into the blanks, but for moments (`fork_at`), numbers (`pid`) and names (`name`, `name+3`)
        moments_ns: MOMENTS, since the target's start; NaN where there was none
    """

    def __init__(self, recording: Recording, table: pd.DataFrame) -> None:
        about = About(recording)
        alike = particulars(about, table)
        self._names, self._ids, self._pids = about.names, table["id"].tolist(), table["pid"].tolist()
        self.moments_ns = {
            name: (alike.table[f"{name}_ns"] - recording.start_ns).to_numpy(float, na_value=np.nan) for name in MOMENTS
        }
        self.values = {name: alike.each(columns, partial(of, about)) for name, (columns, of) in VALUES.items()}
        sections = {**_HEAD, **_EVENTS, **_REMARKS}
        self.said = {name: alike.each(columns, _teller(about, name)) for name, columns in sections.items()}

    def lines(self, row: int) -> list[Line]:
        """Return the lines about the process in a row of the table, the headline first."""
        return [one.line for one in self.told(row)]

    def told(self, row: int) -> list[Told]:
        """Return these lines with what each is about."""
        head, events, remarks = (
            [Told(name, self._since_ns(row, when), line) for name in part for when, line in self.said[name].of(row)]
            for part in (_HEAD, _EVENTS, _REMARKS)
        )
        events.sort(key=lambda event: event.since_ns)
        value = partial(self._value, row)
        return [one.filled(value) for one in (*head, *_once(events), *remarks)]

    def _since_ns(self, row: int, when: str | int) -> float:
        return when if isinstance(when, int) else self.moments_ns[when][row] if when else math.nan

    def _value(self, row: int, name: str) -> str:
        """What goes into a blank: a value, a moment, the number of the process, or its name, or that of another."""
        if name in self.values:
            return self.values[name].of(row)
        if moment := re.fullmatch("([a-z]+)_at", name):
            return at_s(self.moments_ns[moment[1]][row])
        if name == "pid":
            return str(self._pids[row])
        return self._names.pid(self._ids[row] + int(name.removeprefix("name") or 0))


def chain(recording: Recording, process: int) -> list[Line]:
    """Return what became of a process, line by line, the headline first. Nothing in it can steer a terminal."""
    return Chains(recording, recording.whole.lifecycles().loc[[process]]).lines(0)


def at_s(since_ns: float) -> str:
    """Return a moment since the target's start in s: `+1.204`."""
    return f"{since_ns / 1e9:+.3f}"


def _once(events: list[Told]) -> Iterator[Told]:
    """Leave out a source line that stands above already."""
    shown: set[str] = set()
    for one in events:
        line = one.line
        yield one._replace(line=line._replace(source=None if line.source in shown else line.source))
        shown.add(line.source or "")


def _teller(about: About, name: str) -> Callable[[Any], list[Event]]:
    return lambda row: list(getattr(_Section(about, row), name)())


class _Section:
    """The lines of one section; `row` has its columns and no others."""

    def __init__(self, about: About, row: Any) -> None:
        self.about = about
        self.recording = about.recording
        self.row = row

    def headline(self) -> Iterator[Event]:
        row = self.row
        name = blank("name") if pd.isna(row.helper) else f"{blank('name')}, {row.helper} of multiprocessing,"
        if row.state in LIVING:
            text = f"{name} was still running after {blank('age')}, when {what_ended(row)}"
        elif row.reap_cause == "recorder":
            text = f"{name} is the command itself; forktrace, its parent, waited for it"
        elif row.was_zombie:
            text = zombie_headline(name, blank("zombie"), still=row.zombie_open, bound=bound_of(row))
        elif row.reap_call == "autoreap" or (row.reap_call == "kernel" and row.exited):
            text = f"{name} was never a zombie: it was released as it ended"
        elif not row.begun and pd.isna(row.reap_call):
            text = f"{name} is gone; when it ended is not known"
        else:
            text = f"{name} was a zombie; for how long is not known"
        yield "fork", Line("", text, style="bold red" if row.zombie_open else "bold")

    def _at(self, when: str, text: str, source: str | None = None) -> Event:
        return when, Line(blank(f"{when}_at"), text, source)

    def _then(self, time_ns: int, text: str, source: str | None = None) -> Event:
        since_ns = int(time_ns) - self.recording.start_ns
        return since_ns, Line(at_s(since_ns), text, source)

    def forked(self) -> Iterator[Event]:
        row = self.row
        if row.origin == "target":
            command = shorten(printable(shlex.join(self.recording.header["command"])), MOST_ARGV)
            yield self._at("fork", f"started by forktrace: {command}")
        elif row.origin == "forked":
            source = self.about.source(row.fork_site)
            inward = MOST_FRAMES if row.passes or pd.isna(row.fork_site) else 0 if source else 1
            place = self._place(row.fork_site, row.fork_stack, row.fork_stack_status, inward=inward)
            adopted = "" if row.by_parent else f", as a child of {blank('parent')}"
            since = f"; since then {blank('parent')} runs {blank('since')}, which does not know this child"
            yield self._at("fork", f"forked  by {blank('forker')}{place}{adopted}{since if row.became else ''}", source)
            if row.requested:
                asked = self._place(row.made_site, row.made_stack, "ok", inward=1)
                yield "fork", Line("", f"asked   for at{asked}", self.about.source(row.made_site))
        else:
            where = "before the recording" if row.origin == "attached" else "outside the recording"
            where = "by a fork that was not seen" if pd.isna(row.origin) else where
            where += ", as a child of 1 or as an orphan that 1 inherited" if row.of_init else ""
            yield self._at("fork", f"began   {where}")

    def start(self) -> Iterator[Event]:
        """What the start of multiprocessing that made it did, step by step."""
        if self.row.stepped:
            reaped = f", reaped {blank('swept')}" if self.row.sweeps else ""
            method = "" if pd.isna(self.row.method) else f" (method {self.row.method})"
            words = f"polled {blank('polled')}{reaped}; forked{method}; child set now {blank('children')}"
            yield "fork", Line("", f"start   {words}")

    def _place(self, site: Any, stack: Any, status: Any, call: str = "", inward: int = MOST_FRAMES) -> str:
        """` consumer.py:33 consume_task > Process.start > _cleanup > poll > waitpid(4711)`, or why there is no line.

        `inward`: how many calls at most are named from the line of the program on.
        """
        if pd.isna(site):
            return f"{f' with {call}' if call else ''} ({explanations.no_stack(status)})"
        own, calls = calls_of(site, self.about.calls(stack))
        words = [printable(site), *calls[:inward]] if own else calls
        words += [call] if call else []
        cut = "" if pd.isna(status) or status == "ok" else " (of a stack whose outermost frames are missing)"
        return f"{' ' if own else ', in its libraries: '}{' > '.join(words)}{cut}"

    def ran(self) -> Iterator[Event]:
        if self.row.executed and self.row.origin != "target":
            yield self._at("exec", f"ran     {blank('argv')}")

    def failures(self) -> Iterator[Event]:
        """The forks that it tried in vain."""
        if not pd.isna(self.row.failed):
            for time_ns, text in failed.of_process(self.recording, int(self.row.failed)):
                yield self._then(time_ns, f"could not fork: {text}")

    def got(self) -> Iterator[Event]:
        """The signals that reached it and did not end it."""
        for one in self.about.signals.get(_known(self.row.signals), ()):
            itself = not pd.isna(one.sender_id) and one.sender_id == one.id
            sent = (one.kind, one.sender_id, one.sender_pid, one.sender_site, one.sender_stack)
            handled = not pd.isna(one.disposition) and one.disposition == "handler"
            after = "; it has a handler for that" if handled else ", which did not end it"
            text = f"got     {one.signal}, {self.about.sender(*sent, itself=itself)}{after}"
            yield self._then(one.time_ns, text, self.about.source(one.sender_site))

    def orphaned(self) -> Iterator[Event]:
        if self.row.orphan:
            who = "from outside the recording" if self.row.from_outside else f"{blank('parent')}, which ended"
            text = f"lost    its parent {who}; {blank('adopter')} inherited it"
            yield self._at("lost", text) if self.row.lost_seen else ("fork", Line("", text))

    def ended(self) -> Iterator[Event]:
        row = self.row
        if not row.exited:
            return
        failed = row.exit_path == "bootstrap" and not pd.isna(row.exit_code) and row.exit_code != 0
        name = "failed" if failed else row.exit_path
        path = "" if pd.isna(name) else explanations.texts()["exit-path"].get(name, "")
        after, source = f"after {blank('run')}", self.about.source(row.killer_site)
        if not pd.isna(row.term_signal):
            core = " (core dumped)" if row.core_dumped else ""
            words = f"killed  by {row.term_signal} {after}{core}, {blank('sender')}{f'; {path}' if path else ''}"
            own = row.killer_kind == "kernel" or row.killer_itself
        else:
            words = f"exited  {'?' if pd.isna(row.exit_code) else row.exit_code} {after}{f', {path}' if path else ''}"
            own = row.exit_path != "bootstrap"  # that line is the parent's, before the fork
        if own and not (row.killer_itself and not pd.isna(row.killer_site)):  # where it stood then has been named
            words, source = words + at_line(row.exit_site), source or self.about.source(row.exit_site)
        yield self._at("exit", words + self._failed_exec(), source)

    def _failed_exec(self) -> str:
        row = self.row
        if row.executed or pd.isna(row.created_by) or pd.isna(row.exit_code):
            return ""
        failed = _EXEC_FAILED.get(row.created_by) == row.exit_code
        return "; it never ran a program: its exec failed (or a preexec_fn did)" if failed else ""

    def asked(self) -> Iterator[Event]:
        if self.row.asked:
            yield "gone", Line("", f"asked   {blank('times')} in vain{blank('where_asked')}")

    def gone(self) -> Iterator[Event]:
        row, who = self.row, blank("reaper_there")
        if row.state != "gone":
            return
        if not row.reaper_known:
            yield "gone", Line("", "gone    some time later; its release was not seen")
            return
        if row.reap_call == "autoreap":
            text = f"freed   by the kernel: {blank('adopter')} does not want to know of its children's ends"
        elif row.reap_call == "kernel":
            text = "removed by the kernel, with its PID namespace"
        elif row.reap_call == "unseen":
            text = f"reaped  by {who}, at this time or earlier; its wait was not seen"
        else:
            place = self._place(row.reap_site, row.reap_stack, row.reap_stack_status, self._call())
            text = f"reaped  by {who}{f' with {self._call()}' if row.by_recorder else place}"
        line = self._at("gone", text, self.about.source(row.reap_site))
        yield line if row.released else ("gone", Line("", text))

    def stopped(self) -> Iterator[Event]:
        """What stopped its parent while it was a zombie."""
        if pd.isna(self.row.parent_stopped):
            return
        row = next(self.about.table.loc[[self.row.parent_stopped]].itertuples())
        first: Iterator[Any] = delays.stops(self.recording, row).head(MOST_SIGNALS).itertuples()
        for one in first:
            sent = (one.kind, one.sender_id, one.sender_pid, one.sender_site, one.sender_stack)
            text = f"stopped {blank('adopter')}, its parent, by {one.signal}, {self.about.sender(*sent, itself=False)}"
            yield self._then(one.time_ns, text, self.about.source(one.sender_site))

    def late(self) -> Iterator[Event]:
        """The lines that waited for it when it was gone already."""
        for one in self.about.late.get(_known(self.row.waited_late), ()):
            who = self.about.actor(one.id, self.about.table.at[one.id, "pid"], one.tid, one.site)
            text = f"waited  by {who}{at_line(one.site)}, too late, and got {got(one.seen)}"
            yield self._then(one.time_ns, text, self.about.source(one.site))

    def waiting(self) -> Iterator[Event]:
        """The waits that brought nothing, its own and those for it."""
        for time_ns, text, site in self.about.open_waits.get(_known(self.row.waited_on), ()):
            yield self._then(time_ns, text, self.about.source(site))

    def _call(self) -> str:
        """`waitpid(4711, WNOHANG)`: the call as a Python program writes it, else as the kernel has it."""
        row = self.row
        targets = _WAITID_TARGETS if row.reap_call == "waitid" else _WAIT4_TARGETS
        target = "?" if pd.isna(row.reap_target) else targets[row.reap_target].format(blank("pid"))
        arguments = [target] if pd.isna(row.reap_options) or not row.reap_options else [target, row.reap_options]
        python = row.reap_call == "wait4" and not pd.isna(row.reap_site)
        return f"{'waitpid' if python else row.reap_call}({', '.join(arguments)})"

    def robbed(self) -> Iterator[Event]:
        """Whose wait took the exit status of this process from whom."""
        for one in self.about.thefts.get(_known(self.row.thefts), ()):
            thief = self.about.actor(one.thief_id, self.row.robber_pid, one.thief_tid, one.thief_site)
            source = self.about.source
            yield "", Line("stolen", f"by {thief}{at_line(one.thief_site)}", source(one.thief_site))
            owner = "its owner" if pd.isna(one.created_by) else explanations.creator(one.created_by).owner
            seen = "" if pd.isna(one.seen) else f", and got {explanations.texts()['seen'].get(one.seen, printable(one.seen))}"
            yield "", Line("from", f"{owner}, which waits for it{at_line(one.owner_site)}{seen}", source(one.owner_site))

    def thief(self) -> Iterator[Event]:
        """What a thief took."""
        if taken := self.about.taken.get(_known(self.row.taken)):
            which = some([self.about.names.pid(int(one)) for one in taken[:4]], len(taken))
            whom = "it" if len(taken) == 1 else "them"
            yield "", Line("thief", f"{blank('name')} took the exit status of {which} from what waits for {whom}")

    def _adopter(self, number: Any) -> orphans.Adopter | None:
        return None if pd.isna(number) else self.about.adopters[int(number)]

    def adopting(self) -> Iterator[Event]:
        """Of an orphan who inherited it and did not reap it; of one who does so, and what helps.

        A zombie that was there before the recording may be an orphan as well: of that it is told what its parent does.
        """
        mine = self._adopter(self.row.adopts)
        for one in filter(None, (self._adopter(self.row.not_init), mine)):
            yield "", Line("finding", f"{one.text} ({orphans.NAME})")
        if mine:
            yield from (("", Line("", orphans.texts()[name])) for name in ("helps", "beware"))

    def damage(self) -> Iterator[Event]:
        if not pd.isna(self.row.status_lost):
            how = ended(next(self.about.table.loc[[self.row.status_lost]].itertuples()))
            yield "", Line("damage", f"it {how}, and the program did not learn of it")
        if not pd.isna(self.row.damaged):
            row = next(self.about.table.loc[[self.row.damaged]].itertuples())
            yield from (("", Line("damage", text)) for text in failed.during(self.recording, self.about.names, row))

    def _cause(self) -> str:
        """The cause; of a trace without stacks it may follow from the order of calls."""
        row = self.row
        name = "unknown" if pd.isna(row.reap_cause) else str(row.reap_cause)
        return "next-start" if name == "unknown" and pd.isna(row.reap_site) and row.inferred else name

    def why(self) -> Iterator[Event]:
        yield from (("", line) for line in self._why())

    def _why(self) -> Iterator[Line]:
        row, name = self.row, self._cause()
        if row.state in LIVING:
            return
        if name == "unknown" and pd.isna(row.reap_site):
            yield Line("why", f"not known ({explanations.no_stack(row.reap_stack_status)})")
            return
        cause, words = explanations.cause(name), self._words()
        late = cause.late if row.noticed and not row.stolen else ""
        delay = explanations.delay(row.delay) if row.delay and (late or row.delay == "watched") else None
        yield Line("why", f"{self._reason(cause, words, delay, late)} ({printable(name)})")
        yield from self._fixes(cause, words, delay)
        if self._adopter(row.not_init):
            yield Line("beware", orphans.texts()["beware"])

    def _reason(self, cause: explanations.Cause, words: dict[str, str], delay: explanations.Delay | None, late: str) -> str:
        """Why it was reaped, or was not, and why not earlier."""
        if self._cause() == "never" and self.row.orphan:
            parent, adopter = blank("parent"), blank("adopter")
            return f"{parent} ended without waiting for it; {adopter} inherited it and has not waited for it either"
        reason = cause.at_end if cause.at_end and self.row.at_end else cause.why
        return (delay.why or reason + delay.late if delay else reason + late).format(**words)

    def _fixes(self, cause: explanations.Cause, words: dict[str, str], delay: explanations.Delay | None) -> Iterable[Line]:
        """What to do about it: the first of these that applies."""
        row = self.row
        fixes: tuple[tuple[bool, Callable[[], Iterable[Line]]], ...] = (
            (row.stolen, lambda: remedies.after_theft(self.about.thefts[int(row.thefts)][0].thief_site, words)),
            (bool(delay and delay.fix), lambda: [Line("fix", delay.fix.format(**words) if delay else "")]),
            (not pd.isna(row.helper), lambda: [Line("fix", remedies.ASIDE.format(row.helper))]),
            (row.noticed or not pd.isna(row.status_lost), lambda: self._fix(cause, words, delay.unless if delay else "")),
            (row.was_zombie and self._cause() != "recorder", lambda: [remedies.none_needed(cause)]),
        )
        return next((lines() for applies, lines in fixes if applies), ())

    def _fix(self, cause: explanations.Cause, words: dict[str, str], unless: str) -> Iterator[Line]:
        """What would help, at the line to change; where that is an installed package's, that it is not the user's to mend."""
        row = self.row
        left, nohang = not pd.isna(row.not_init), "WNOHANG" in str(row.reap_options)
        case = remedies.Case(self._made(), row.orphan, left, row.inside, nohang, row.handled)
        names, at = remedies.chosen(cause, case)
        if at == "none":
            yield from fix_lines([explanations.remedy(each, **words) for each in names], pd.NA, unless)
            return
        where = "made" if at == "fork" else at
        site, own, package = (getattr(row, f"{where}_{what}") for what in ("site", "own", "package"))
        if package and names:
            yield from remedies.package_lines(package, site)
        else:
            yield from fix_lines([explanations.remedy(each, **words) for each in names], site if own else pd.NA, unless)

    def _words(self) -> dict[str, str]:
        """What the texts of explanations.toml can name."""
        it = explanations.object_of(self.about.source(self.row.made_site), self._creator().it)
        not_init = self._adopter(self.row.not_init)
        blanks = {name: blank(name) for name in ("start", "reaper", "parent", "library")}
        blanks["child"] = blank("name")
        return {**blanks, "it": it, "adopter": not_init.name if not_init else blank("adopter")}

    def _made(self) -> str:
        return "unknown" if pd.isna(self.row.created_by) else str(self.row.created_by)

    def _creator(self) -> explanations.Creator:
        return explanations.creator("orphan" if self.row.orphan or not pd.isna(self.row.not_init) else self._made())

    def note(self) -> Iterator[Event]:
        if not pd.isna(self.row.notes):
            yield "", Line("note", printable(self.row.notes))


def _known(ident: Any) -> int:
    return -1 if pd.isna(ident) else int(ident)
