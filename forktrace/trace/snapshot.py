"""What `forktrace ps` saw in /proc at one moment: made by `now`, shown by `views`, and written by `ps --json` as it is.

None is what /proc does not say, or does not say to this user. Names come from other programs: escape them for a screen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EXACT: Final = "seen"  # `age_is`: the end lies between two looks of --watch that are close together
ESTIMATED: Final = "estimated"  # by the scheduler's note of when it last ran
UNKNOWN: Final = "unknown"  # only the bounds are known


@dataclass(frozen=True)
class Zombie:
    """A process that has ended and that its parent has not reaped yet.

    Attributes:
        pid, comm: its number and name; it has no arguments any more
        elapsed_s: since its start, exact to a hundredth of a second
        age_s: since its end; None when `age_is` is `unknown`
        age_is: `seen`, `estimated` or `unknown`
        age_least_s, age_most_s: bounds of the age that hold in any case
        exit_code, term_signal, core_dumped: how it ended; None: only its user and root may know
    """

    pid: int
    comm: str
    elapsed_s: float
    age_s: float | None
    age_is: str
    age_least_s: float
    age_most_s: float
    exit_code: int | None
    term_signal: str | None
    core_dumped: bool | None

    @property
    def age_at_most_s(self) -> float:
        """Its age; where that is not known, the upper bound."""
        return self.age_most_s if self.age_s is None else self.age_s


@dataclass(frozen=True)
class Limit:
    """A limit on processes that the parent is under.

    Attributes:
        name: `pids.max`, `RLIMIT_NPROC`, `pid_max` or `threads-max`
        where: the cgroup of pids.max, the user of RLIMIT_NPROC; otherwise empty
        limit, used, left: in threads, of which a process is at least one, a zombie exactly one
        used_is_least: there may be more that cannot be seen from here, and less left
    """

    name: str
    where: str
    limit: int
    used: int
    left: int
    used_is_least: bool


@dataclass(frozen=True)
class Parent:
    """A process with zombies.

    Attributes:
        pid: 0: outside of this PID namespace
        ns_pid: its number in its own PID namespace; 1: it is the init there, and inherits orphans; None: not known
        comm, argv, uid, user, elapsed_s: name, arguments, real user and age of the process; None: it cannot be seen
        state: the letter of ps(1): `R` `S` `D` `T` `t` `I` `Z`; `Z` is a main thread that has ended while others live
        threads, sigchld_blocked_threads: how many there are, and how many of them block SIGCHLD
        sigchld: its disposition, `default`, `handled` or `ignored`; SA_NOCLDWAIT does not show in /proc
        sigchld_pending: one was sent to it and has not been taken
        zombies: the oldest first
        growth, growth_s: how many more zombies it has than `growth_s` seconds before; None without --watch
        limits: the tightest first
        fails_in_s, fails_at: when at this growth forks begin to fail, and the limit that is met then; None: not growing
    """

    pid: int
    ns_pid: int | None
    comm: str | None
    argv: tuple[str, ...] | None
    uid: int | None
    user: str | None
    elapsed_s: float | None
    state: str | None
    threads: int | None
    sigchld: str | None
    sigchld_blocked_threads: int | None
    sigchld_pending: bool | None
    zombies: tuple[Zombie, ...]
    growth: int | None
    growth_s: float | None
    limits: tuple[Limit, ...]
    fails_in_s: float | None
    fails_at: Limit | None


@dataclass(frozen=True)
class HalfDead:
    """A process whose main thread has ended while others live: ps(1) shows it as a zombie, and nobody can reap it yet.

    Attributes:
        pid, comm, ppid: its number, its name, and its parent
        threads: how many threads live
    """

    pid: int
    comm: str
    ppid: int
    threads: int


@dataclass(frozen=True)
class Snapshot:
    """All zombies that could be seen at one moment.

    Attributes:
        time: wall clock, seconds since 1970
        boottime_ns: CLOCK_BOOTTIME
        processes: how many were seen
        unreadable: how many are there but may not be looked at
        others_hidden: /proc hides the processes of other users (hidepid)
        outside_hidden: this is not the machine's first PID namespace, and what is outside of it cannot be seen
        parents: those with most zombies first
        half_dead: those whose main thread alone has ended, which are no zombies yet
    """

    time: float
    boottime_ns: int
    processes: int
    unreadable: int
    others_hidden: bool
    outside_hidden: bool
    parents: tuple[Parent, ...]
    half_dead: tuple[HalfDead, ...] = ()

    @property
    def zombies(self) -> int:
        """How many there are."""
        return sum(len(parent.zombies) for parent in self.parents)
