"""What `strace -f` saw of a command: one `Seen` a process, from its log.

Its moments are bounds: a call took place between the stop at its entry, which strace stamps, and the stop at its return. Where
strace writes both as one line, only the entry is stamped; but strace is one process, so it had seen the return before it
stamped the next line. Times are CLOCK_REALTIME ns, as strace writes them.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

CALLS: Final = ("fork", "vfork", "clone", "clone3", "execve", "execveat", "wait4", "waitid", "exit", "exit_group")
FORKS: Final = ("fork", "vfork", "clone", "clone3")
UNKNOWN: Final = "???"  # a call of a thread that was killed before strace knew which
CLONE_THREAD, CLONE_PARENT = 0x10000, 0x8000
WUNTRACED, WCONTINUED, WNOWAIT = 2, 8, 0x1000000

# Numbers stay numbers, times have nanoseconds, and only calls of these kinds stop the program.
STRACE: Final = (
    "strace", "-f", "-q", "-X", "raw", "--absolute-timestamps=format:unix,precision:ns",
    "--seccomp-bpf", "-e", "trace=" + ",".join(CALLS), "-e", "signal=!SIGCHLD",
)  # fmt: skip


class Bounds(NamedTuple):
    """A moment lies between these two, both ns."""

    early: int
    late: int


@dataclass(eq=False)
class Seen:
    """One process. `None` is what the log does not say."""

    pid: int
    forker_pid: int | None = None
    forker_tid: int | None = None
    parent: Seen | None = None
    fork: Bounds | None = None
    execs: list[Bounds] = field(default_factory=list)
    status: int | None = None  # as its own threads ended
    told: int | None = None  # as its reaper was told
    exit: Bounds | None = None
    reaper: Seen | None = None
    reaper_tid: int | None = None
    reap: Bounds | None = None
    cut_exec_ns: int | None = None  # when it entered an exec that strace did not see return

    threads: set[int] = field(default_factory=set, repr=False)
    _codes: dict[int, int] = field(default_factory=dict, repr=False)
    _leaving: int | None = field(default=None, repr=False)
    first_ns: int = field(default=0, repr=False)
    _last_ns: int = field(default=0, repr=False)

    @property
    def spoke(self) -> bool:
        """It made a call, not only ended."""
        return self._last_ns != 0


class Step(NamedTuple):
    """What a thread did, in the order of its own calls: `fork` or `reap` of a process."""

    tid: int
    what: str
    process: Seen


@dataclass
class Log:
    """The processes in the order in which strace met them, and the steps of all threads.

    `cut` holds the calls that strace did not see return, because a signal killed the thread inside: thread, name, entry.
    """

    processes: list[Seen]
    steps: list[Step]
    cut: list[tuple[int, str, int]]


_LINE = re.compile(r"(?P<tid>\d+) +(?P<stamp>\d+\.\d+) (?P<text>.*)")
_CALL = re.compile(r"(?P<name>\w+|\?\?\?)\((?P<arguments>.*)\) += (?P<result>-?\d+|\?)(?P<rest>.*)")
_RESUMED = re.compile(r"<\.\.\. (?P<name>\w+|\?\?\?) resumed>")
_EXITED = re.compile(r"\+\+\+ exited with (\d+) \+\+\+")
_KILLED = re.compile(r"\+\+\+ killed by (\w+)( \(core dumped\))? \+\+\+")
_SUPERSEDED = re.compile(r"\+\+\+ superseded by execve in pid (\d+) \+\+\+")
_FLAGS = re.compile(r"flags=(0x[0-9a-f]+|\d+)")
_WIFEXITED = re.compile(r"WIFEXITED\(s\) && WEXITSTATUS\(s\) == (\d+)")
_WIFSIGNALED = re.compile(r"WIFSIGNALED\(s\) && WTERMSIG\(s\) == (\w+)( && WCOREDUMP\(s\))?")
_SIGINFO = re.compile(r"si_code=(0x[0-9a-f]+|\d+), si_pid=(\d+).*?si_status=(\w+)")
_UNFINISHED = re.compile(r" <(unfinished|pid changed to \d+) \.\.\.>$")


def ns(text: str) -> int:
    """Return decimal seconds in ns, without a float between."""
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 10**9 + int(fraction.ljust(9, "0")[:9])


def read(lines: Iterable[str]) -> Log:
    """Return what the log says. ValueError: a line that is none of strace's."""
    reader = _Reader()
    parsed = [_parsed(line.rstrip("\n")) for line in lines]
    for (tid, now, text), following in zip(parsed, [*parsed[1:], parsed[-1]], strict=True):
        reader.take(tid, now, text, following[1])
    reader.drop_unheard()
    return Log(reader.processes, reader.steps, reader.cut)


