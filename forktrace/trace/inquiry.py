"""What `forktrace why -p` saw of a running process from outside: made by `now`, shown by `views`.

Names and texts come from other programs: escape them for a screen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from forktrace.trace.snapshot import Parent, Zombie
from forktrace.trace.stacks import Frame


@dataclass(frozen=True)
class Call:
    """The system call that a thread is in.

    Attributes:
        name: as the kernel's manual has it; `system call 300` for one that is not among those that usually block
        files: the descriptors that it is for, each with what it is: `/dev/tty`, `TCP 10.0.0.1:9092`, `pipe:[4242]`
        timeout_s: it returns after so many seconds at the latest, counted from its begin, or from now where it names a moment;
            inf: it has no timeout; None: not known
        child: the number of the process that it waits for, negative of a group, -1 of any child; None: it waits for no process
        options: of a wait call, `WNOHANG|WUNTRACED`
    """

    name: str
    files: tuple[tuple[int, str], ...] = ()
    timeout_s: float | None = None
    child: int | None = None
    options: str = ""


@dataclass(frozen=True)
class OtherProcess:
    """Another process that a thread waits for: its arguments, its children, the letter of ps(1); None: it is gone or hidden."""

    pid: int
    argv: tuple[str, ...]
    state: str | None
    children: tuple[int, ...] = ()


@dataclass(frozen=True)
class Thread:
    """A thread, at one moment.

    Attributes:
        tid, comm, state: its number, name, and the letter of ps(1); None: which thread this stack belongs to cannot be told
        frames: its Python stack, outermost first
        status: of that stack: `ok`; `changing`: it ran meanwhile, and these are its outermost frames; or why there are none
            or not all: `no-thread-state` `read-fault` `truncated` `not-python` `no-runtime` `denied`; `ended`: it has
            ended while others live
        call: what it waits for; None: it is running, or it may not be asked
        wchan: the place in the kernel where it sleeps; None: not told
    """

    tid: int | None
    comm: str | None
    state: str | None
    frames: tuple[Frame, ...]
    status: str
    call: Call | None
    wchan: str | None


@dataclass(frozen=True)
class Inquiry:
    """A process and its threads, at one moment.

    Attributes:
        pid: whom it is about
        asked, zombie: the process that was asked about; where that is a zombie, `pid` is its parent
        parent: the process with its zombies, as `forktrace ps` has it; None: it has none
        below: its descendants that have zombies, those with most first
        ns_pid: its number in its own PID namespace; 1: it is the init there; None: not known
        argv: its arguments, or its name in brackets
        children: how many it has, zombies among them; None: not known
        python, libraries: the version of its Python and the directories of the standard library; None: it has none or
            it is not known; `no_python` says why
        threads: the main thread first
        sources: the text of the lines that the frames of its own code stand on
        held: the children that multiprocessing holds, whose next start or active_children() reaps them once they have ended;
            None: not known
        awaited: the children that its threads wait for, by number; where one waits for any child, all
        holders: of each pipe that its threads wait for, who has the other end open
        denied: this user may not look into it: it is unknown where its threads are, and what they wait for
    """

    pid: int
    asked: int
    zombie: Zombie | None
    parent: Parent | None
    below: tuple[Parent, ...]
    ns_pid: int | None
    argv: tuple[str, ...]
    children: int | None
    python: str | None
    no_python: str
    libraries: tuple[str, ...]
    threads: tuple[Thread, ...]
    sources: Mapping[tuple[str, int], str]
    held: frozenset[int] | None
    denied: bool
    awaited: Mapping[int, OtherProcess] = field(default_factory=dict)
    holders: Mapping[str, tuple[OtherProcess, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Watched:
    """What was seen of a process while it was watched.

    Attributes:
        seconds: how long
        looks: what it looked like, again and again
        ended: it has ended meanwhile
        trace: the name of a recording of that time; None: there is none, and `missing` says why
    """

    seconds: float
    looks: tuple[Inquiry, ...]
    ended: bool
    trace: str | None
    missing: str
