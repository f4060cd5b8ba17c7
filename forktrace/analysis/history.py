"""What happened to each process, as arrays: when it exited, became a zombie and was released, by which row, of which parent."""

from __future__ import annotations

import bisect
from collections import defaultdict
from functools import cached_property
from typing import Final

import numpy as np

from forktrace.analysis.causes.rules import Readings, Rules, load
from forktrace.analysis.causes.sites import Sites
from forktrace.analysis.log import NEVER, NONE, Flags, Ints, Log, pick
from forktrace.analysis.options import WNOWAIT
from forktrace.analysis.parents import parents
from forktrace.trace import events

SIGCHLD: Final = 17
EFAULT: Final = 14


class History:
    """What the rows of `log` say about each process; arrays by id, times in ns, NONE or NEVER where there is none.

    Attributes:
        log: the rows
        rules: what stacks say about causes
        release_row: the row that released the process
        waited: it was released by a wait call, which the trace shows
        inferred: `release_row` is a wait that did not name its child
        autoreaped: released because of its parent's SIGCHLD disposition
        silent: the same, but only the disposition says so: its autoreap row is missing
        vanished: it is gone, and nothing says when
        gone_ns: when it was released (NEVER: not; for `silent` its exit; for `vanished` when it was last seen)
        exit_ns, zombie_ns: its last thread was gone; its parent was notified (NONE: was never a zombie)
        parents: who its parents were
    """

    def __init__(self, log: Log, rules: Rules | None = None) -> None:
        self.log = log
        self.rules = rules or load()
        self.release_row, self.inferred = _releases(log)
        released = self.release_row != NONE
        self.autoreaped = released & np.isin(self.release_row, log.rows("autoreap"))
        self.waited = released & ~self.autoreaped & ~self.called("kernel", "unseen")
        self.exit_ns = pick(log.time_ns, log.exit_row)
        ignored = log.at("disposition", log.exit_row) == events.DISPOSITIONS.index("ignored")
        self.found_dead = (log.exit_row != NONE) & np.isin(log.exit_row, np.flatnonzero(log.present("detail")))
        no_zombie = (log.zombie_row == NONE) & (self.autoreaped | (ignored & ~self.waited)) & ~self.found_dead
        self.exit_signal = log.at("signal", log.fork_row)
        self.silent = no_zombie & ~released & np.isin(self.exit_signal, (SIGCHLD, NONE))
        self.vanished = ~released & ~self.silent & vanished(log)
        self.gone_ns = np.where(self.silent, self.exit_ns, pick(log.time_ns, self.release_row, NEVER))
        self.gone_ns = np.where(self.vanished, last_seen(log), self.gone_ns)
        self.gone_ns = np.minimum(self.gone_ns, self._init_zombie_ns())
        self.zombie_unseen = ((log.zombie_row == NONE) | self.found_dead) & (log.exit_row != NONE) & ~no_zombie
        self.zombie_ns = np.where(self.zombie_unseen, self.exit_ns, pick(log.time_ns, log.zombie_row))
        self.parents = parents(log, self.gone_ns)

    @cached_property
    def sites(self) -> Sites:
        """The stacks of the rows and their sites."""
        return Sites(self.log, self.rules.inner, self.rules.packages)

    @cached_property
    def readings(self) -> Readings:
        """What the rules say of the stacks."""
        return Readings(self.sites, self.rules)

    @cached_property
    def wait_rules(self) -> Ints:
        """The cause that the rules see in each row that waits, an index into `readings.names("cause")`; NONE: none fits."""
        rows = self.log.rows("reap", "wait")
        found = np.full(len(self.log.time_ns), NONE)
        found[rows] = self.readings.of_waits(self.log, rows)
        return found

    @cached_property
    def lasted_ns(self) -> Ints:
        """How long each process was a zombie, or has been by the end of the trace; NONE: it was none, or that is not known."""
        until_ns = np.where(self.gone_ns == NEVER, self.log.end_ns, self.gone_ns)
        known = (self.zombie_ns != NONE) & ~self.vanished
        return np.where(known, np.maximum(until_ns - self.zombie_ns, 0), NONE)

    @cached_property
    def own_lasted_ns(self) -> Ints:
        """Of `lasted_ns` what processes of the recording are the cause of, as far as that was seen.

        Of one whose reap was not seen, or that a process outside inherited and reaped: until it was last reparented; 0: it
        never was.
        """
        known = self.parents
        reparented_ns = np.zeros(self.log.count, np.int64)
        reparented_ns[known.child_id] = known.step_ns  # of several the last: they are in time order
        outside = known.orphaned & self.waited & (pick(self.log.by_id, self.release_row) == NONE)
        until_ns = np.maximum(reparented_ns - self.zombie_ns, 0)
        return np.where((outside | self.called("unseen")) & (self.lasted_ns != NONE), until_ns, self.lasted_ns)

    def _init_zombie_ns(self) -> Ints:
        """When the init became a zombie whose death released the process; NEVER where that was not so, or is not known.

        It becomes one only when all others of its PID namespace are gone (kernel: zap_pid_ns_processes() in pid_namespace.c).
        """
        init = np.where(self.called("kernel"), pick(self.log.by_id, self.release_row), NONE)
        zombie_ns = pick(self.log.time_ns, pick(self.log.zombie_row, init), NEVER)
        return np.maximum(zombie_ns, self.exit_ns)

    def called(self, *calls: str) -> Flags:
        """Return which processes were released by a row with one of these calls."""
        codes = self.log.at("call", self.release_row)
        so: Flags = (self.release_row != NONE) & np.isin(codes, [events.CALLS.index(call) for call in calls])
        return so