def _parsed(line: str) -> tuple[int, int, str]:
    found = _LINE.fullmatch(line)
    if not found:
        raise ValueError(f"not a line of strace -f: {line!r}")
    return int(found["tid"]), ns(found["stamp"]), found["text"]


class _Reader:
    """Follows which thread is whose; numbers may be used again once their thread is gone."""

    def __init__(self) -> None:
        self.processes: list[Seen] = []
        self.steps: list[Step] = []
        self.open: dict[int, tuple[int, str]] = {}  # of each thread inside a call: when it entered, the text so far
        self.cut: list[tuple[int, str, int]] = []
        self._next_ns = 0
        self._last_forks: list[Step] = []  # of threads that were killed
        self._of: dict[int, Seen] = {}  # the process of each living thread
        self._unborn: dict[int, list[Seen]] = {}  # processes whose making call has not returned in the log, by number
        self._numbered: dict[int, list[Seen]] = {}  # all processes by number, the oldest first

    def take(self, tid: int, now: int, text: str, next_ns: int) -> None:
        """Read one line; `next_ns` is the stamp of the one after it."""
        self._next_ns = next_ns
        if text.startswith("+++"):
            self._ended(tid, now, text)
        elif not text.startswith("---"):
            self._call(tid, now, text)

    def drop_unheard(self) -> None:
        """Take back children that not even the end was heard of: what strace read was no result, for a kill was faster."""
        for step in [step for step in self._last_forks if step.process.exit is None]:
            self.steps.remove(step)
            self.processes.remove(step.process)
            assert step.process.fork
            self.cut.append((step.tid, UNKNOWN, step.process.fork.early))

    def _process(self, tid: int, now: int) -> Seen:
        """The process of a thread that makes itself heard; one that nobody is known to have made yet is taken for a process."""
        if tid not in self._of:
            fresh = Seen(tid, threads={tid}, first_ns=now)
            self._of[tid] = fresh
            self._unborn.setdefault(tid, []).append(fresh)
            self._add(fresh)
        return self._of[tid]

    def _add(self, process: Seen) -> None:
        self.processes.append(process)
        self._numbered.setdefault(process.pid, []).append(process)

    def _call(self, tid: int, now: int, text: str) -> None:
        process, since = self._process(tid, now), now
        if resumed := _RESUMED.match(text):
            since, before = self.open.pop(tid, (now, resumed["name"] + "("))
            text = before + text[resumed.end() :]
        if left_open := _UNFINISHED.search(text):
            if not text.startswith(UNKNOWN):
                process._last_ns = now
            self.open[tid] = since, text[: left_open.start()]
            self._left(tid, text)
            return
        call = _CALL.fullmatch(text)
        if not call:
            raise ValueError(f"not a call: {text!r}")
        self._left(tid, text)
        if call["result"] == "?" or "(errno 18446744" in call["rest"]:  # killed inside: what strace read is no result
            if call["name"] != UNKNOWN:
                process._last_ns = max(process._last_ns, since)  # what strace says of the return, it says after the death
            self._cut(tid, call["name"], since)
            return
        process._last_ns = now
        bounds = Bounds(since, now if resumed else self._next_ns)
        result = int(call["result"])
        if call["name"] in FORKS and result > 0:
            self._made(tid, result, call["arguments"], bounds)
        elif call["name"] in ("execve", "execveat") and result == 0:
            self._of[tid].execs.append(bounds)
        elif call["name"] in ("wait4", "waitid") and result >= 0:
            self._waited(tid, call["name"], result, call["arguments"], bounds)

    def _left(self, tid: int, text: str) -> None:
        """The first exit_group of a process decides its status, unless a signal does."""
        process = self._of[tid]
        if text.startswith("exit_group(") and process._leaving is None:
            process._leaving = int(re.findall(r"-?\d+", text)[0]) & 0xFF

    def _cut(self, tid: int, name: str, entered: int) -> None:
        self.cut.append((tid, name, entered))
        if name in ("execve", "execveat"):
            self._of[tid].cut_exec_ns = entered

    def _made(self, tid: int, child: int, arguments: str, bounds: Bounds) -> None:
        flags = _FLAGS.search(arguments)
        number = int(flags[1], 0) if flags else 0
        maker = self._of[tid]
        waiting = [one for one in self._unborn.get(child, []) if one.first_ns >= bounds.early]
        if number & CLONE_THREAD:
            self._is_thread(child, maker, waiting)
            return
        if waiting:
            made = waiting[0]
            self._unborn[child].remove(made)
        else:
            made = Seen(child, threads={child})
            self._of[child] = made
            self._add(made)
        made.forker_pid, made.forker_tid, made.fork = maker.pid, tid, bounds
        made.parent = maker.parent if number & CLONE_PARENT else maker
        self.steps.append(Step(tid, "fork", made))

    def _is_thread(self, tid: int, maker: Seen, waiting: list[Seen]) -> None:
        if not waiting:
            self._of[tid] = maker
            maker.threads.add(tid)
            return
        # What was taken for a process is a thread of `maker`: all it did was the maker's doing.
        mistaken = waiting[0]
        for known in (self._unborn[tid], self.processes, self._numbered[tid]):
            known.remove(mistaken)
        for thread in [thread for thread, owner in self._of.items() if owner is mistaken]:
            self._of[thread] = maker
        for made in self.processes:
            if made.parent is mistaken:
                made.parent, made.forker_pid = maker, maker.pid
            if made.reaper is mistaken:
                made.reaper = maker
        maker.threads |= mistaken.threads
        maker._codes |= mistaken._codes
        if maker._leaving is None:
            maker._leaving = mistaken._leaving

    def _waited(self, tid: int, name: str, result: int, arguments: str, bounds: Bounds) -> None:
        found = _wait4(result, arguments) if name == "wait4" else _waitid(arguments)
        if found is None:
            return
        pid, status = found
        candidates = [one for one in self._numbered.get(pid, []) if one.reap is None]
        if not candidates or (status is None and candidates[-1].exit is None):
            return
        child, waiter = candidates[-1], self._of[tid]
        child.reaper, child.reaper_tid, child.reap = waiter, tid, bounds
        child.told = status
        self.steps.append(Step(tid, "reap", child))

    def _ended(self, tid: int, now: int, text: str) -> None:
        process = self._process(tid, now)
        if superseded := _SUPERSEDED.match(text):
            # The thread that called exec is called as its leader was from here on, and its call is the leader's to resume.
            thread = int(superseded[1])
            entered, _ = self.open.pop(thread, (now, ""))
            process.execs.append(Bounds(entered, now))
            self.open[tid] = now, "superseded("
            self._of.pop(thread, None)
            process.threads.discard(thread)
            return
        if tid in self.open:
            entered, begun = self.open.pop(tid)
            self._cut(tid, begun.partition("(")[0], entered)
        code, killed = _EXITED.match(text), _KILLED.match(text)
        if code:
            process._codes[tid] = int(code[1]) << 8
        elif killed:
            self._last_forks += [step for step in self.steps if step.tid == tid and step.what == "fork"][-1:]
            process._codes[tid] = number_of(killed[1]) | (0x80 if killed[2] else 0)
            process._leaving = None
        self._of.pop(tid, None)
        process.threads.discard(tid)
        if process.threads:
            return
        process.exit = Bounds(process._last_ns, now)
        by_signal = [status for status in process._codes.values() if status & 0x7F]
        leader = process._codes.get(process.pid)
        said = by_signal[0] if by_signal else leader if process._leaving is None else process._leaving << 8
        process.status = said


