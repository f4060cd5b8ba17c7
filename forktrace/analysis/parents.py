"""Who a process's parent is over time: the one at fork, and each adopter after a parent died first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from forktrace.analysis.log import NEVER, NONE, Flags, Ints, Latest, Log, pick
from forktrace.errors import TraceError
from forktrace.trace.events import CALLS, WAIT_CALLS

_MOST_HANDINGS_OVER: Final = 16  # for each process, on average: subreapers within subreapers that die one after the other


@dataclass(frozen=True)
class Parents:
    """The parent at fork, the last one, and each handing over between them.

    Attributes:
        pid, id: of each process, its parent at fork; `id` NONE: outside the recording
        last_pid, last_id: of each process, its parent when it was released, or at the end of the trace
        orphaned: of each process, whether its first parent died before it was released
        step_ns, child_id, old_id, new_pid, new_id: of each handing over, its time (the notification of the dead parent's own
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
        """Return the number of the parent that each `child` has at `time_ns`, by the handings over that are known."""
        step = Latest(self.child_id, self.step_ns).until(child, time_ns)
        return np.where(step == NONE, self.pid[child], pick(self.new_pid, step))


@dataclass(frozen=True)
class _Sightings:
    """What the kernel itself said of a child's later parent: in its exit, zombie and autoreap rows, and whom it let reap it."""

    child: Ints
    time_ns: Ints
    pid: Ints
    id: Ints


def parents(log: Log, gone_ns: Ints) -> Parents:
    """Follow every process from parent to parent until `gone_ns`, its release.

    A parent that dies hands each child that is not released at its own notification to the adopter that its exit row names, or,
    where that one has died in the meantime, to the adopter of that one. Where the kernel recorded the child's parent later, in
    the child's own rows, that is believed instead: a process can become a subreaper in the meantime too. From there on a child
    only goes to ancestors, who are older: one that is younger than the adopter that was named had it before.
    """
    pid, ident = _first_parents(log)
    seen = _sightings(log, pid, ident)
    handing = _Handing(log, gone_ns, seen)
    last_pid, last_id, since_ns = pid.copy(), ident.copy(), log.fork_ns.copy()
    steps: list[tuple[Ints, ...]] = []
    handings_over = 0
    child = np.flatnonzero(ident != NONE)
    while len(child):
        step = handing.over(child, last_id[child], since_ns[child])
        time_ns, child, _, new_pid, new_id = step
        last_pid[child], last_id[child], since_ns[child] = new_pid, new_id, time_ns
        steps.append(step)
        handings_over += len(child)
        if handings_over > _MOST_HANDINGS_OVER * (log.count + 1000):
            raise TraceError(f"{log.trace.path}: damaged: its orphans are handed over more than {handings_over:,} times")
        child = child[new_id != NONE]
    last = handing.next_seen.until(np.arange(log.count), np.full(log.count, NEVER))
    later = (last != NONE) & (pick(seen.time_ns, last) > since_ns)
    last_pid = np.where(later, pick(seen.pid, last), last_pid)
    last_id = np.where(later, pick(seen.id, last), last_id)
    columns = [np.concatenate(column) for column in zip(*steps, strict=True)] if steps else [np.empty(0, np.int64)] * 5
    order = np.lexsort((columns[1], columns[0]))
    orphaned = _differs(last_pid, last_id, pid, ident)
    return Parents(pid, ident, last_pid, last_id, orphaned, *(column[order] for column in columns))


class _Handing:
    """Who gets the children of a parent that dies."""

    def __init__(self, log: Log, gone_ns: Ints, seen: _Sightings) -> None:
        self.next_seen = Latest(seen.child, seen.time_ns)
        self._log, self._gone_ns, self._seen = log, gone_ns, seen
        self._exit_ns = pick(log.time_ns, log.exit_row, NEVER)
        notified_ns = pick(log.time_ns, log.zombie_row, NEVER)
        self._death_ns = np.where(notified_ns == NEVER, self._exit_ns, notified_ns)
        # An adopter that ignores SIGCHLD releases a zombie at the handing over, microseconds before the parent's notification.
        self._dropped = (log.zombie_row != NONE) & np.isin(log.release_row, log.rows("autoreap"))

    def over(self, child: Ints, old: Ints, since_ns: Ints) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """Hand each `child`, which its parent `old` has since `since_ns`, to the next one, where there is one.

        Returns when, which children, from whom, and the number and the id of who has them then.
        """
        log, death_ns = self._log, self._death_ns
        was_dead = death_ns[old] <= since_ns  # then it is an ancestor of who named it, so this comes to an end
        time_ns = np.maximum(death_ns[old], since_ns)
        handed = (death_ns[old] < NEVER) & (~was_dead | (pick(log.adopter_id, log.exit_row[old]) < old))
        handed &= self._gone_ns[child] >= np.where(self._dropped[child], self._exit_ns[old], time_ns)
        handed &= log.at("adopter_pid", log.exit_row[old]) != NONE
        child, old, time_ns, was_dead = child[handed], old[handed], time_ns[handed], was_dead[handed]
        row = log.exit_row[old]
        new_pid, new_id = log.at("adopter_pid", row), pick(log.adopter_id, row)
        sighting = self.next_seen.since(child, np.where(was_dead, time_ns, self._exit_ns[old]))
        believed = self._believed(sighting, old, new_id, time_ns)
        new_pid = np.where(believed, pick(self._seen.pid, sighting), new_pid)
        new_id = np.where(believed, pick(self._seen.id, sighting), new_id)
        return time_ns, child, old, new_pid, new_id

    def _believed(self, sighting: Ints, old: Ints, adopter: Ints, time_ns: Ints) -> Flags:
        """Where the kernel's own word of a later parent stands, and not the adopter that the exit row of `old` names."""
        seen = self._seen
        death_ns = pick(self._death_ns, adopter, NEVER)
        overtaken = (death_ns <= time_ns) & (pick(self._log.zombie_row, adopter) != NONE)  # without one it may have been later
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
    by_wait = np.isin(log.at("call", waited), [CALLS.index(call) for call in WAIT_CALLS])  # only a parent can
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
