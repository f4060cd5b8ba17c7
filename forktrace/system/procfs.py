"""What /proc says about processes now; needs neither root nor bcc. proc(5) describes the fields.

A process can end between two reads, and /proc can hide a file from this user: then a reader returns None or nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from forktrace.errors import MachineLacks

CGROUP2: Final = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # where the cgroup v2 hierarchy is mounted, as a rule
ARGV_BYTES: Final = 4095  # of the arguments of a process, as many as an exec row has
TICK_NS: Final = 10**9 // os.sysconf("SC_CLK_TCK")
MOST_GENERATIONS: Final = 1000  # of ancestors that are looked at
_SETTLE_S: Final = 0.0002  # a sleep after which the scheduler updates when this thread ran


def boottime_ns() -> int:
    """Return CLOCK_BOOTTIME, the clock of process starts.

    Raises:
        MachineLacks: this is not Linux.
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        raise MachineLacks("this machine has no CLOCK_BOOTTIME", "forktrace ps without a trace needs Linux")
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def kernel_boottime_ns() -> int:
    """Return CLOCK_BOOTTIME as BPF reads it: in a time namespace processes see another (time_namespaces(7))."""
    return boottime_ns() - time_namespace_ns()


def clock_offset_ns() -> int:
    """Return what to add to CLOCK_BOOTTIME to get Unix time, now. Setting the clock changes it; NTP adjusts both clocks."""
    return time.time_ns() - kernel_boottime_ns()


@cache
def time_namespace_ns() -> int:
    """Return by how much CLOCK_BOOTTIME, and the starts that /proc shows, are ahead of the kernel's in this time namespace."""
    try:
        lines = Path("/proc/self/timens_offsets").read_text().splitlines()
    except OSError:  # a kernel without them
        return 0
    seconds, nanoseconds = next(line.split()[1:] for line in lines if line.startswith("boottime"))
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def ticks_of(start_ns: int) -> int:
    """Return the start of a process (the kernel's CLOCK_BOOTTIME) as /proc shows it in this time namespace, in clock ticks."""
    return (start_ns + time_namespace_ns()) // TICK_NS


Key = tuple[int, int]  # of a process: number and start in clock ticks, since numbers are used again


class Stat(NamedTuple):
    """Of /proc/PID/stat: what `forktrace ps` needs."""

    pid: int
    comm: str
    state: str
    ppid: int
    threads: int
    start_ticks: int  # since boot, in units of sysconf(_SC_CLK_TCK)
    processor: int
    status: int  # wait status; also 0 when this user may not see it

    @property
    def is_zombie(self) -> bool:
        """Dead and not reaped; not a dead main thread whose process goes on."""
        return self.state == "Z" and self.threads <= 1

    @property
    def is_half_dead(self) -> bool:
        """Its main thread has ended, and others live: it looks like a zombie, but cannot be reaped yet."""
        return self.state == "Z" and self.threads > 1