def number_of(name: str) -> int:
    """Return the number of `SIGKILL` or `SIGRT_3`; strace counts from the kernel's first real-time signal, 32."""
    if name.startswith("SIGRT_"):
        return 32 + int(name[6:])
    return 32 if name == "SIGRTMIN" else int(signal.Signals[name])


def _wait4(pid: int, arguments: str) -> tuple[int, int | None] | None:
    """Whom a wait4 reaped, and the status it was given; None: nobody."""
    if pid == 0:
        return None
    if exited := _WIFEXITED.search(arguments):
        return pid, int(exited[1]) << 8
    if killed := _WIFSIGNALED.search(arguments):
        return pid, number_of(killed[1]) | (0x80 if killed[2] else 0)
    if "[" in arguments:
        return None  # stopped or continued
    return pid, None


def _waitid(arguments: str) -> tuple[int, int | None] | None:
    options = int(arguments.split(", ")[-2], 0)
    info = _SIGINFO.search(arguments)
    if not info or options & WNOWAIT:
        return None
    code, pid = int(info[1], 0), int(info[2])
    if code not in (1, 2, 3):
        return None
    status = number_of(info[3]) if info[3].startswith("SIG") else int(info[3], 0)
    return pid, {1: (status & 0xFF) << 8, 2: status, 3: status | 0x80}[code]
