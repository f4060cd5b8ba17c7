"""The parents of a process over time: the one at fork, then the adopters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from forktrace.analysis.log import NEVER, NONE, Flags, Ints, Latest, Log, pick
from forktrace.errors import TraceError
from forktrace.trace.events import CALLS, WAIT_CALLS

_MOST_REPARENTINGS: Final = 16  # per process, on average: nested subreapers that die one after the other

_Step = tuple[Ints, Ints, Ints, Ints, Ints]  # reparentings: time, child, old parent, and the new parent's number and id


@dataclass(frozen=True)
class Parents:
    """The parent at fork, the last one, and each reparenting between them.

    Attributes:
        pid, id: of each process, its parent at fork; `id` NONE: outside the recording
        last_pid, last_id: of each process, its parent when it was released, or at the end of the trace
        orphaned: of each process, whether its first parent died before it was released
        step_ns, child_id, old_id, new_pid, new_id: of each reparenting, its time (the notification of the dead parent's own
            parent), the child, the dead parent and the adopter; in time order
    """

    pid: Ints
    id: Ints
    last_pid: Ints
    last_id: Ints
    orphaned: Flags
    step_ns: Ints
    child_id: Ints
    old_id: Ints
    new_pid: Ints
    new_id: Ints

    def at(self, child: Ints, time_ns: Ints) -> Ints:
        """Return the id of the parent that each `child` has at `time_ns`."""
        step = Latest(self.child_id, self.step_ns).until(child, time_ns)
        return np.where(step == NONE, self.id[child], pick(self.new_id, step))

    def number_at(self, child: Ints, time_ns: Ints) -> Ints:
        """Return the number of the parent that each `child` has at `time_ns`, by the reparentings that are known."""
        step = Latest(self.child_id, self.step_ns).until(child, time_ns)
        return np.where(step == NONE, self.pid[child], pick(self.new_pid, step))


@dataclass(frozen=True)
class _Sightings:
    """The later parents in a child's own rows: of its exit, zombie and autoreap, and the reaper of its reap."""

    child: Ints
    time_ns: Ints
    pid: Ints
    id: Ints


def parents(log: Log, gone_ns: Ints) -> Parents:
    """Follow every process from parent to parent until `gone_ns`, its release.

    A child that is not released yet when its dead parent's own parent is notified goes to the first of these:
        the parent that the kernel names later, in the child's own rows; a process can have become a subreaper
        the adopter in the exit row of the dead parent
        the adopter of that adopter, if it has died, too
    From then on the child only goes to ancestors, and these are older. So a parent in the child's rows that is younger than the
    adopter in the exit row had the child before.
    """
    pid, ident = _first_parents(log)
    seen = _sightings(log, pid, ident)
    reparenting = _Reparenting(log, gone_ns, seen)
    steps = list(_steps(log, reparenting, ident))
    last_pid, last_id, since_ns = pid.copy(), ident.copy(), log.fork_ns.copy()
    for time_ns, child, _, new_pid, new_id in steps:
        last_pid[child], last_id[child], since_ns[child] = new_pid, new_id, time_ns
    last = reparenting.next_seen.until(np.arange(log.count), np.full(log.count, NEVER))
    later = (last != NONE) & (pick(seen.time_ns, last) > since_ns)
    last_pid = np.where(later, pick(seen.pid, last), last_pid)
    last_id = np.where(later, pick(seen.id, last), last_id)
    columns = [np.concatenate(column) for column in zip(*steps, strict=True)] if steps else [np.empty(0, np.int64)] * 5
    order = np.lexsort((columns[1], columns[0]))
    orphaned = _differs(last_pid, last_id, pid, ident)
    return Parents(pid, ident, last_pid, last_id, orphaned, *(column[order] for column in columns))


def _steps(log: Log, reparenting: _Reparenting, first: Ints) -> Iterator[_Step]:
    """Yield the first reparenting of all orphans, then the second of those that have one, and so on."""
    child = np.flatnonzero(first != NONE)
    parent, since_ns = first[child], log.fork_ns[child]
    number = 0
    while len(child):
        step = time_ns, child, _, _, new_id = reparenting.of(child, parent, since_ns)
        yield step
        number += len(child)
        if number > _MOST_REPARENTINGS * (log.count + 1000):
            raise TraceError(f"{log.trace.path}: damaged: its orphans are reparented more than {number:,} times")
        inside = new_id != NONE
        child, parent, since_ns = child[inside], new_id[inside], time_ns[inside]


