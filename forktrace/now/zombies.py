"""The zombies of this moment, by parent, from /proc. Repeated looks tell their ages, and how fast they become more."""

from __future__ import annotations

import signal
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from forktrace.now.limits import Headroom, threads_of_users, user_name
from forktrace.system.procfs import TICK_NS, Key, Proc, Stat, TaskClocks, boottime_ns, innermost_pid
from forktrace.trace.snapshot import ESTIMATED, EXACT, UNKNOWN, HalfDead, Limit, Parent, Snapshot, Zombie
from forktrace.trace.waitstatus import Ending, decode, signal_name

GROWTH_NS: Final = 60 * 10**9  # the stretch over which growth is counted
CLOSE_NS: Final = 10 * 10**9  # looks that are no further apart, or than a tenth of the age, make it known
_SIGCHLD: Final = 1 << signal.SIGCHLD - 1


@dataclass
class _Sighting:
    """When a zombie ended: between `after_ns` and `before_ns`; by the scheduler at `guess_ns`. `seen`: between two looks."""

    after_ns: int
    before_ns: int
    guess_ns: int | None
    seen: bool

    def age(self, now_ns: int) -> tuple[float | None, str]:
        """Return the age in s, or None, and how it is known."""
        if self.guess_ns is not None:
            ended_ns = min(max(self.guess_ns, self.after_ns), self.before_ns)
        elif self.seen:
            ended_ns = (self.after_ns + self.before_ns) // 2
        else:
            return None, UNKNOWN
        close = self.before_ns - self.after_ns <= max(CLOSE_NS, (now_ns - ended_ns) // 10)
        return (now_ns - ended_ns) / 1e9, EXACT if self.seen and close else ESTIMATED


@dataclass(frozen=True)
class _Scan:
    """All processes that /proc listed, between two moments."""

    begin_ns: int
    end_ns: int
    stats: Mapping[int, Stat]
    unreadable: int


class Watcher:
    """Looks at the zombies of a machine, once or again and again. It remembers those it has seen, and how many there were."""

    def __init__(
        self,
        proc: Proc | None = None,
        clocks: TaskClocks | None = None,
        now_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        self._proc = proc or Proc()
        self._clocks = clocks or TaskClocks(self._proc)
        self._now_ns = now_ns
        self._sightings: dict[Key, _Sighting] = {}
        self._last_ns: int | None = None  # when the look before this one began
        self._counts: deque[tuple[int, Counter[Key]]] = deque()

    def look(self, also: Iterable[int] = ()) -> Snapshot:
        """Return what is there now. A process that vanishes while it is looked at is not counted.

        `also` are processes that are listed among the parents though they have no zombies now.
        """
        scan = self._scan()
        zombies = self._of_parents(scan)
        for pid in also:
            if pid in scan.stats:
                zombies.setdefault(pid, [])
        seen_twice = Counter(ppid for ppid, group in zombies.items() for one in group if _key_of(one) in self._sightings)
        self._remember([one for group in zombies.values() for one in group], scan)
        counts = Counter({_key(scan.stats.get(pid), pid): len(group) for pid, group in zombies.items()})
        self._counts.append((scan.end_ns, counts))
        while len(self._counts) > 2 and self._counts[-1][0] - self._counts[0][0] > GROWTH_NS:
            self._counts.popleft()
        hidden = 1 not in scan.stats and scan.unreadable == 0
        room = Headroom(
            self._proc,
            sum(stat.threads for stat in scan.stats.values()),
            lambda: threads_of_users(self._proc, scan.stats),
            not hidden and scan.unreadable == 0,
        )
        parents = [self._parent(pid, group, scan, room) for pid, group in zombies.items()]
        before = self._counts[0][1]
        lasting = {pid: seen_twice[pid] - before[_key(scan.stats.get(pid), pid)] for pid in zombies}
        parents.sort(key=lambda parent: (-len(parent.zombies), parent.pid))
        self._last_ns = scan.begin_ns
        return Snapshot(
            time=time.time(),
            boottime_ns=scan.end_ns,
            processes=len(scan.stats),
            unreadable=scan.unreadable,
            others_hidden=hidden,
            outside_hidden=room.outside_hidden,
            parents=tuple(_forecast(parents, lasting)),
            half_dead=tuple(
                HalfDead(one.pid, one.comm, one.ppid, one.threads - 1) for one in scan.stats.values() if one.is_half_dead
            ),
        )

    def _scan(self) -> _Scan:
        begin_ns, unreadable = self._now_ns(), 0
        stats: dict[int, Stat] = {}
        for pid in self._proc.pids():
            try:
                stat = self._proc.stat(pid)
            except PermissionError:
                unreadable += 1
                continue
            if stat:
                stats[pid] = stat
        return _Scan(begin_ns, self._now_ns(), stats, unreadable)

    def _of_parents(self, scan: _Scan) -> dict[int, list[Stat]]:
        """The zombies of each parent. A parent that was not seen may have died meanwhile: then the zombie is read again."""
        found: dict[int, list[Stat]] = defaultdict(list)
        for stat in scan.stats.values():
            one: Stat | None = stat
            if stat.is_zombie and stat.ppid not in scan.stats:
                one = self._proc.one_of(stat.pid)
            if one and one.is_zombie:
                found[one.ppid].append(one)
        return found

    def _remember(self, zombies: list[Stat], scan: _Scan) -> None:
        """Note when each new zombie ended, as far as that is known, and forget those that are gone."""
        known = {key: self._sightings[key] for one in zombies if (key := _key_of(one)) in self._sightings}
        new = [one for one in zombies if _key_of(one) not in known]
        if new:
            self._clocks.compare({one.processor for one in new})
        for one in new:
            start_ns = one.start_ticks * TICK_NS
            ran_ms = self._proc.last_run_ms(one.pid)
            known[_key_of(one)] = _Sighting(
                after_ns=max(start_ns, self._last_ns or 0),
                before_ns=scan.end_ns,
                guess_ns=None if ran_ms is None else self._clocks.boottime_ns(one.processor, ran_ms),
                seen=self._last_ns is not None,
            )
        self._sightings = known

    def _zombie(self, stat: Stat, now_ns: int) -> Zombie:
        sighting = self._sightings[_key_of(stat)]
        age_s, age_is = sighting.age(now_ns)
        ending = self._ending(stat)
        signalled = ending and ending.term_signal
        return Zombie(
            pid=stat.pid,
            comm=stat.comm,
            elapsed_s=_since(stat, now_ns),
            age_s=age_s,
            age_is=age_is,
            age_least_s=(now_ns - sighting.before_ns) / 1e9,
            age_most_s=(now_ns - sighting.after_ns) / 1e9,
            exit_code=ending.exit_code if ending else None,
            term_signal=signal_name(signalled) if signalled else None,
            core_dumped=ending.core_dumped if ending else None,
        )

    def _ending(self, stat: Stat) -> Ending | None:
        """How it ended; 0 may also mean that it is not for this user to see."""
        if stat.status == 0 and not self._proc.may_see_status(stat.pid):
            return None
        try:
            return decode(stat.status)
        except ValueError:
            return None

    def _parent(self, pid: int, group: list[Stat], scan: _Scan, room: Headroom) -> Parent:
        stat = scan.stats.get(pid)
        status = self._status(pid) if stat else {}
        now_ns = scan.end_ns
        zombies = sorted((self._zombie(one, now_ns) for one in group), key=_oldest_first)
        uid = int(status["Uid"].split()[0]) if status else None
        growth, growth_s = self._growth(_key(stat, pid), len(group))
        return Parent(
            pid=pid,
            ns_pid=innermost_pid(status),
            comm=stat.comm if stat else None,
            argv=self._proc.argv(pid) if stat else None,
            uid=uid,
            user=None if uid is None else user_name(uid),
            elapsed_s=_since(stat, now_ns) if stat else None,
            state=stat.state if stat else None,
            threads=stat.threads if stat else None,
            sigchld=_disposition(status) if status else None,
            sigchld_blocked_threads=self._blocking(pid) if status else None,
            sigchld_pending=bool(int(status["ShdPnd"], 16) & _SIGCHLD) if status else None,
            zombies=tuple(zombies),
            growth=growth,
            growth_s=growth_s,
            limits=room.limits(pid, status) if status else (),
            fails_in_s=None,
            fails_at=None,
        )

    def _status(self, pid: int) -> dict[str, str]:
        """The status; empty where the process is gone or hidden, or is going, so that its signals are not told any more."""
        status = self._proc.status(pid)
        return status if "SigIgn" in status else {}

    def _blocking(self, pid: int) -> int:
        """How many threads block SIGCHLD: it goes to any that does not."""
        masks = (self._proc.status(pid, tid).get("SigBlk") for tid in self._proc.threads(pid))
        return sum(bool(int(mask, 16) & _SIGCHLD) for mask in masks if mask)

    def _growth(self, parent: Key, zombies: int) -> tuple[int | None, float | None]:
        (then_ns, counts), (now_ns, _) = self._counts[0], self._counts[-1]
        if then_ns == now_ns:
            return None, None
        return zombies - counts[parent], (now_ns - then_ns) / 1e9


def _key_of(stat: Stat) -> Key:
    return (stat.pid, stat.start_ticks)


def _key(stat: Stat | None, pid: int) -> Key:
    return (pid, stat.start_ticks if stat else 0)


def _since(stat: Stat, now_ns: int) -> float:
    return max(now_ns - stat.start_ticks * TICK_NS, 0) / 1e9


def _oldest_first(zombie: Zombie) -> tuple[float, int]:
    return (-zombie.age_at_most_s, zombie.pid)


def _disposition(status: dict[str, str]) -> str:
    if int(status["SigIgn"], 16) & _SIGCHLD:
        return "ignored"
    return "handled" if int(status["SigCgt"], 16) & _SIGCHLD else "default"


def _forecast(parents: Sequence[Parent], lasting: Mapping[int, int]) -> list[Parent]:
    """Say of each parent whose zombies become more when it meets its first limit, by the growth of all who share that limit.

    `lasting` is the growth by zombies that two looks have seen; others may be reaped before the next look.
    """
    grown: Counter[tuple[str, str]] = Counter()
    for parent in parents:
        for limit in parent.limits:
            grown[limit.name, limit.where] += lasting[parent.pid]
    return [_with_forecast(parent, grown) if lasting[parent.pid] > 0 else parent for parent in parents]


def _with_forecast(parent: Parent, grown: Counter[tuple[str, str]]) -> Parent:
    if not parent.growth_s:
        return parent
    rates: list[tuple[float, Limit]] = [
        (limit.left * parent.growth_s / grown[limit.name, limit.where], limit)
        for limit in parent.limits
        if grown[limit.name, limit.where] > 0
    ]
    if not rates:
        return parent
    in_s, limit = min(rates, key=lambda pair: pair[0])
    return replace(parent, fails_in_s=in_s, fails_at=limit)
