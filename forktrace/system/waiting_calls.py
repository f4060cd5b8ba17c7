"""The system call in which a thread waits, from /proc/PID/task/TID/syscall: the kernel tells its number and arguments.

What an argument points to is read from the process's memory; proc(5) has the files, `man 2` the calls.
"""

from __future__ import annotations

import contextlib
import math
import platform
import struct
import time
from typing import Final

from forktrace.system.memory import Memory, Unreadable
from forktrace.system.procfs import Proc
from forktrace.trace.inquiry import Call

# The calls in which programs wait. The word behind says how they wait: for the file in their first argument, for a child, ...
_WAITING: Final = {
    "x86_64": """0 read file, 1 write file, 7 poll poll, 17 pread64 file, 18 pwrite64 file, 19 readv file, 20 writev file,
        23 select select, 34 pause -, 35 nanosleep sleep, 42 connect file, 43 accept file, 44 sendto file, 45 recvfrom file,
        46 sendmsg file, 47 recvmsg file, 58 vfork -, 61 wait4 wait4, 70 msgrcv -, 72 fcntl file, 73 flock file,
        74 fsync file, 75 fdatasync file, 128 rt_sigtimedwait signal, 130 rt_sigsuspend -, 202 futex futex,
        208 io_getevents -, 219 restart_syscall -, 220 semtimedop -, 230 clock_nanosleep clock, 232 epoll_wait epoll,
        247 waitid waitid, 257 openat -, 270 pselect6 pselect, 271 ppoll ppoll, 281 epoll_pwait epoll, 288 accept4 file,
        426 io_uring_enter file, 441 epoll_pwait2 epoll2""",
    "aarch64": """4 io_getevents -, 22 epoll_pwait epoll, 25 fcntl file, 32 flock file, 56 openat -, 63 read file,
        64 write file, 65 readv file, 66 writev file, 67 pread64 file, 68 pwrite64 file, 72 pselect6 pselect, 73 ppoll ppoll,
        82 fsync file, 83 fdatasync file, 95 waitid waitid, 98 futex futex, 101 nanosleep sleep, 115 clock_nanosleep clock,
        128 restart_syscall -, 133 rt_sigsuspend -, 137 rt_sigtimedwait signal, 188 msgrcv -, 192 semtimedop -,
        202 accept file, 203 connect file, 206 sendto file, 207 recvfrom file, 211 sendmsg file, 212 recvmsg file,
        242 accept4 file, 260 wait4 wait4, 426 io_uring_enter file, 441 epoll_pwait2 epoll2""",
}
_ENDLESS: Final = ("-", "file", "wait4", "waitid")  # these take no timeout
_OPTIONS: Final = (
    *((1, "WNOHANG"), (2, "WUNTRACED"), (4, "WEXITED"), (8, "WCONTINUED"), (0x1000000, "WNOWAIT")),
    *((0x20000000, "__WNOTHREAD"), (0x40000000, "__WALL"), (0x80000000, "__WCLONE")),
)
_P_PID, _P_PGID, _P_PIDFD = 1, 2, 3
_FUTEX_COMMAND, _FUTEX_REALTIME, _FUTEX_WAIT, _FUTEX_WAIT_BITSET = 127, 256, 0, 9
_TIMER_ABSTIME: Final = 1
_MOST_FILES: Final = 64
_S32: Final = 1 << 31


def _table() -> dict[int, tuple[str, str]]:
    entries = (entry.split() for entry in _WAITING.get(platform.machine(), "").split(","))
    return {int(number): (name, kind) for number, name, kind in filter(None, entries)}


CALLS: Final = _table()


def call_of(proc: Proc, pid: int, tid: int, memory: Memory | None) -> Call | None:
    """Return the system call that a thread is in; None: it runs, has ended, or may not be asked."""
    words = (proc.read(f"{pid}/task/{tid}/syscall") or "").split()
    if len(words) < 7 or not words[0].isdigit():
        return None
    number, arguments = int(words[0]), [int(word, 16) for word in words[1:7]]
    if number not in CALLS:
        return Call(f"system call {number}")
    name, kind = CALLS[number]
    return _Reading(proc, pid, memory, arguments).call(name, kind)


def bits_of(options: str) -> int:
    """Return the options of a wait call, `WNOHANG|WUNTRACED`, as the kernel has them."""
    return sum(bit for bit, name in _OPTIONS if name in options.split("|"))


