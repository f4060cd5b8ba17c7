"""What happened to a process: the headline, and a line for each moment from its fork to its release."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from forktrace.analysis.causes.names import printable
from forktrace.analysis.tables.lifecycles import LIVING, what_ended
from forktrace.trace.words import zombie_headline
from forktrace.views import explanations, failed
from forktrace.views.bounds import bound_of
from forktrace.views.why import delays
from forktrace.views.why.calls import MOST_FRAMES, calls_of
from forktrace.views.why.chain_columns import MOST_ARGV, MOST_SIGNALS, Section, known
from forktrace.views.why.late import got
from forktrace.views.why.sentences import Event, Line, at_s, blank
from forktrace.views.words import at_line, shorten

_EXEC_FAILED: Final = {"subprocess": 255, "asyncio": 255, "posix-spawn": 127}  # _posixsubprocess.c; posix_spawn(3)
_WAITID_TARGETS: Final = {"pid": "P_PID, {}", "any": "P_ALL", "pgid": "P_PGID", "pidfd": "P_PIDFD"}
_WAIT4_TARGETS: Final = {"pid": "{}", "any": "-1", "pgid": "-pgid", "pidfd": "pidfd"}

HEAD: Final[Mapping[str, Sequence[str]]] = {
    "headline": (
        *("state", "was_zombie", "zombie_open", "at_least", "begun", "reap_call", "reap_cause", "notes", "helper", "exited"),
    ),
}
EVENTS: Final[Mapping[str, Sequence[str]]] = {
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


class Happened(Section):
    """The lines of one section of `HEAD` or `EVENTS`; `row` has the columns named there and no others."""

    def headline(self) -> Iterator[Event]:
        """How long it was a zombie, or why it was none."""
        row = self.row
        name = blank("name") if pd.isna(row.helper) else f"{blank('name')}, {row.helper} of multiprocessing,"
        if row.state in LIVING:
            text = f"{name} was still running after {blank('age')}, when {what_ended(row)}"
        elif row.reap_cause == "recorder":
            text = f"{name} is the command itself; forktrace, its parent, waited for it"
        elif row.was_zombie:
            bound = "at least" if row.at_least else bound_of(row)
            text = zombie_headline(name, blank("zombie"), still=row.zombie_open, bound=bound)
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
        """Who made it, at which line; of one that was not forked in the recording, where it began."""
        if self.row.origin == "target":
            command = shorten(printable(shlex.join(self.recording.header["command"])), MOST_ARGV)
            yield self._at("fork", f"started by forktrace: {command}")
        elif self.row.origin == "forked":
            yield self._by_forker()
            if self.row.requested:
                asked = self._place(self.row.made_site, self.row.made_stack, "ok", inward=1)
                yield "fork", Line("", f"asked   for at{asked}", self.lookups.source(self.row.made_site))
        else:
            yield self._at("fork", f"began   {self._beginning()}")

    def _by_forker(self) -> Event:
        row, source = self.row, self.lookups.source(self.row.fork_site)
        inward = MOST_FRAMES if row.passes or pd.isna(row.fork_site) else 0 if source else 1
        place = self._place(row.fork_site, row.fork_stack, row.fork_stack_status, inward=inward)
        adopted = "" if row.by_parent else f", as a child of {blank('parent')}"
        since = f"; since then {blank('parent')} runs {blank('since')}, which does not know this child" if row.became else ""
        return self._at("fork", f"forked  by {blank('forker')}{place}{adopted}{since}", source)

    def _beginning(self) -> str:
        """Where a process began whose fork was not recorded."""
        where = "before the recording" if self.row.origin == "attached" else "outside the recording"
        where = "by a fork that was not seen" if pd.isna(self.row.origin) else where
        return f"{where}, as a child of 1 or as an orphan that 1 inherited" if self.row.of_init else where

    def start(self) -> Iterator[Event]:
        """What the start of multiprocessing that made it did, step by step."""
        if self.row.stepped:
            reaped = f", reaped {blank('swept')}" if self.row.sweeps else ""
            method = "" if pd.isna(self.row.method) else f" (method {self.row.method})"
            words = f"polled {blank('polled')}{reaped}; forked{method}; child set now {blank('children')}"
            yield "fork", Line("", f"start   {words}")

    def ran(self) -> Iterator[Event]:
        """The program of its last exec."""
        if self.row.executed and self.row.origin != "target":
            yield self._at("exec", f"ran     {blank('argv')}")

    def failures(self) -> Iterator[Event]:
        """Its forks that failed."""
        if not pd.isna(self.row.failed):
            for time_ns, text in failed.of_process(self.recording, int(self.row.failed)):
                yield self._then(time_ns, f"could not fork: {text}")

    def got(self) -> Iterator[Event]:
        """The signals that reached it and did not end it."""
        for one in self.lookups.signals.get(known(self.row.signals), ()):
            itself = not pd.isna(one.sender_id) and one.sender_id == one.id
            sent = (one.kind, one.sender_id, one.sender_pid, one.sender_site, one.sender_stack)
            handled = not pd.isna(one.disposition) and one.disposition == "handler"
            after = "; it has a handler for that" if handled else ", which did not end it"
            text = f"got     {one.signal}, {self.lookups.sender(*sent, itself=itself)}{after}"
            yield self._then(one.time_ns, text, self.lookups.source(one.sender_site))

    def orphaned(self) -> Iterator[Event]:
        """That its parent ended first, and who inherited it."""
        if self.row.orphan:
            who = "from outside the recording" if self.row.from_outside else f"{blank('parent')}, which ended"
            text = f"lost    its parent {who}; {blank('adopter')} inherited it"
            yield self._at("lost", text) if self.row.lost_seen else ("fork", Line("", text))

    def ended(self) -> Iterator[Event]:
        """Its exit status or signal, and the line where it ended."""
        row = self.row
        if not row.exited:
            return
        words, source = self._status(), self.lookups.source(row.killer_site)
        if self._ended_at_own_line():
            words, source = words + at_line(row.exit_site), source or self.lookups.source(row.exit_site)
        yield self._at("exit", words + self._failed_exec(), source)

    def _status(self) -> str:
        """How it ended, after what time, and what that means."""
        row, after = self.row, f"after {blank('run')}"
        if pd.isna(row.term_signal):
            path = self._exit_path(", ")
            return f"exited  {'?' if pd.isna(row.exit_code) else row.exit_code} {after}{path}"
        core = " (core dumped)" if row.core_dumped else ""
        return f"killed  by {row.term_signal} {after}{core}, {blank('sender')}{self._exit_path('; ')}"

    def _exit_path(self, before: str) -> str:
        """The way out, in words, with `before` in front; "" where there are none."""
        row = self.row
        failed = row.exit_path == "bootstrap" and not pd.isna(row.exit_code) and row.exit_code != 0
        name = "failed" if failed else row.exit_path
        path = "" if pd.isna(name) else explanations.texts()["exit-path"].get(name, "")
        return f"{before}{path}" if path else ""

    def _ended_at_own_line(self) -> bool:
        """Whether `exit_site` is a line at which it ended, and has not been named as the line of the kill."""
        row = self.row
        if row.killer_itself and not pd.isna(row.killer_site):
            return False
        if pd.isna(row.term_signal):
            return bool(row.exit_path != "bootstrap")  # that line is the parent's, before the fork
        return bool(row.killer_kind == "kernel" or row.killer_itself)

    def _failed_exec(self) -> str:
        row = self.row
        if row.executed or pd.isna(row.created_by) or pd.isna(row.exit_code):
            return ""
        failed = _EXEC_FAILED.get(row.created_by) == row.exit_code
        return "; it never ran a program: its exec failed (or a preexec_fn did)" if failed else ""

    def asked(self) -> Iterator[Event]:
        """The waits for it that came too early."""
        if self.row.asked:
            yield "gone", Line("", f"asked   {blank('times')} in vain{blank('where_asked')}")

    def gone(self) -> Iterator[Event]:
        """Who reaped it, or how else it was released."""
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
        line = self._at("gone", text, self.lookups.source(row.reap_site))
        yield line if row.released else ("gone", Line("", text))

    def stopped(self) -> Iterator[Event]:
        """What stopped its parent while it was a zombie."""
        if pd.isna(self.row.parent_stopped):
            return
        row = next(self.lookups.table.loc[[self.row.parent_stopped]].itertuples())
        first: Iterator[Any] = delays.stops(self.recording, row).head(MOST_SIGNALS).itertuples()
        for one in first:
            sent = (one.kind, one.sender_id, one.sender_pid, one.sender_site, one.sender_stack)
            text = f"stopped {blank('adopter')}, its parent, by {one.signal}, {self.lookups.sender(*sent, itself=False)}"
            yield self._then(one.time_ns, text, self.lookups.source(one.sender_site))

    def late(self) -> Iterator[Event]:
        """The lines that waited for it when it was gone already."""
        for one in self.lookups.late.get(known(self.row.waited_late), ()):
            who = self.lookups.actor(one.id, self.lookups.table.at[one.id, "pid"], one.tid, one.site)
            text = f"waited  by {who}{at_line(one.site)}, too late, and got {got(one.seen)}"
            yield self._then(one.time_ns, text, self.lookups.source(one.site))

    def waiting(self) -> Iterator[Event]:
        """The waits that never returned a child, its own and those for it."""
        for time_ns, text, site in self.lookups.open_waits.get(known(self.row.waited_on), ()):
            yield self._then(time_ns, text, self.lookups.source(site))

    def _place(self, site: Any, stack: Any, status: Any, call: str = "", inward: int = MOST_FRAMES) -> str:
        """` consumer.py:33 consume_task > Process.start > _cleanup > poll > waitpid(4711)`, or why there is no line.

        `inward`: how many calls at most are named from the line of the program on.
        """
        if pd.isna(site):
            return f"{f' with {call}' if call else ''} ({explanations.no_stack(status)})"
        own, calls = calls_of(site, self.lookups.calls(stack))
        words = [printable(site), *calls[:inward]] if own else calls
        words += [call] if call else []
        cut = "" if pd.isna(status) or status == "ok" else " (of a stack whose outermost frames are missing)"
        return f"{' ' if own else ', in its libraries: '}{' > '.join(words)}{cut}"

    def _call(self) -> str:
        """`waitpid(4711, WNOHANG)`: the call as a Python program writes it, else as the kernel has it."""
        row = self.row
        targets = _WAITID_TARGETS if row.reap_call == "waitid" else _WAIT4_TARGETS
        target = "?" if pd.isna(row.reap_target) else targets[row.reap_target].format(blank("pid"))
        arguments = [target] if pd.isna(row.reap_options) or not row.reap_options else [target, row.reap_options]
        python = row.reap_call == "wait4" and not pd.isna(row.reap_site)
        return f"{'waitpid' if python else row.reap_call}({', '.join(arguments)})"
