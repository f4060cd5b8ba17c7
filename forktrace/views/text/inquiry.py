"""Why a running process has zombies: what one look shows, and what watching for a while adds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.text import Text

from forktrace.analysis.causes.programs import entry_of
from forktrace.analysis.causes.rules import load
from forktrace.analysis.causes.sites import Libraries, Owner, Stack, named_own, named_package, shown_names, site_frame
from forktrace.analysis.recording import Call as Frames
from forktrace.analysis.recording import Recording
from forktrace.trace.inquiry import Call, Inquiry, OtherProcess, Thread, Watched
from forktrace.trace.snapshot import Zombie
from forktrace.trace.stacks import Frame
from forktrace.trace.words import about, count, printable
from forktrace.views import explanations
from forktrace.views.text.ps import IS_INIT, about_parent, name, not_yet, print_zombies
from forktrace.views.text.screen import print_text
from forktrace.views.text.why import print_line
from forktrace.views.why.calls import Sources, calls_of
from forktrace.views.why.remedies import fix_lines, package_at, package_lines
from forktrace.views.why.sentences import Line
from forktrace.views.words import shorten, some

MOST_COMMAND: Final = 100
MOST_THREADS: Final = 8  # of those besides the main one
MOST_FILES: Final = 3
_TITLE: Final = 9  # as in `forktrace ps`

_CALLS: Final = {
    "futex": "waits for a lock",
    "nanosleep": "sleeps",
    "clock_nanosleep": "sleeps",
    "pause": "waits for a signal",
    "rt_sigsuspend": "waits for a signal",
    "rt_sigtimedwait": "waits for a signal",
    "restart_syscall": "goes on with a wait that a stop interrupted",
}
_STATES: Final = {
    "R": "runs",
    "S": "sleeps",
    "D": "waits in the kernel",
    "T": "is stopped",
    "t": "is stopped",
    "Z": "has ended",
}
_SERVER: Final = "forkserver import main"  # in what multiprocessing starts it with
_NOT_FILES: Final = ("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2")


class Place(NamedTuple):
    """Where a thread is: `consumer.py:29 main`, the calls inward from there, and the frame itself; no frame: no line."""

    site: str
    calls: Sequence[str]
    frame: Frame | None
    own: bool = False

    @property
    def text(self) -> str:
        """`consumer.py:29 main > KafkaConsumer.poll > ...`."""
        if self.frame is None or self.own or not self.calls:
            return " > ".join([self.site, *self.calls])
        return f"in its libraries: {' > '.join(self.calls)}"


class _Program:
    """Knows which code is the program's own: by the libraries of its Python, each with a version, and its arguments."""

    def __init__(self, libraries: Mapping[str, str], argv: Sequence[str], frames: Sequence[Frame]) -> None:
        self.rules = load()
        self._libraries = Libraries(libraries)
        self._owner = Owner(frozenset(named_package(entry_of(list(argv)), self._libraries)))
        self._shown = shown_names({frame.file for frame in frames}, self._libraries)

    def stands(self, frames: Sequence[Frame]) -> tuple[Stack, Frame, str]:
        """Return the frames that are its own process's, the innermost first; which of them is the site, and that as text."""
        inner = self.rules.inner(frames, [self._libraries.place(frame.file) for frame in frames])
        frame = site_frame(inner, self._owner)
        return inner, frame, f"{self._shown.get(frame.file, frame.file)}:{frame.line or '?'} {frame.name}"


def place_of(frames: Sequence[Frame], libraries: Mapping[str, str], argv: Sequence[str]) -> str:
    """Return the line of a program's own that a stack of it stands on, as `consumer.py:33 consume`."""
    return _Program(libraries, argv, frames).stands(frames)[2]


class Places:
    """Says of each thread of a process where it is."""

    def __init__(self, seen: Inquiry) -> None:
        self._not_walked = seen.no_python
        self._program = _Program(
            dict.fromkeys(seen.libraries, seen.python or ""),
            seen.argv,
            [frame for thread in seen.threads for frame in thread.frames],
        )

    def of(self, thread: Thread) -> Place:
        """Return the innermost line of the program's own, or of all where none is."""
        if not thread.frames:
            return Place(self._no_stack(thread), (), None)
        inner, frame, site = self._program.stands(thread.frames)
        rules = self._program.rules
        calls = [Frames(one, rules.name_of(one, place), *place[:2]) for one, place in reversed(inner)]
        own, words = calls_of(site, calls)
        return Place(printable(site), words, frame, own)

    def _no_stack(self, thread: Thread) -> str:
        if thread.status == "no-runtime" and self._not_walked:
            return f"no line: {printable(self._not_walked)}"
        return str(explanations.texts()["stack-status"][thread.status])