class _Reading:
    """The arguments of a call, and what they point to."""

    def __init__(self, proc: Proc, pid: int, memory: Memory | None, arguments: list[int]) -> None:
        self._proc = proc
        self._pid = pid
        self._memory = memory
        self._arguments = arguments

    def call(self, name: str, kind: str) -> Call:
        one, two, three, four, _, _ = self._arguments
        if kind == "wait4":
            return Call(name, (), math.inf, _signed(one), _options(three))
        if kind == "waitid":
            return Call(name, (), math.inf, self._waited_for(_signed(one), _signed(two)), _options(four))
        timeout = math.inf if kind in _ENDLESS else self._timeout(kind)
        return Call(name, tuple((one, self._file(one)) for one in self._descriptors(kind)), timeout)

    def _waited_for(self, kind: int, identity: int) -> int | None:
        if kind == _P_PIDFD:
            about = dict(line.split(":", 1) for line in (self._proc.read(f"{self._pid}/fdinfo/{identity}") or "").splitlines())
            return int(about["Pid"]) if "Pid" in about else None
        return {_P_PID: identity, _P_PGID: -identity}.get(kind, -1)

    def _timeout(self, kind: str) -> float | None:
        """Seconds; inf: none; None: what the argument points to cannot be read."""
        one, two, three, four, five, _ = self._arguments
        if kind in ("poll", "epoll"):
            ms = _signed(three if kind == "poll" else four)
            return ms / 1000 if ms >= 0 else math.inf
        if kind == "futex":
            command = two & _FUTEX_COMMAND
            clock = time.CLOCK_REALTIME if two & _FUTEX_REALTIME else time.CLOCK_MONOTONIC
            return self._seconds(four, until=clock if command == _FUTEX_WAIT_BITSET else None)
        if kind == "clock":
            return self._seconds(three, until=_signed(one) if two & _TIMER_ABSTIME else None)
        where = {"select": five, "pselect": five, "ppoll": three, "sleep": one, "signal": three, "epoll2": four}[kind]
        return self._seconds(where, unit=1e6 if kind == "select" else 1e9)

    def _seconds(self, address: int, unit: float = 1e9, until: int | None = None) -> float | None:
        """What a timespec or timeval holds; with `until` it is a moment of that clock."""
        if not address:
            return math.inf
        with contextlib.suppress(Unreadable, OSError):
            if self._memory:
                whole, fraction = self._memory.unpack("<qq", address)
                seconds = float(whole + fraction / unit)
                return seconds if until is None else max(seconds - time.clock_gettime(until), 0.0)
        return None

    def _descriptors(self, kind: str) -> list[int]:
        one, two = self._arguments[:2]
        if kind == "file":
            return [_signed(one)]
        if kind in ("epoll", "epoll2"):
            watched = self._proc.read(f"{self._pid}/fdinfo/{_signed(one)}") or ""
            lines = [line.split() for line in watched.splitlines() if line.startswith("tfd:")]
            return [int(line[1]) for line in lines[:_MOST_FILES]]
        with contextlib.suppress(Unreadable):
            if kind in ("poll", "ppoll") and self._memory:
                entries = self._memory.read(one, 8 * min(two, _MOST_FILES))
                return [descriptor for descriptor, _ in struct.iter_unpack("<ii", entries) if descriptor >= 0]
            if kind in ("select", "pselect") and self._memory:
                return self._selected(min(_signed(one), 1024))
        return []

    def _selected(self, most: int) -> list[int]:
        """The descriptors in the three sets of select(2)."""
        found: set[int] = set()
        for address in self._arguments[1:4]:
            if address and most > 0 and self._memory:
                bits = int.from_bytes(self._memory.read(address, (most + 63) // 64 * 8), "little")
                found |= {one for one in range(most) if bits >> one & 1}
        return sorted(found)[:_MOST_FILES]

    def _file(self, descriptor: int) -> str:
        """What a descriptor is; of a TCP socket, with whom it is connected."""
        name = self._proc.link(f"{self._pid}/fd/{descriptor}") or "?"
        if not name.startswith("socket:["):
            return name
        inode = name.removeprefix("socket:[").removesuffix("]")
        for family in ("tcp", "tcp6"):
            for line in (self._proc.read(f"{self._pid}/net/{family}") or "").splitlines()[1:]:
                field = line.split()
                if len(field) > 9 and field[9] == inode:
                    listens = field[3] == "0A"
                    return f"TCP, listening on {_address(field[1])}" if listens else f"TCP {_address(field[2])}"
        return name


def _address(text: str) -> str:
    """`127.0.0.1:9092` of `0100007F:2384`: 32-bit words in the machine's order (proc_net_tcp(5))."""
    import socket

    words, _, port = text.partition(":")
    raw = b"".join(struct.pack("<I", int(words[at : at + 8], 16)) for at in range(0, len(words), 8))
    host = socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)
    return f"{host}:{int(port, 16)}" if len(raw) == 4 else f"[{host}]:{int(port, 16)}"


def _signed(argument: int) -> int:
    """An int among the arguments."""
    return (argument & 0xFFFFFFFF ^ _S32) - _S32


def _options(argument: int) -> str:
    return "|".join(name for bit, name in _OPTIONS if argument & bit)
