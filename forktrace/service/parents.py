"""The rows of `forktrace top`: each parent with its zombies, how fast they come and go, and the line of its main thread."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from forktrace.now.main_threads import MainThread, MainThreads
from forktrace.now.zombies import Watcher
from forktrace.system.procfs import TICK_NS, Key
from forktrace.trace.snapshot import Parent, Snapshot, Zombie

MINUTE_NS: Final = 60 * 10**9
MOST_MAIN_THREADS: Final = 20  # parents whose line is looked for, those with most zombies
NOT_LOOKED: Final = MainThread(status="not looked for")


@dataclass(frozen=True)
class Row:
    """A parent.

    Attributes:
        parent: what /proc says of it and its zombies
        came, went: zombies of the last minute; without a recording those that looks have seen; None: there was one look only
        forks_s: forks a second over the last minute; None: there is no recording of it
        cause: why its last child was released; "": not known
        main_thread: where its main thread is
    """

    parent: Parent
    came: int | None
    went: int | None
    forks_s: float | None
    cause: str
    main_thread: MainThread


@dataclass(frozen=True)
class Recorded:
    """What a recording says of a parent in the last minute, or in as much of it as was recorded."""

    came: int
    went: int
    forks_s: float
    cause: str


class Parents:
    """Looks at them again and again; `recorded` returns what a recording has seen by now, `wanted` which parents to show."""

    def __init__(
        self,
        watcher: Watcher | None = None,
        main_threads: MainThreads | None = None,
        recorded: Callable[[], Mapping[int, Recorded]] | None = None,
        wanted: Callable[[Sequence[int]], Container[int]] | None = None,
    ) -> None:
        self._watcher, self._main_threads = watcher or Watcher(), main_threads or MainThreads()
        self._recorded, self._wanted = recorded, wanted
        self._zombies: dict[int, set[Key]] | None = None  # of the look before, by the number of their parent
        self._changes: deque[tuple[int, Counter[int], Counter[int]]] = deque()

    def look(self) -> tuple[Snapshot, list[Row]]:
        """Return what there is now, and a row of each parent, those with most zombies first."""
        recorded = self._recorded() if self._recorded else {}
        seen = self._watcher.look(also=recorded)
        came, went = self._flow(seen)
        if self._wanted:
            meant = self._wanted([one.pid for one in seen.parents])
            seen = replace(seen, parents=tuple(one for one in seen.parents if one.pid in meant))
        keys = {one.pid: _key(one, seen) for one in seen.parents}
        looked_at = [one.pid for one in seen.parents[:MOST_MAIN_THREADS] if one.comm is not None]
        found = {pid: self._main_threads.of(keys[pid]) for pid in looked_at}
        self._main_threads.forget(set(keys.values()))
        rows = []
        for one in seen.parents:
            main_thread = found.get(one.pid, NOT_LOOKED)
            if told := recorded.get(one.pid):
                rows.append(Row(one, told.came, told.went, told.forks_s, told.cause, main_thread))
            elif self._changes:
                rows.append(Row(one, came[one.pid], went[one.pid], None, "", main_thread))
            else:
                rows.append(Row(one, None, None, None, "", main_thread))
        return seen, rows

    def _flow(self, seen: Snapshot) -> tuple[Counter[int], Counter[int]]:
        """How many zombies of each parent came and went in the last minute, as far as looks have seen them."""
        zombies = {parent.pid: {_key(one, seen) for one in parent.zombies} for parent in seen.parents}
        if self._zombies is not None:
            before = self._zombies
            came = Counter({pid: len(now - before.get(pid, set())) for pid, now in zombies.items()})
            went = Counter({pid: len(then - zombies.get(pid, set())) for pid, then in before.items()})
            self._changes.append((seen.boottime_ns, came, went))
        self._zombies = zombies
        while self._changes and self._changes[0][0] < seen.boottime_ns - MINUTE_NS:
            self._changes.popleft()
        return summed(came for _, came, _ in self._changes), summed(went for _, _, went in self._changes)


def summed(parts: Iterable[Counter[int]]) -> Counter[int]:
    """Return the sums by key."""
    total: Counter[int] = Counter()
    for one in parts:
        total.update(one)
    return total


def _key(one: Parent | Zombie, seen: Snapshot) -> Key:
    """A process by its number and its start, in clock ticks."""
    return one.pid, round((seen.boottime_ns - (one.elapsed_s or 0) * 1e9) / TICK_NS)