def show(console: Console, seen: Inquiry) -> None:
    """Print what is known of a process at once: its zombies, where its threads are and what they wait for."""
    zombies = seen.parent.zombies if seen.parent else ()
    print_text(console, Text.assemble((_name(seen), "bold"), f": {count(len(zombies), 'zombie') if zombies else 'no zombies'}"))
    if seen.zombie:
        _print(console, "asked", f"{seen.asked} is one of them; only {seen.pid}, its parent, can reap it")
    elif seen.asked != seen.pid:
        _print(console, "asked", f"{seen.asked} is a thread of it, or a zombie that is gone by now")
    if seen.ns_pid == 1 and not seen.parent:
        _print(console, "is", IS_INIT)
    if seen.threads[0].state == "Z":
        _print(console, "ended", f"its main thread: {not_yet(sum(one.tid is not None for one in seen.threads) - 1)}", "yellow")
    for title, text in about_parent(seen.parent) if seen.parent else ():
        print_text(console, text, f"  {title:<{_TITLE}}")
    _print_threads(console, seen)
    if zombies:
        print_zombies(console, zombies)
    for other in seen.below[:MOST_FILES]:
        _print(console, "below it", f"{name(other)}: {count(len(other.zombies), 'zombie')}; forktrace why -p {other.pid}")


def _name(seen: Inquiry) -> str:
    return _command(seen.pid, seen.argv, MOST_COMMAND)


def _command(pid: int, argv: Sequence[str], most: int) -> str:
    program, *arguments = argv
    return f"{pid} {shorten(printable(' '.join([program.rpartition('/')[2] or program, *arguments])), most)}"


def _print(console: Console, title: str, text: str, style: str = "") -> None:
    print_text(console, Text(text, style), f"  {title:<{_TITLE}}")


def _print_threads(console: Console, seen: Inquiry) -> None:
    if seen.denied:
        _print(console, "threads", "only their own user and root may see where they are and what they wait for")
        return
    places = Places(seen)
    for number, thread in enumerate(seen.threads[: MOST_THREADS + 1]):
        title = "main" if number == 0 and thread.tid == seen.pid else str(thread.tid or "thread")
        place = places.of(thread)
        source = seen.sources.get((place.frame.file, place.frame.line)) if place.frame else None
        moving = " (it runs; this is how far its stack held still)" if thread.status == "changing" else ""
        line = Line(title, place.text + moving, printable(source) if source else None)
        print_line(console, line, f"  {title:<{_TITLE}}")
        if waits := waiting(thread):
            _print(console, "", waits)
        for text in _waits_for(seen, thread.call):
            _print(console, "", text)
    if len(seen.threads) > MOST_THREADS + 1:
        rest = Counter(places.of(thread).site for thread in seen.threads[MOST_THREADS + 1 :])
        most = [f"{number} at {site}" for site, number in rest.most_common(MOST_FILES + 1)]
        _print(console, "", f"and {count(rest.total(), 'more thread')}: {some(most, len(rest))}")


def waiting(thread: Thread) -> str:
    """Return what a thread waits for, in words; nothing where that is not known."""
    if thread.call:
        return _call_words(thread.call)
    if thread.state == "R":
        return "runs"
    if thread.state == "D" and thread.wchan:
        return f"waits in the kernel, not to be interrupted: {printable(thread.wchan)}"
    return ""


def _waits_for(seen: Inquiry, call: Call | None) -> Iterator[str]:
    """Who could end a wait, and how to ask about it: the child, or who has the other end of a pipe."""
    if call is None:
        return
    children = [one for one in seen.awaited.values() if call.child in (-1, one.pid)]
    for child in children[:MOST_FILES]:
        yield f"child {_other(child)} {_STATES.get(child.state or '', 'is there')}: forktrace why -p {child.pid}"
    for pipe in dict.fromkeys(file for _, file in call.files[:MOST_FILES] if file in seen.holders):
        others = seen.holders[pipe]
        if not others:
            yield f"nobody that can be seen has the other end of {pipe}"
        for one in others[:MOST_FILES]:
            itself = f"{seen.pid} itself, so that it waits for itself: it has to close that end"
            yield f"the other end of {pipe} is open in {itself if one.pid == seen.pid else _next(one)}"
        if len(others) > MOST_FILES:
            yield f"and in {count(len(others) - MOST_FILES, 'more process')}"


