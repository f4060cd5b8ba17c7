"""How many more threads a process may make before a fork fails: pids.max, RLIMIT_NPROC, pid_max and threads-max.

A zombie counts against each of them until it is reaped.
"""

from __future__ import annotations

import contextlib
import pwd
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

from forktrace.system.procfs import Mount, Proc, Stat, mounts
from forktrace.trace.snapshot import Limit

RESERVED_PIDS: Final = 300  # kernel/pid.c: numbers below are not given again once the counter has wrapped
FIRST_PID_NAMESPACE: Final = "pid:[4026531836]"  # PROC_PID_INIT_INO
_WHOLE_MAP: Final = ["0", "0", "4294967295"]  # of the machine's first user namespace
_EXEMPT: Final = 1 << 21 | 1 << 24  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE


def user_name(uid: int) -> str:
    """Return a user's name; the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def limits_of(pid: int, proc: Proc) -> tuple[Limit, ...]:
    """Return the limits that one process is under now, the tightest first; () where it is gone or hidden."""
    status = proc.status(pid)
    stats = {one: stat for one in proc.pids() if (stat := proc.one_of(one))} if "CapEff" in status else {}
    room = Headroom(
        proc, sum(stat.threads for stat in stats.values()), lambda: threads_of_users(proc, stats), bool(stats.get(1))
    )
    return room.limits(pid, status) if stats else ()


def threads_of_users(proc: Proc, stats: Mapping[int, Stat]) -> Counter[int]:
    """Return how many threads each user has."""
    counts: Counter[int] = Counter()
    for pid, stat in stats.items():
        if uid := proc.status(pid).get("Uid"):
            counts[int(uid.split()[0])] += stat.threads
    return counts


class Headroom:
    """The limits of one moment.

    threads            of all processes that are seen
    threads_of_users   counts them by real user; called only where that is needed
    all_seen           no process is hidden
    """

    def __init__(self, proc: Proc, threads: int, threads_of_users: Callable[[], Counter[int]], all_seen: bool) -> None:
        self._proc = proc
        self._threads = threads
        self._count_users = threads_of_users
        self._all_seen = all_seen

    def limits(self, pid: int, status: dict[str, str]) -> tuple[Limit, ...]:
        """Return the limits that the process `pid` is under, the tightest first."""
        found = [*self._of_cgroups(pid), *self._of_user(pid, status), *self._of_machine]
        return tuple(sorted(found, key=lambda limit: limit.left))

    @cached_property
    def outside_hidden(self) -> bool:
        """Whether there is a PID namespace around this one."""
        return self._proc.link("self/ns/pid") not in (FIRST_PID_NAMESPACE, None)

    @cached_property
    def _users(self) -> Counter[int]:
        return self._count_users()

    @cached_property
    def _mounts(self) -> list[Mount]:
        return mounts(self._proc)

    @cached_property
    def _of_machine(self) -> list[Limit]:
        """The limits that all processes share. The kernel counts its threads in /proc/loadavg, whoever asks."""
        of_kernel = (self._proc.read("loadavg") or "").split()
        total = int(of_kernel[3].partition("/")[2]) if len(of_kernel) > 3 else None
        found = []
        pid_max, threads_max = self._proc.number("sys/kernel/pid_max"), self._proc.number("sys/kernel/threads-max")
        if pid_max is not None:
            known = total is not None and not self.outside_hidden
            used = total if total is not None and known else self._threads
            least = not known and (self.outside_hidden or not self._all_seen)
            found.append(Limit("pid_max", "", pid_max, used, max(pid_max - RESERVED_PIDS - used, 0), least))
        if threads_max is not None and total is not None:
            found.append(Limit("threads-max", "", threads_max, total, max(threads_max - total, 0), False))
        return found

    def _of_user(self, pid: int, status: dict[str, str]) -> Iterator[Limit]:
        """RLIMIT_NPROC counts the threads of a real user. Root and two capabilities are exempt, but only the machine's own."""
        if not status:
            return
        uid, capabilities = int(status["Uid"].split()[0]), int(status["CapEff"], 16)
        is_first_namespace = (self._proc.read(f"{pid}/uid_map") or "").split() == _WHOLE_MAP
        if is_first_namespace and (uid == 0 or capabilities & _EXEMPT):
            return
        limit = self._rlimit(pid)
        if limit is not None:
            used = self._users[uid]
            least = not self._all_seen or self.outside_hidden
            yield Limit("RLIMIT_NPROC", user_name(uid), limit, used, max(limit - used, 0), least)

    def _rlimit(self, pid: int) -> int | None:
        """The soft limit; None: unlimited or not known."""
        for line in (self._proc.read(f"{pid}/limits") or "").splitlines():
            if line.startswith("Max processes"):
                soft = line.split()[2]
                return int(soft) if soft.isdigit() else None
        return None

    def _of_cgroups(self, pid: int) -> Iterator[Limit]:
        """pids.max of the process's cgroup and of all around it that are mounted here (cgroups(7), both versions)."""
        for line in (self._proc.read(f"{pid}/cgroup") or "").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0" or "pids" in controllers.split(","):
                kind = "cgroup2" if number == "0" else "cgroup"
                yield from self._of_cgroup(kind, path)

    def _of_cgroup(self, kind: str, path: str) -> Iterator[Limit]:
        for mount in self._mounts:
            if mount.kind != kind or (kind == "cgroup" and "pids" not in mount.options.split(",")):
                continue
            if ".." in path.split("/") or not PurePosixPath(path).is_relative_to(mount.root):
                continue  # around the cgroup that is mounted here
            inside = PurePosixPath(path).relative_to(mount.root)
            for folder in (inside, *inside.parents):
                yield from _of_folder(mount.point / folder, str(PurePosixPath(mount.root) / folder))
            return


def _of_folder(folder: Path, name: str) -> Iterator[Limit]:
    with contextlib.suppress(OSError, ValueError):  # the cgroup at the root has no limit, and `max` is none
        limit = int((folder / "pids.max").read_text())
        used = int((folder / "pids.current").read_text())
        yield Limit("pids.max", name, limit, used, max(limit - used, 0), False)