class _Reparenting:
    """Who inherits the children of a dead parent."""

    def __init__(self, log: Log, gone_ns: Ints, seen: _Sightings) -> None:
        self.next_seen = Latest(seen.child, seen.time_ns)
        self._log, self._gone_ns, self._seen = log, gone_ns, seen
        self._exit_ns = pick(log.time_ns, log.exit_row, NEVER)
        notified_ns = pick(log.time_ns, log.zombie_row, NEVER)
        self._death_ns = np.where(notified_ns == NEVER, self._exit_ns, notified_ns)
        # An adopter that ignores SIGCHLD releases a zombie when it inherits it, microseconds before the notification.
        self._dropped = (log.zombie_row != NONE) & np.isin(log.release_row, log.rows("autoreap"))

    def of(self, child: Ints, old: Ints, since_ns: Ints) -> _Step:
        """Return the next reparenting of each `child` that has one; `old` is its parent since `since_ns`."""
        log, death_ns = self._log, self._death_ns
        was_dead = death_ns[old] <= since_ns  # then the next adopter has to be an ancestor, so this comes to an end
        time_ns = np.maximum(death_ns[old], since_ns)
        orphaned = (death_ns[old] < NEVER) & (~was_dead | (pick(log.adopter_id, log.exit_row[old]) < old))
        orphaned &= self._gone_ns[child] >= np.where(self._dropped[child], self._exit_ns[old], time_ns)
        orphaned &= log.at("adopter_pid", log.exit_row[old]) != NONE
        child, old, time_ns, was_dead = child[orphaned], old[orphaned], time_ns[orphaned], was_dead[orphaned]
        row = log.exit_row[old]
        new_pid, new_id = log.at("adopter_pid", row), pick(log.adopter_id, row)
        sighting = self.next_seen.since(child, np.where(was_dead, time_ns, self._exit_ns[old]))
        believed = self._believed(sighting, old, new_id, time_ns)
        new_pid = np.where(believed, pick(self._seen.pid, sighting), new_pid)
        new_id = np.where(believed, pick(self._seen.id, sighting), new_id)
        return time_ns, child, old, new_pid, new_id

    def _believed(self, sighting: Ints, old: Ints, adopter: Ints, time_ns: Ints) -> Flags:
        """Where the parent in the child's own rows is believed, and not the adopter in the exit row of `old`."""
        seen = self._seen
        death_ns = pick(self._death_ns, adopter, NEVER)
        overtaken = (death_ns <= time_ns) & (pick(self._log.zombie_row, adopter) != NONE)  # without it: perhaps later
        in_time = (pick(seen.time_ns, sighting) <= death_ns) | overtaken | (pick(seen.id, sighting) > adopter)
        found: Flags = (sighting != NONE) & (pick(seen.id, sighting) != old) & in_time
        return found


def _first_parents(log: Log) -> tuple[Ints, Ints]:
    """The parent at fork; where the fork was lost, the one in the process's exit or first zombie row."""
    row = np.where(log.fork_row == NONE, log.exit_row, log.fork_row)
    row = np.where(row == NONE, log.zombie_row, row)
    return log.at("parent_pid", row), pick(log.parent_id, row)


def _sightings(log: Log, pid: Ints, ident: Ints) -> _Sightings:
    told, waited = log.rows("exit", "zombie", "autoreap"), log.rows("reap")
    by_wait = np.isin(log.at("call", waited), [CALLS.index(call) for call in WAIT_CALLS])  # only a parent reaps
    waited = waited[by_wait & (log.by_id[waited] != NONE)]
    rows = np.concatenate([told, waited])
    seen_pid = np.concatenate([log.at("parent_pid", told), log.at("by_pid", waited)])
    seen_id = np.concatenate([log.parent_id[told], log.by_id[waited]])
    child = log.id[rows]
    new = (child != NONE) & (seen_pid != NONE) & _differs(seen_pid, seen_id, pick(pid, child), pick(ident, child))
    return _Sightings(child[new], log.time_ns[rows][new], seen_pid[new], seen_id[new])


def _differs(pid: Ints, ident: Ints, other_pid: Ints, other_id: Ints) -> Flags:
    """Two processes differ in their numbers, or, where both are in the recording, in their rows."""
    differs: Flags = (pid != other_pid) | ((ident != other_id) & (ident != NONE) & (other_id != NONE))
    return differs