def _other(one: OtherProcess) -> str:
    return _command(one.pid, one.argv, MOST_COMMAND * 3 // 4)


def _next(one: OtherProcess) -> str:
    if _SERVER in " ".join(one.argv) and one.children:
        children = some([str(child) for child in one.children[:MOST_FILES]], len(one.children))
        return f"{one.pid}, the fork server, until its child ends: {children}; forktrace why -p {one.children[0]}"
    return f"{_other(one)}: forktrace why -p {one.pid}"


def _call_words(call: Call) -> str:
    if call.child is not None:
        whom = f"child {call.child}" if call.child > 0 else "any child" if call.child == -1 else "a child of a group"
        return f"waits for {whom}: {call.name}({call.child}{f', {call.options}' if call.options else ''})"
    names = [f"{printable(what)} (fd {number})" for number, what in call.files[: MOST_FILES + 1]]
    words = _CALLS.get(call.name, f"in {call.name}{' of ' if names else ''}{some(names, len(call.files))}")
    if call.name in _NOT_FILES and not names:
        words = f"sleeps, in {call.name}" if call.name.startswith(("select", "pselect")) else f"in {call.name}"
    if call.timeout_s is None or math.isinf(call.timeout_s):
        return words + (", without a timeout" if call.timeout_s and (names or call.name == "futex") else "")
    return f"{words}, for {about(call.timeout_s)} at most"


def answer(console: Console, first: Inquiry, watched: Watched, recording: Recording | None) -> None:
    """Print what watching has added to what `show` printed, why there are zombies, and what would help."""
    told = _Answer(first, watched, recording)
    console.print()
    for line in told.lines():
        before, item = f"  {line.mark:<{_TITLE}}", line.text.startswith("- ")
        print_line(console, line._replace(text=line.text.removeprefix("- ")), f"{before}- " if item else before)


class _Answer:
    """What can be said after watching; a recording tells of each fork and wait, looks only of where the threads were."""

    def __init__(self, first: Inquiry, watched: Watched, recording: Recording | None) -> None:
        self._first = first
        self._last = watched.looks[-1] if watched.looks else first
        self._looks = (first, *watched.looks)
        self._zombies: Sequence[Zombie] = self._last.parent.zombies if self._last.parent else ()
        held = self._last.held or frozenset()
        self._held = [one for one in self._zombies if one.pid in held]
        self._places = Places(self._last)
        self._ended = watched.ended
        self._recording = recording
        self._lasted = about(watched.seconds)
        if recording:
            self._lasted = about((recording.end_ns - recording.start_ns) / 1e9)
            table, me = recording.lifecycles(), recording.find_process(str(first.pid))
            children = table[(table["parent_id"] == me).fillna(False)]
            self._started = children[children["origin"] == "forked"]
            self._reaped = children[children["reap_ns"].notna()]
            waits = recording.waits()
            self._waits = waits[(waits["id"] == me).fillna(False)].sort_values("calls", ascending=False, kind="stable")

    def lines(self) -> Iterator[Line]:
        yield from self._seen()
        if self._ended:
            yield Line("now", f"{self._first.pid} has ended")
        elif self._zombies:
            yield Line("why", "; ".join(self._why()), style="bold")
        else:
            yield Line("now", "it has no zombies any more")
        if self._zombies or (self._recording is not None and not self._started.empty):
            yield from self._fix()

    def _seen(self) -> Iterator[Line]:
        """What happened while it was watched."""
        words = [] if self._recording is None else [*self._starts(), *self._reaps()]
        grown = len(self._zombies) - (len(self._first.parent.zombies) if self._first.parent else 0)
        more = "more" if grown > 0 else "fewer"
        words += [f"{count(abs(grown), 'zombie')} {more} than before" if grown else "as many zombies as before"]
        yield Line("seen", f"in {self._lasted}: {'; '.join([*words, *self._moves()])}")
        if self._recording is not None:
            yield from self._wait_calls()

    def _starts(self) -> Iterator[str]:
        if self._started.empty:
            yield "no child was started"
            return
        sites = self._started["fork_site"].dropna().value_counts()
        where = f" at {some([printable(str(site)) for site in sites.index[:4]], len(sites))}" if len(sites) else ""
        yield f"{count(len(self._started), 'child', 'children')} started{where}"

    def _reaps(self) -> Iterator[str]:
        if self._reaped.empty:
            return
        causes = self._reaped["reap_cause"].astype(str).value_counts()
        how = [f"{number} {explanations.cause(str(name)).short}" for name, number in causes.items()]
        yield f"{count(len(self._reaped), 'child', 'children')} reaped: {', '.join(how[:MOST_FILES])}"

    def _wait_calls(self) -> Iterator[Line]:
        """The places that asked for children, those that asked oftenest first."""
        if self._waits.empty:
            yield Line("waits", "no wait for a child came back")
        for number, one in enumerate(self._waits.head(MOST_FILES).itertuples()):
            row: Any = one
            place = "in a place without a line" if row.site != row.site else printable(row.site)
            options = f", {row.options}" if row.options else ""
            result = f"reaped {row.reaps}" if row.reaps else "got none"
            text = f"{row.call}({row.target}{options}) {count(row.calls, 'time')} at {place}: {result}"
            yield Line("waits" if number == 0 else "", text)

    def _moves(self) -> Iterator[str]:
        """Whether the main thread went on, as far as looks can tell."""
        main = [(look, look.threads[0]) for look in self._looks if look.threads[0].frames]
        if len(main) > 1:
            (site, most), *others = Counter(Places(look).of(thread).site for look, thread in main).most_common()
            yield f"the main thread was at {site} in {f'{most} of' if others else 'all'} {len(main)} looks"

    def _why(self) -> Iterator[str]:
        if self._last.parent and self._last.parent.state in ("T", "t"):
            yield "it is stopped, and reaps nothing until it goes on"
        elif self._recording is not None:
            yield self._start_words()
        main = self._last.threads[0]
        child = main.call.child if main.call else None
        if readers := self._who_has_the_pipe():
            yield f"the main thread reads a pipe to its end before it reaps, and {some(readers, len(readers))} has that open"
        else:
            yield from self._whose()
        if child is not None and child > 0:
            yield f"the main thread is at {self._places.of(main).text}, and waits for child {child} alone"
        elif main.frames:
            place = self._places.of(main)
            yield f"the main thread is at {place.site if place.own else place.text}"

    def _start_words(self) -> str:
        if self._started.empty:
            return f"no start in {self._lasted}"
        return f"{count(len(self._started), 'start')} in {self._lasted}"

    def _whose(self) -> Iterator[str]:
        """Whom the zombies wait for."""
        held, rest = len(self._held), len(self._zombies) - len(self._held)
        if held:
            verb, whose = ("waits", "its") if held == 1 else ("wait", "their")
            yield f"{count(held, 'zombie')} {verb} for the next Process.start(), active_children() or a join of {whose} own"
        if rest and self._last.held is not None:
            which = (
                f"{rest} more {'is' if rest == 1 else 'are'}"
                if held
                else f"{count(rest, 'zombie')} {'is' if rest == 1 else 'are'}"
            )
            yield f"{which} not multiprocessing's: no start sweeps them, the program itself has to wait for each"
        elif rest:
            yield f"{count(rest, 'zombie')} {'waits' if rest == 1 else 'wait'} for a wait call of {self._last.pid}"
        if rest and self._last.ns_pid == 1:
            yield "as PID 1 of its namespace it inherits orphans, and these may be some of them"

    def _who_has_the_pipe(self) -> list[str]:
        """Who keeps the main thread in communicate(); nobody where it is not there."""
        main = self._last.threads[0]
        reads = main.call is not None and any(frame.name == "communicate" for frame in main.frames)
        files = [file for _, file in main.call.files] if main.call and reads else []
        return [_other(one) for file in files for one in self._last.holders.get(file, ())[:MOST_FILES]]

    def _fix(self) -> Iterator[Line]:
        """What would help, at the line that forks if one was seen to."""
        if self._who_has_the_pipe():
            yield Line("fix", explanations.delay("watched").fix)
            return
        site, made = None, self._maker()
        if self._recording is not None and not self._started.empty:
            known = self._started.dropna(subset=["fork_site"])
            made = str(self._started["created_by"].iloc[-1])
            site = None if known.empty else str(known["fork_site"].mode().iloc[0])
        creator = explanations.creator(made)
        source = Sources(self._recording).text(site) if self._recording is not None and site else None
        pid = str(self._last.pid)
        words = {"it": explanations.object_of(source, creator.it), "parent": pid, "adopter": pid, "reaper": pid, "start": pid}
        if package := self._package(site):
            yield from package_lines(package, str(site))
            return
        names = [name for name in creator.fix if made != "orphan" or name != "parent-waits"]  # their parents are gone
        yield from fix_lines([explanations.remedy(each, **words) for each in names], site)

    def _package(self, site: str | None) -> str:
        """The installed package in whose file the line that forks lies; "" where it is the user's."""
        if self._recording is None or site is None:
            return ""
        stack = str(self._started.loc[self._started["fork_site"].eq(site).fillna(False), "fork_stack"].iloc[0])
        return package_at(site, self._recording.calls(stack), named_own(self._recording.header))

    def _maker(self) -> str:
        """What probably made the zombies, by what shows from outside."""
        if self._held:
            return "multiprocessing"
        if self._last.ns_pid == 1:
            return "orphan"
        if self._last.python is None:
            return "native"
        own = self._last.threads[0].comm
        return "os-fork" if any(zombie.comm == own for zombie in self._zombies) else "subprocess"
