"""Who may record which processes: everybody but root only their own, with their descendants.

A process is named by its number, which can be reused at any time: so what is followed is compared with what was allowed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from forktrace.errors import PermissionMissing
from forktrace.system.capabilities import in_effect
from forktrace.system.procfs import TICK_NS, Proc, boottime_ns, ticks_of, time_namespace_ns

if TYPE_CHECKING:
    from forktrace.kernel.bpf_maps import Records


class Ownership:
    """Allows the processes of user `uid`; None: of everybody."""

    def __init__(self, uid: int | None, proc: Proc | None = None) -> None:
        self._uid = uid
        self._proc = proc or Proc(rights=in_effect)
        self._plain = Proc(self._proc.root)
        self._starts: dict[int, int] = {}  # start of each process that was allowed last, in clock ticks

    def require(self, pids: Iterable[int]) -> None:
        """Allow all of these.

        Raises:
            PermissionMissing: one belongs to somebody else, or is gone.
        """
        refused = sorted(set(pids) - set(self.allowed(pids)))
        if refused and self._uid is not None:
            raise PermissionMissing(f"process {refused[0]} is not yours", "root may record it: sudo forktrace record")

    def allowed(self, pids: Iterable[int]) -> list[int]:
        """Return those of these processes that may be recorded."""
        here = {pid: start for pid in dict.fromkeys(pids) if (start := self._start_ticks(pid)) is not None}
        self._starts = {pid: start for pid, start in here.items() if self._uid is None or self._is_mine(pid)}
        return list(self._starts)

    @property
    def starts(self) -> Mapping[int, int]:
        """The starts of the processes that were allowed last, by number, in clock ticks."""
        return self._starts

    def since_ns(self) -> dict[int, int]:
        """Return when the clock ticks began in which those started (the kernel's CLOCK_BOOTTIME)."""
        return {pid: start * TICK_NS - time_namespace_ns() for pid, start in self._starts.items()}

    def start_of(self, pid: int) -> int:
        """Return when the clock tick began in which a process started that was allowed (the kernel's CLOCK_BOOTTIME, ns).

        Raises:
            PermissionMissing: it is gone.
        """
        stat = self._proc.stat(pid)
        if stat is None or self._starts.get(pid, stat.start_ticks) != stat.start_ticks:
            raise PermissionMissing(f"process {pid} is gone", "record once more")
        return stat.start_ticks * TICK_NS - time_namespace_ns()

    def _start_ticks(self, pid: int) -> int | None:
        """Return the start of a process that still exists after the clock tick of its start; None: it is gone.

        From then on nobody gets its number with the same start.
        """
        while (stat := self._proc.stat(pid)) and stat.start_ticks >= boottime_ns() // TICK_NS:
            time.sleep(TICK_NS / 1e9)
        return stat.start_ticks if stat else None

    def _is_mine(self, pid: int) -> bool:
        """Whether all its user numbers (real, effective, saved, files) are the user's, who may read its memory (ptrace(2)).

        A daemon that was root before may not be recorded: its memory can hold root's secrets.
        """
        is_open = self._plain.may_see_status(pid)  # checked with the user's rights alone
        return is_open and set(self._proc.status(pid).get("Uid", "").split()) == {str(self._uid)}

    def check(self, following: Records) -> None:
        """Compare the processes that were allowed last with those that are followed (`struct process`).

        Raises:
            PermissionMissing: one that was allowed has ended, and its number was reused.
        """
        for pid, start_ns in following[["pid", "start_ns"]].tolist() if self._uid is not None else ():
            if self._starts.get(pid, ticks_of(start_ns)) != ticks_of(start_ns):
                raise PermissionMissing(f"process {pid} has ended, and its number is another's now")