class Proc:
    """The processes in the /proc at `root` (tests have their own). Files are opened within `rights`."""

    def __init__(self, root: str = "/proc", rights: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.root = root
        self._rights = rights

    def pids(self) -> list[int]:
        """Return the numbers of all processes that are listed, this one among them.

        Raises:
            MachineLacks: there is no /proc.
        """
        with contextlib.suppress(FileNotFoundError):
            if found := [int(name) for name in os.listdir(self.root) if name.isdigit()]:
                return found
        raise MachineLacks(f"{self.root} lists no processes", "forktrace ps needs it: mount -t proc proc /proc")

    def stat(self, pid: int) -> Stat | None:
        """Return the state of a process; None when it is gone.

        Raises:
            PermissionError: it is there, but this user may not see it.
        """
        text = self._read(f"{pid}/stat")
        if not text:
            return None
        head, _, rest = text.rpartition(")")  # the name may hold anything, brackets and newlines included
        field = rest.split()
        return Stat(
            pid,
            head.partition("(")[2],
            field[0],
            int(field[1]),
            int(field[17]),
            int(field[19]),
            int(field[36]),
            int(field[49]),
        )

    def one(self, pid: int, start_ns: int) -> Stat | None:
        """Return the state of the process that began at `start_ns` (the kernel's CLOCK_BOOTTIME); None when it is gone.

        Raises:
            PermissionError: it, or another process with its number, is there, but this user may not see it.
        """
        found = self.stat(pid)
        return found if found and found.start_ticks == ticks_of(start_ns) else None

    def status(self, pid: int, tid: int | None = None) -> dict[str, str]:
        """Return the lines of /proc/PID/status, or of one thread's; empty when it is gone."""
        text = self.read(f"{pid}/status" if tid is None else f"{pid}/task/{tid}/status") or ""
        return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}

    def threads(self, pid: int) -> list[int]:
        """Return the numbers of a process's threads; empty when it is gone."""
        try:
            return [int(name) for name in os.listdir(f"{self.root}/{pid}/task")]
        except OSError:
            return []

    def descriptors(self, pid: int) -> list[int]:
        """Return the descriptors that a process has open; empty when it is gone, or they are not for this user to see."""
        try:
            return [int(name) for name in os.listdir(f"{self.root}/{pid}/fd")]
        except OSError:
            return []

    def children(self, pid: int) -> list[int]:
        """Return the numbers of a process's children, including zombies. One that is just made or ends can be missing.

        A kernel without CONFIG_PROC_CHILDREN has no list: there the parent of every process is read.
        """
        listed = [self.read(f"{pid}/task/{tid}/children") for tid in self.threads(pid)]
        if listed and all(one is None for one in listed) and self.one_of(pid):
            every = [one for each in self.pids() if (one := self.one_of(each))]
            return [one.pid for one in every if one.ppid == pid]
        return [int(word) for one in listed for word in (one or "").split()]

    def one_of(self, pid: int) -> Stat | None:
        """Return the state of a process; None when it is gone or this user may not see it."""
        with contextlib.suppress(PermissionError):
            return self.stat(pid)
        return None

    def descends(self, pid: int, ancestors: Collection[int]) -> bool:
        """Return whether a process has one of these among its ancestors now, as far as these can be seen."""
        for _ in range(MOST_GENERATIONS):
            found = self.one_of(pid)
            pid = found.ppid if found else 0
            if pid == 0 or pid in ancestors:
                return pid != 0
        return False

    def argv(self, pid: int) -> tuple[str, ...] | None:
        """Return the arguments of a process; None when it has none or is gone."""
        text = self.read(f"{pid}/cmdline")
        return tuple(text.removesuffix("\0").split("\0")) if text else None

    def comm(self, pid: int) -> str:
        """Return the name of a process, `?` when it is gone."""
        return (self.read(f"{pid}/comm") or "?").rstrip("\n")

    def argv_text(self, pid: int, start_ns: int) -> str | None:
        """Return the arguments of the process that began at `start_ns` (the kernel's CLOCK_BOOTTIME), with NUL between them.

        Cut like those of an exec row. None: it is gone or has none. Its existence is checked last: until then nobody else can
        have its number, so the arguments are its own.
        """
        try:
            read = self._bytes(f"{pid}/cmdline", ARGV_BYTES) or b""
            is_there = self.one(pid, start_ns) is not None
        except PermissionError:
            return None
        return read.removesuffix(b"\0").decode("utf-8", "backslashreplace") or None if is_there else None

    def cgroup(self, pid: int, identity: int) -> str | None:
        """Return the path of a process in the cgroup v2 hierarchy (cgroups(7)), None when it is gone or there is none.

        By now the number can have another owner, and the process another group. Where inode numbers can be read, the group must
        have the inode number `identity`, else the answer is None.
        """
        try:
            lines = (self._bytes(f"{pid}/cgroup") or b"").splitlines()
        except PermissionError:
            return None
        path = next((line[3:] for line in lines if line.startswith(b"0::")), b"")
        for mount in CGROUP2 if path else ():
            try:
                number = os.stat(mount.encode() + path).st_ino if os.path.exists(f"{mount}/cgroup.controllers") else identity
            except OSError:  # it is gone, or outside of our own group
                continue
            if number != identity:
                return None
        return path.decode("utf-8", "backslashreplace") or None

    def may_see_status(self, pid: int) -> bool:
        """Whether /proc/PID/stat shows the exit status: that takes the same right as the link `exe`."""
        try:
            os.readlink(f"{self.root}/{pid}/exe")
        except PermissionError:
            return False
        except OSError:
            pass  # a zombie has none, but we may look
        return True

    def last_run_ms(self, pid: int | str) -> float | None:
        """Return when the main thread last ran, in ms on the task clock of its processor; None: not told or gone."""
        for line in (self.read(f"{pid}/sched") or "").splitlines():
            if line.startswith("se.exec_start"):
                return float(line.rpartition(":")[2])
        return None

    def state(self, pid: int, tid: int) -> str | None:
        """Return the letter of ps(1) of a thread; None: it is gone."""
        rest = (self.read(f"{pid}/task/{tid}/stat") or "").rpartition(")")[2]
        return rest.split()[0] if rest else None

    def processor(self, place: int | str) -> int | None:
        """Return the processor on which a process or a thread (`100/task/102`) last ran; None: it is gone."""
        rest = (self.read(f"{place}/stat") or "").rpartition(")")[2]
        return int(rest.split()[36]) if rest else None

    def mounted_devices(self, pid: int) -> set[tuple[int, int]]:
        """Return the devices of what a process has mounted, each its major and its minor number; empty when it is gone."""
        devices = (line.split(maxsplit=3)[2].split(":") for line in (self.read(f"{pid}/mountinfo") or "").splitlines())
        return {(int(major), int(minor)) for major, minor in devices}

    def number(self, name: str) -> int | None:
        """Return the number in a file such as sys/kernel/pid_max; None when there is none."""
        with contextlib.suppress(ValueError):
            return int(self.read(name) or "")
        return None

    def link(self, name: str) -> str | None:
        """Return what a symbolic link says; None when it cannot be read."""
        with contextlib.suppress(OSError):
            return os.readlink(f"{self.root}/{name}")
        return None

    def read(self, name: str) -> str | None:
        """Return the text of a file, None when it cannot be read; bytes that are not UTF-8 become `\\xff`."""
        try:
            return self._read(name)
        except PermissionError:
            return None

    def _read(self, name: str) -> str | None:
        """The text; None when it or the process is gone.

        Raises:
            PermissionError: this user may not.
        """
        read = self._bytes(name)
        return None if read is None else read.decode(errors="backslashreplace")

    def _bytes(self, name: str, most: int = -1) -> bytes | None:
        """At most `size` bytes; None when the file or the process is gone (the kernel has several errors for that).

        Raises:
            PermissionError: this user may not.
        """
        try:
            with self._rights(), open(f"{self.root}/{name}", "rb", buffering=0) as file:
                return file.read(most)
        except PermissionError:
            raise
        except OSError:
            return None


