"""Why one process was a zombie for as long as it was: its chain from the fork to the reap, and what would help."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd
from rich.console import Console
from rich.text import Text

from forktrace.analysis.causes.names import Names, name, printable
from forktrace.analysis.recording import Call, Recording
from forktrace.trace.words import count, duration, zombie_headline
from forktrace.views import explanations, failed
from forktrace.views.bounds import bound_of
from forktrace.views.text import late, orphans
from forktrace.views.text.calls import MOST_FRAMES, calls_of, passes_a_package, source_text
from forktrace.views.text.screen import print_text
from forktrace.views.words import NOTICEABLE_MS, sender, shorten, some

MOST_SOURCE: Final = 70
MOST_ARGV: Final = 300
MOST_SIGNALS: Final = 3

_EXEC_FAILED: Final = {"subprocess": 255, "asyncio": 255, "posix-spawn": 127}  # _posixsubprocess.c; posix_spawn(3)
_WAITID_TARGETS: Final = {"pid": "P_PID, {}", "any": "P_ALL", "pgid": "P_PGID", "pidfd": "P_PIDFD"}
_WAIT4_TARGETS: Final = {"pid": "{}", "any": "-1", "pgid": "-pgid", "pidfd": "pidfd"}
_NOBODY_KNOWN: Final = "a process that is not known"


class Line(NamedTuple):
    """One line: a moment (`+1.204`) or a word (`why`) in front, a text, and the source line that it is about."""

    mark: str
    text: str
    source: str | None = None
    style: str = ""


Event = tuple[int, Line]  # with its moment in ns, for their order


def why(recording: Recording, process: int | None, console: Console) -> None:
    """Print the chain of the process with id `process`; None: of the longest zombie. Names from the trace are escaped."""
    table = recording.lifecycles()
    chosen = worst(table) if process is None else process
    if chosen is None:
        print_text(console, Text("No process of this recording was a zombie.", "green"))
        return
    headline, *lines = chain(recording, chosen)
    print_text(console, Text(headline.text, headline.style))
    room = max((len(line.mark) for line in lines), default=0) + 1
    for line in lines:
        before, item = f" {line.mark:<{room}}", line.text.startswith("- ")
        text = line.text.removeprefix("- ")
        print_line(console, line._replace(text=text), f"{before}- " if item else before)
    zombies = int(table["zombie_ms"].notna().sum())
    if process is None and zombies > 1:
        print_text(console, Text(f"The longest of {zombies:,} zombies; `forktrace why TRACE PID` explains another one.", "dim"))


def print_line(console: Console, line: Line, before: str) -> None:
    """Print a line, its source line beside it, or below where there is no room."""
    text, room = Text(line.text, line.style), console.width - len(before)
    if line.source is None:
        print_text(console, text, before)
        return
    source = Text(shorten(line.source, max(min(MOST_SOURCE, room), 10)), "cyan")
    if len(text) + 3 + len(source) <= room:
        print_text(console, Text.assemble(text, "   ", source), before)
    else:
        print_text(console, text, before)
        print_text(console, source, " " * len(before))


def worst(table: pd.DataFrame) -> int | None:
    """Return the id of the process that was a zombie for longest; None: none was one."""
    zombie_ms = table["zombie_ms"]
    return int(table["id"].to_numpy()[np.nanargmax(zombie_ms)]) if zombie_ms.notna().any() else None


def chain(recording: Recording, process: int) -> list[Line]:
    """Return what became of a process, line by line, the headline first. Nothing in it can steer a terminal."""
    return list(_Chain(recording, process).lines())


class _Chain:
    """The lines about one process; `row` is its row of lifecycles."""

    def __init__(self, recording: Recording, process: int) -> None:
        self.recording = recording
        self.table = recording.whole.lifecycles()
        self.names = Names(self.table, recording.header["recorder_pid"])
        self.row = next(_rows(self.table.loc[[process]]))
        row = self.row
        self.name = self.names.pid(process)
        self.parent = self.names.of(row.parent_id, row.ppid) if row.ppid else _NOBODY_KNOWN
        self.orphan = not pd.isna(row.adopter_pid)
        self.adopter = self.names.of(row.adopter_id, row.adopter_pid) if self.orphan else self.parent
        self.adopters = list(orphans.adopters(recording.whole, self.names))
        self.not_init = next((one for one in self.adopters if process in one.orphans), None)

    def lines(self) -> Iterator[Line]:
        yield Line("", self._headline(), style="bold red" if self.row.zombie_open else "bold")
        events = [*self._fork(), *self._ran(), *self._failed(), *self._signals(), *self._orphaned(), *self._ended()]
        events += [*self._released(), *self._late()]
        shown: set[str] = set()
        for _, line in sorted(events, key=lambda each: each[0]):
            yield line._replace(source=None if line.source in shown else line.source)
            shown.add(line.source or "")
        yield from self._stolen()
        yield from self._adopts()
        yield from (Line("damage", text) for text in (*self._lost(), *failed.during(self.recording, self.names, self.row)))
        yield from self._why()
        if not pd.isna(self.row.notes):
            yield Line("note", printable(self.row.notes))

    def _headline(self) -> str:
        row = self.row
        if row.state == "running":
            age_ms = (self.recording.end_ns - row.fork_ns) / 1e6
            return f"{self.name} was still running after {duration(age_ms)}, when the recording ended"
        if not pd.isna(row.zombie_ms):
            return zombie_headline(self.name, row.zombie_ms, still=row.zombie_open, bound=bound_of(row))
        if row.reap_call == "autoreap" or (row.reap_call == "kernel" and not pd.isna(row.exit_ns)):
            return f"{self.name} was never a zombie: it was released as it ended"
        if pd.isna(row.zombie_ns) and pd.isna(row.reap_call):
            return f"{self.name} is gone; when it ended is not known"
        return f"{self.name} was a zombie; for how long is not known"

    def _at(self, time_ns: int, text: str, source: str | None = None) -> Event:
        return time_ns, Line(f"{(time_ns - self.recording.start_ns) / 1e9:+.3f}", text, source)

    def _fork(self) -> Iterator[Event]:
        row = self.row
        if row.origin == "target":
            command = shorten(printable(shlex.join(self.recording.header["command"])), MOST_ARGV)
            yield self._at(row.fork_ns, f"started by forktrace: {command}")
        elif row.origin == "forked":
            forker = row.parent_id if row.forker_pid == row.ppid else pd.NA
            who = self._actor(forker, row.forker_pid, row.forker_tid, row.fork_site)
            who = f"{self.parent} {name(row.fork_comm)}" if self._became() else who
            source = self._source(row.fork_site)
            short = not pd.isna(row.fork_site) and not passes_a_package(row.fork_site, self._calls(row.fork_stack))
            inward = (0 if source else 1) if short else MOST_FRAMES
            place = self._place(row.fork_site, row.fork_stack, row.fork_stack_status, inward=inward)
            adopted = f", as a child of {self.parent}" if row.forker_pid != row.ppid else ""
            yield self._at(row.fork_ns, f"forked  by {who}{place}{adopted}{self._became()}", source)
            yield from self._start()
        else:
            where = "before the recording" if row.origin == "attached" else "outside the recording"
            where = "by a fork that was not seen" if pd.isna(row.origin) else where
            yield self._at(row.fork_ns, f"began   {where}")

    def _became(self) -> str:
        """That its forker runs another program since."""
        row = self.row
        if pd.isna(row.fork_comm) or row.forker_pid != row.ppid:
            return ""
        return f"; since then {self.parent} runs {name(self.table.at[row.parent_id, 'comm'])}, which does not know this child"

    def _start(self) -> Iterator[Event]:
        """What the start of multiprocessing that made it did, step by step."""
        table = self.recording.whole.starts()
        steps = table[(table["start_id"] == self.row.id) & table["children"].notna() & table["polled"].notna()]
        if steps.empty:
            return
        one, cleared = next(_rows(steps)), steps["cleared_id"].dropna()
        reaped = some([self.names.pid(int(each)) for each in cleared.head(4)], len(cleared))
        polled = f"polled {count(one.polled, 'child', 'children') if one.polled else 'no child'}"
        method = "" if pd.isna(one.method) else f" (method {one.method})"
        words = f"{polled}{f', reaped {reaped}' if reaped else ''}; forked{method}; child set now {one.children:,}"
        yield self.row.fork_ns, Line("", f"start   {words}")

    def _actor(self, ident: Any, pid: Any, tid: Any, site: Any) -> str:
        """`4700`, with its name where no line tells what it is, `thread 4702 of 4700`."""
        if pd.isna(ident) and (pd.isna(pid) or pid == 0):
            return _NOBODY_KNOWN
        who = self.names.of(ident, pid, full=bool(pd.isna(site)))
        main = pd.isna(tid) or tid == 0 or (not pd.isna(pid) and tid == pid)
        return who if main else f"thread {tid} of {who}"

    def _place(self, site: Any, stack: Any, status: Any, call: str = "", inward: int = MOST_FRAMES) -> str:
        """` consumer.py:33 consume_task > Process.start > _cleanup > poll > waitpid(4711)`, or why there is no line.

        `inward`: how many calls at most are named from the line of the program on.
        """
        if pd.isna(site):
            return f"{f' with {call}' if call else ''} ({self._no_stack(status)})"
        own, calls = calls_of(site, self._calls(stack))
        words = [printable(site), *calls[:inward]] if own else calls
        words += [call] if call else []
        cut = "" if pd.isna(status) or status == "ok" else " (of a stack whose outermost frames are missing)"
        return f"{' ' if own else ', in its libraries: '}{' > '.join(words)}{cut}"

    def _calls(self, stack: Any) -> list[Call]:
        return [] if pd.isna(stack) else self.recording.calls(stack)

    def _no_stack(self, status: Any) -> str:
        """Why there is no line."""
        return (
            "recorded without stacks" if pd.isna(status) else str(explanations.texts()["stack-status"].get(status, "no line"))
        )

    def _source(self, site: Any) -> str | None:
        """The text of the source line of a site, where the trace has it."""
        return None if pd.isna(site) else source_text(self.recording, site)

    def _ran(self) -> Iterator[Event]:
        row = self.row
        if not pd.isna(row.exec_ns) and row.origin != "target":
            yield self._at(row.exec_ns, f"ran     {shorten(printable(row.argv), MOST_ARGV) if not pd.isna(row.argv) else '?'}")

    def _failed(self) -> Iterator[Event]:
        """The forks that it tried in vain."""
        for time_ns, text in failed.of_process(self.recording, self.row.id):
            yield self._at(time_ns, f"could not fork: {text}")

    def _signals(self) -> Iterator[Event]:
        """The signals that reached it and did not end it."""
        table = self.recording.whole.signals()
        mine = table[(table["id"] == self.row.id) & ~table["fatal"]].head(MOST_SIGNALS)
        for one in _rows(mine):
            site = one.sender_site
            words = self._sender(one.kind, one.sender_id, one.sender_pid, site, one.sender_stack)
            handled = not pd.isna(one.disposition) and one.disposition == "handler"
            after = "; it has a handler for that" if handled else ", which did not end it"
            yield self._at(one.time_ns, f"got     {one.signal}, {words}{after}", self._source(site))

    def _sender(self, kind: Any, ident: Any, pid: Any, site: Any, stack: Any) -> str:
        """`sent by 100 app.py:9 main > rq/worker.py work > kill_horse`."""
        who = self.names.of(ident, pid, full=bool(pd.isna(site)))
        who = "itself" if not pd.isna(ident) and ident == self.row.id else who
        line = "" if pd.isna(site) else " " + " > ".join([printable(site), *calls_of(site, self._calls(stack))[1]])
        return sender(None if pd.isna(kind) else kind, who) + line

    def _killing_stack(self) -> Any:
        """The stack at the kill call that ended it; `<NA>`: none is known."""
        table = self.recording.whole.signals()
        stacks = table.loc[((table["id"] == self.row.id) & table["fatal"]).to_numpy(bool, na_value=False), "sender_stack"]
        return stacks.iloc[-1] if len(stacks) else pd.NA

    def _orphaned(self) -> Iterator[Event]:
        row = self.row
        if not self.orphan:
            return
        who = f"{self.parent}, which ended" if row.ppid else "from outside the recording"
        text = f"lost    its parent {who}; {self.adopter} inherited it"
        parent = None if pd.isna(row.parent_id) else self.table.loc[row.parent_id]
        moments = [] if parent is None else [each for each in (parent["zombie_ns"], parent["exit_ns"]) if not pd.isna(each)]
        yield self._at(moments[0], text) if moments else (row.fork_ns, Line("", text))

    def _ended(self) -> Iterator[Event]:
        row = self.row
        if pd.isna(row.exit_ns):
            return
        failed = row.exit_path == "bootstrap" and not pd.isna(row.exit_code) and row.exit_code != 0
        name = "failed" if failed else row.exit_path
        path = "" if pd.isna(name) else explanations.texts()["exit-path"].get(name, "")
        after, source = f"after {duration(row.run_ms)}", self._source(row.killer_site)
        if not pd.isna(row.term_signal):
            core = " (core dumped)" if row.core_dumped else ""
            words = f"killed  by {row.term_signal} {after}{core}, "
            words += self._sender(row.killer_kind, row.killer_id, row.killer_pid, row.killer_site, self._killing_stack())
            words += f"; {path}" if path else ""
            own = row.killer_kind == "kernel" or (not pd.isna(row.killer_id) and row.killer_id == row.id)
        else:
            words = f"exited  {'?' if pd.isna(row.exit_code) else row.exit_code} {after}"
            words += f", {path}" if path else ""
            own = row.exit_path != "bootstrap"  # that line is the parent's, before the fork
        if own and not self._killed_itself():
            words, source = words + _at_line(row.exit_site), source or self._source(row.exit_site)
        yield self._at(row.exit_ns, words + self._failed_exec(), source)

    def _killed_itself(self) -> bool:
        """Whether the line of the kill, which has been named, is where it stood."""
        row = self.row
        return not pd.isna(row.killer_site) and not pd.isna(row.killer_id) and bool(row.killer_id == row.id)

    def _failed_exec(self) -> str:
        row = self.row
        if not pd.isna(row.exec_ns) or pd.isna(row.created_by) or pd.isna(row.exit_code):
            return ""
        failed = _EXEC_FAILED.get(row.created_by) == row.exit_code
        return "; it never ran a program: its exec failed (or a preexec_fn did)" if failed else ""

    def _released(self) -> Iterator[Event]:
        row = self.row
        gone_ns = self.recording.end_ns if pd.isna(row.reap_ns) else row.reap_ns
        if row.empty_waits:
            yield gone_ns, Line("", f"asked   {count(row.empty_waits, 'time')} in vain{self._where_asked()}")
        if row.state != "gone":
            return
        if pd.isna(row.reap_call) and pd.isna(row.reaper_pid):
            yield gone_ns, Line("", "gone    some time later; its release was not seen")
            return
        who = self._actor(row.reaper_id, row.reaper_pid, row.reaper_tid, row.reap_site)
        if row.reap_call == "autoreap":
            text = f"freed   by the kernel: {self.adopter} does not want to know of its children's ends"
        elif row.reap_call == "kernel":
            text = "removed by the kernel, with its PID namespace"
        elif row.reap_call == "unseen":
            text = f"reaped  by {who}, at the latest; its wait raised no event"
        else:
            place = self._place(row.reap_site, row.reap_stack, row.reap_stack_status, self._call())
            recorder = not pd.isna(row.reaper_pid) and row.reaper_pid == self.recording.header["recorder_pid"]
            place = f" with {self._call()}" if recorder else place
            text = f"reaped  by {who}{place}"
        line = self._at(gone_ns, text, self._source(row.reap_site))
        yield line if not pd.isna(row.reap_ns) else (gone_ns, Line("", text))

    def _late_waits(self) -> pd.DataFrame:
        table = late.asked(self.recording.whole)
        mine: pd.DataFrame = table[table["child_id"] == self.row.id]
        return mine

    def _late(self) -> Iterator[Event]:
        """The lines that waited for it when it was gone already."""
        for one in _rows(self._late_waits().head(MOST_SIGNALS)):
            who = self._actor(one.id, self.table.at[one.id, "pid"], one.tid, one.site)
            text = f"waited  by {who}{_at_line(one.site)}, too late, and got {late.got(one.seen)}"
            yield self._at(one.time_ns, text, self._source(one.site))

    def _lost(self) -> Iterator[str]:
        """That it failed, and that who waited for it did not learn so, since SIGCHLD is ignored."""
        lost = self._late_waits().query("lost and failed")
        if len(lost):
            yield f"it {late.ended(self.row)}, and the program did not learn of it"

    def _where_asked(self) -> str:
        """The lines that asked for it in vain, where they are certain: a wait in vain does not say for which child it was."""
        table = self.recording.whole.waits()
        table = table[(table["id"] == self.row.parent_id).fillna(False) & (table["target"] == "pid") & table["site"].notna()]
        asked = table.groupby("site", sort=False)["empty"].sum().sort_values(ascending=False, kind="stable")
        lines = [printable(str(site)) for site in asked.index[asked > 0]]
        certain = len(lines) == 1 or asked.sum() == self.row.empty_waits
        return f" at {some(lines[:4], len(lines))}" if lines and certain else ""

    def _call(self) -> str:
        """`waitpid(4711, WNOHANG)`: the call as a Python program writes it, else as the kernel has it."""
        row = self.row
        targets = _WAITID_TARGETS if row.reap_call == "waitid" else _WAIT4_TARGETS
        target = "?" if pd.isna(row.reap_target) else targets[row.reap_target].format(row.pid)
        arguments = [target] if pd.isna(row.reap_options) or not row.reap_options else [target, row.reap_options]
        python = row.reap_call == "wait4" and not pd.isna(row.reap_site)
        return f"{'waitpid' if python else row.reap_call}({', '.join(arguments)})"

    def _thefts(self, role: str) -> pd.DataFrame:
        table = self.recording.whole.stolen()
        found: pd.DataFrame = table.loc[(table[role] == self.row.id).to_numpy(bool, na_value=False)]
        return found

    def _stolen(self) -> Iterator[Line]:
        """Whose wait took the exit status of this process from whom; of a thief, what it took."""
        for one in _rows(self._thefts("id")):
            thief = self._actor(one.thief_id, self.row.reaper_pid, one.thief_tid, one.thief_site)
            yield Line("stolen", f"by {thief}{_at_line(one.thief_site)}", self._source(one.thief_site))
            owner = "its owner" if pd.isna(one.created_by) else explanations.creator(one.created_by).owner
            seen = "" if pd.isna(one.seen) else f", and got {explanations.texts()['seen'].get(one.seen, printable(one.seen))}"
            yield Line("from", f"{owner}, which waits for it{_at_line(one.owner_site)}{seen}", self._source(one.owner_site))
        taken = self._thefts("thief_id")["id"].drop_duplicates()
        taken = taken[taken != self.row.id]
        if len(taken):
            which = some([self.names.pid(int(one)) for one in taken.head(4)], len(taken))
            yield Line(
                "thief",
                f"{self.name} took the exit status of {which} from what waits for {'it' if len(taken) == 1 else 'them'}",
            )

    def _adopts(self) -> Iterator[Line]:
        """Of an orphan who inherited it and did not reap it; of one who does so, and what helps.

        A zombie that was there before the recording may be an orphan as well: of that it is told what its parent does.
        """
        whose = self.row.parent_id if self.row.origin == "attached" and self.row.state != "running" else self.row.id
        mine = next((one for one in self.adopters if not pd.isna(one.id) and not pd.isna(whose) and one.id == whose), None)
        for one in filter(None, (self.not_init, mine)):
            yield Line("finding", f"{one.text} ({orphans.NAME})")
        if mine:
            yield from (Line("", orphans.texts()[name]) for name in ("helps", "beware"))

    def _cause(self) -> str:
        """The cause; of a trace without stacks it may follow from the order of calls."""
        row = self.row
        name = "unknown" if pd.isna(row.reap_cause) else str(row.reap_cause)
        inferred = name == "unknown" and pd.isna(row.reap_site) and not pd.isna(row.cleared_by_id)
        return "next-start" if inferred else name

    def _why(self) -> Iterator[Line]:
        row, name = self.row, self._cause()
        if row.state == "running":
            return
        if row.origin == "target" and row.state == "gone":
            yield Line("why", "forktrace started it, so forktrace waited for it")
            return
        if name == "unknown" and pd.isna(row.reap_site):
            yield Line("why", f"not known ({self._no_stack(row.reap_stack_status)})")
            return
        cause, words = explanations.cause(name), self._words()
        reason = cause.at_end if cause.at_end and self._deleted_at_end() else cause.why
        noticed = row.zombie_open or row.zombie_ms >= NOTICEABLE_MS
        stolen = self._thefts("id")["thief_site"]
        text = reason.format(**words) + (cause.late if noticed and not len(stolen) else "")
        if name == "never" and self.orphan:
            text = f"{self.parent} ended without waiting for it; {self.adopter} inherited it and has not waited for it either"
        yield Line("why", f"{text} ({printable(name)})")
        if len(stolen):
            yield from fix_lines([explanations.remedy(each, **words) for each in ("own-children", "leave-it")], stolen.iloc[0])
        elif noticed or cause.accident:
            remedies = self._creator().fix if cause.fix is None or self.not_init else cause.fix
            site, stack = (row.fork_site, row.fork_stack) if cause.at == "fork" else (row.reap_site, row.reap_stack)
            own = not pd.isna(site) and calls_of(site, self._calls(stack))[0]
            yield from fix_lines([explanations.remedy(each, **words) for each in remedies], site if own else pd.NA)
        elif not pd.isna(row.zombie_ms):
            yield Line("fix", "none needed: it was reaped at once")
        if self.not_init:
            yield Line("beware", orphans.texts()["beware"])

    def _deleted_at_end(self) -> bool:
        """Whether the interpreter deleted its Popen as it ended: no line of the program is below that."""
        calls = self._calls(self.row.reap_stack)
        return bool(calls) and calls[0].frame.name == "__del__"

    def _words(self) -> dict[str, str]:
        """What the texts of explanations.toml can name."""
        row = self.row
        start = "another process" if pd.isna(row.cleared_by_id) else self.names.pid(int(row.cleared_by_id))
        reaper = self.adopter if pd.isna(row.reaper_pid) else self.names.of(row.reaper_id, row.reaper_pid)
        it = explanations.object_of(self._source(row.fork_site), self._creator().it)
        adopter = self.not_init.name if self.not_init else self.adopter
        library = "a library" if pd.isna(row.reap_library) else printable(row.reap_library)
        return {"start": start, "reaper": reaper, "library": library, "it": it, "parent": self.parent, "adopter": adopter}

    def _creator(self) -> explanations.Creator:
        made = "unknown" if pd.isna(self.row.created_by) else self.row.created_by
        return explanations.creator("orphan" if self.orphan or self.not_init else made)


def _rows(table: pd.DataFrame) -> Iterator[Any]:
    """The rows of a table as named tuples."""
    yield from table.itertuples()


def _at_line(site: Any) -> str:
    return "" if pd.isna(site) else f" at {printable(site)}"


def fix_lines(remedies: list[str], site: Any) -> Iterator[Line]:
    """What would help, and the line to change."""
    where = "" if pd.isna(site) else printable(site).rpartition(" ")[0]
    if len(remedies) == 1:
        yield Line("fix", f"{where}: {remedies[0]}" if where else remedies[0])
    elif remedies:
        yield Line("fix", f"{where}, one of:" if where else "one of:")
        yield from (Line("", f"- {each}") for each in remedies)
