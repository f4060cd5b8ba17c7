"""Attaching, in the recorder: passes over all tasks until every chosen process is followed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from forktrace.kernel.bpf_maps import Records
from forktrace.kernel.probes import Probes
from forktrace.recorder.closing import identity
from forktrace.recorder.interpreters import Interpreters, library_of
from forktrace.recorder.rows import MOMENTS
from forktrace.system.capabilities import in_effect
from forktrace.system.procfs import Proc, Stat, TaskClocks, cgroup_pids, time_namespace_ns

PASSES_S: Final = 2.0  # at most, while a process is exiting
JOINING_S: Final = 20.0  # at most in all: somebody can start new processes all the time
CGROUP_EVERY_S: Final = 0.5
_, AT_THE_LATEST, ESTIMATED = range(len(MOMENTS))


class TaskPasses:
    """Follows existing processes, and finds out what the probes could not see of them.

    Attributes:
        ended_ns: (pid, start) of zombies from before the recording -> since when they are
    """

    def __init__(self, probes: Probes, interpreters: Interpreters, proc: Proc | None = None) -> None:
        self._probes = probes
        self._interpreters = interpreters
        self._proc = proc or Proc(rights=in_effect)
        self._clocks = TaskClocks(self._proc)
        self._cgroup: str | None = None
        self._never: list[int] = []
        self._next_look = 0.0
        self.ended_ns: dict[tuple[int, int], int] = {}

    def join(self, since_ns: Mapping[int, int], never: Iterable[int], cgroup: str | None = None) -> int:
        """Follow these processes (see `Probes.want`) and their descendants, except `never`.

        Return how many could not be classified.

        Two passes for each process: the first follows it; then its memory map says where libpython is, and the second sets that
        in the probes.
        """
        self._cgroup, self._never = cgroup, [os.getpid(), *never]
        self._probes.want(since_ns, self._never)
        for pid in since_ns:
            self._say_library(pid)
        looked_at = set(since_ns)
        began = time.monotonic()
        while True:
            added, pending = self._probes.pass_tasks()
            here = self._probes.following()
            unknown = set(here[(here["exit_ns"] == 0) & (here["library"] == 0)]["pid"].tolist()) - looked_at
            told = [pid for pid in unknown if self._say_library(pid)]
            looked_at |= unknown
            lasts_s = time.monotonic() - began
            if not (added or pending or told) or (not added and not told and lasts_s > PASSES_S) or lasts_s > JOINING_S:
                break
        self._probes.attached()
        return pending

    def _say_library(self, pid: int) -> bool:
        """Set in the probes which libpython a process has mapped, if any."""
        found = library_of(self._interpreters.secret, pid)
        if found:
            self._interpreters.answer({"file": found[0], "pid": pid, "mapped": found[1]})
            self._probes.say_mapped(pid, *found)
        return found is not None

    def new_in_cgroup(self) -> list[int]:
        """Return the processes that joined the control group and are not followed; looks twice a second."""
        if self._cgroup is None or time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + CGROUP_EVERY_S
        return sorted(set(cgroup_pids(self._cgroup)) - set(self._probes.following()["pid"].tolist()) - set(self._never))

    def goes_on(self) -> bool:
        """Whether more processes can come: to a control group, as long as it exists."""
        return self._cgroup is not None and os.path.isdir(self._cgroup)

    def more(self, since_ns: Mapping[int, int]) -> int:
        """Follow these, too."""
        return self.join(since_ns, self._never[1:], self._cgroup)

    def estimate(self, exits: Records) -> None:
        """Replace the time at which zombies from before the recording were found by the time at which they last ran."""
        late = np.flatnonzero(exits["moment"] == AT_THE_LATEST).tolist()
        stats: dict[int, Stat] = {}
        for index in late:
            with contextlib.suppress(PermissionError):  # /proc hides it
                if stat := self._proc.one(*identity(exits["head"]["process"][index])):
                    stats[index] = stat
        if stats:
            self._clocks.compare({stat.processor for stat in stats.values()})
        for index, stat in stats.items():
            ran_ms = self._proc.last_run_ms(stat.pid)
            guess_ns = None if ran_ms is None else self._clocks.boottime_ns(stat.processor, ran_ms)
            if guess_ns is not None:
                head = exits["head"][index]
                exits["head"]["time_ns"][index] = np.clip(
                    guess_ns - time_namespace_ns(), head["process"]["start_ns"], head["time_ns"]
                )
                exits["moment"][index] = ESTIMATED
        for index in late:
            head = exits["head"][index]
            self.ended_ns[identity(head["process"])] = int(head["time_ns"])