def vanished(log: Log) -> Flags:
    """Which processes are gone for another reason than their rows: their number is another's, or the kernel has them no more.

    When a recording ends, its last row names what the kernel still had at `at_ns`, if anything was lost.
    """
    order = np.lexsort((log.fork_ns, log.pid))
    again = np.zeros(log.count, bool)
    again[order[:-1]] = (log.pid[order[:-1]] == log.pid[order[1:]]) & (log.pid[order[:-1]] > 0)
    at_ns, still, _ = log.still
    return again | ((log.fork_ns < at_ns) & ~np.isin(np.arange(log.count), still))


def last_seen(log: Log) -> Ints:
    """When each process is known to have been there for the last time."""
    seen_ns = log.fork_ns.copy()
    for rows, ids in ((log.rows("exec", "exit", "zombie", "signal"), log.id), (log.rows("fork", "wait", "reap"), log.by_id)):
        rows = rows[ids[rows] != NONE]
        np.maximum.at(seen_ns, ids[rows], log.time_ns[rows])
    return seen_ns


def _releases(log: Log) -> tuple[Ints, Flags]:
    """The release row of each process; a wait that named no child stands in for the `unseen` reap that it explains."""
    row = log.release_row.copy()
    inferred = np.zeros(log.count, bool)
    unseen = log.at("call", row) == events.CALLS.index("unseen")
    waits = _anonymous_waits(log)
    if len(waits) and unseen.any():
        for process, wait in _explained(log, np.flatnonzero(unseen & (row != NONE)), waits):
            row[process], inferred[process] = wait, True
    return row, inferred


def _anonymous_waits(log: Log) -> Ints:
    """Waits that may have reaped a child without saying which: waitid without an infop, wait4 with a bad pointer."""
    rows = log.rows("wait")
    named = log.at("pid", rows) != NONE
    failed = ~np.isin(log.at("result", rows), (0, NONE, EFAULT))
    silent: Ints = rows[~named & ~failed & (log.at("flags", rows) & WNOWAIT == 0) & (log.by_id[rows] != NONE)]
    return silent


def _explained(log: Log, unseen: Ints, waits: Ints) -> list[tuple[int, int]]:
    """Pair each such wait with the zombie it took: of those its process had then, the one it asked for, else the first forked.

    A loop: such waits are rare, and each depends on what the ones before it took.
    """
    waiting = _zombies_by_parent(log, unseen)
    present: dict[int, list[int]] = defaultdict(list)  # of each waiting process, the zombies it has, the first forked first
    names_child = np.isin(log.numbers("target"), [events.TARGETS.index("pid"), events.TARGETS.index("pidfd")])
    target_pid = np.where(names_child, log.numbers("target_pid"), NONE)
    ns_pid = log.at("ns_pid", log.fork_row)
    pairs: list[tuple[int, int]] = []
    for wait in waits.tolist():
        waiter, time_ns, target = int(log.by_id[wait]), int(log.time_ns[wait]), int(target_pid[wait])
        zombies, coming = present[waiter], waiting[waiter]
        while coming and coming[-1][0] <= time_ns:
            bisect.insort(zombies, coming.pop()[1])
        fitting = (one for one in zombies if target in (NONE, log.pid[one], ns_pid[one]) and log.gone_ns[one] >= time_ns)
        found = next(fitting, NONE)
        if found != NONE:
            zombies.remove(found)
            pairs.append((found, wait))
    return pairs


def _zombies_by_parent(log: Log, ids: Ints) -> dict[int, list[tuple[int, int]]]:
    """Of each process, when which of `ids` became a zombie of its own, the last first."""
    known = parents(log, log.gone_ns)
    dead_ns = pick(log.time_ns, log.zombie_row, NEVER)
    dead_ns = np.where(dead_ns == NEVER, pick(log.time_ns, log.exit_row, NEVER), dead_ns)
    handed = np.isin(known.child_id, ids)
    child = np.concatenate([ids, known.child_id[handed]])
    parent = np.concatenate([known.id[ids], known.new_id[handed]])
    since_ns = np.maximum(dead_ns[child], np.concatenate([np.zeros(len(ids), np.int64), known.step_ns[handed]]))
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for one in np.argsort(since_ns, kind="stable")[::-1].tolist():
        found[int(parent[one])].append((int(since_ns[one]), int(child[one])))
    return found