class TaskClocks:
    """Converts the scheduler's clocks, in which it notes when a task last ran, to CLOCK_BOOTTIME.

    Each processor has its own. It does not count interrupts, stolen time and suspension, so it falls behind by an unknown
    amount. It is compared now, by running on that processor. What it has lost since the moment in question remains as an
    error: 22 ms in five minutes of a busy machine; in the worst case the whole time of a suspension.
    """

    def __init__(self, proc: Proc) -> None:
        self._proc = proc
        self._behind_ns: dict[int, int | None] = {}

    def compare(self, processors: set[int]) -> None:
        """Compare the clocks of these processors; the clock of one on which this process may not run remains unknown."""
        home = os.sched_getaffinity(0)
        try:
            self._behind_ns = {one: self._compare(one) for one in sorted(processors)}
        finally:
            os.sched_setaffinity(0, home)

    def _compare(self, processor: int) -> int | None:
        try:
            os.sched_setaffinity(0, {processor})
        except OSError:
            return None
        time.sleep(_SETTLE_S)
        ran_ms = self._proc.last_run_ms("thread-self")
        return None if ran_ms is None else boottime_ns() - int(ran_ms * 1e6)

    def boottime_ns(self, processor: int, ran_ms: float) -> int | None:
        """Return the moment `ran_ms` of that processor's clock in CLOCK_BOOTTIME ns; None: it was not compared."""
        behind_ns = self._behind_ns.get(processor)
        return None if behind_ns is None else int(ran_ms * 1e6) + behind_ns


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo: what of a file system is mounted where."""

    root: str
    point: Path
    kind: str
    options: str


def innermost_pid(status: Mapping[str, str]) -> int | None:
    """Return a process's number in its own PID namespace, by its /proc/PID/status; None: it does not say."""
    numbers = status.get("NSpid", "").split()
    return int(numbers[-1]) if numbers else None


def mounts(proc: Proc) -> list[Mount]:
    """Return what this process sees mounted."""
    found = []
    for line in (proc.read("self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        place, kind = before.split(), after.split()
        if len(place) >= 5 and len(kind) >= 3:
            found.append(Mount(_unescaped(place[3]), Path(_unescaped(place[4])), kind[0], kind[2]))
    return found


def _unescaped(text: str) -> str:
    """Undo what the kernel escapes in a path: blanks, newlines and backslashes, as `\\040`."""
    for octal, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, plain)
    return text


def is_control_group(place: str) -> bool:
    """Return whether a directory is one of the kernel's control groups (cgroups(7)), by where it lies."""
    real = os.path.realpath(place)
    around = [mount for mount in mounts(Proc()) if Path(real).is_relative_to(mount.point)]
    return bool(around) and max(around, key=lambda mount: len(mount.point.parts)).kind in ("cgroup", "cgroup2")


def cgroup_pids(place: str) -> list[int]:
    """Return the processes of the control group whose directory is `place`, and of those in it."""
    found = []
    for folder, _, files in os.walk(place):
        if "cgroup.procs" in files:
            try:
                found += [int(line) for line in Path(folder, "cgroup.procs").read_text().split()]
            except OSError:  # the group is gone, or holds threads only
                continue
    return [pid for pid in found if pid]  # 0: outside of this PID namespace
