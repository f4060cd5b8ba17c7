"""The capabilities that the recorder needs (capabilities(7)), and how it drops all others.

docs/privileges.md has the list, measured by tests/kernel/test_privileges.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from forktrace.system.users import User, become

NUMBERS: Final = {  # linux/capability.h
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
    "CAP_CHECKPOINT_RESTORE": 40,
}
ARMING: Final = ("CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH")  # load the probes, attach them, look into tracefs
MOUNTING: Final = "CAP_SYS_ADMIN"  # of tracefs, where it is not mounted
# While recording, to look into processes that have changed their user: their /proc/PID/maps and map_files, whose links, whose
# directory. CAP_BPF: for maps, on kernels before "bpf: refine kernel.unprivileged_bpf_disabled behaviour" (5.19).
RECORDING: Final = ("CAP_BPF", "CAP_SYS_PTRACE", "CAP_CHECKPOINT_RESTORE", "CAP_DAC_READ_SEARCH")
NEEDED: Final = (*ARMING, *(name for name in RECORDING if name not in ARMING))
PARANOID: Final = Path("/proc/sys/kernel/perf_event_paranoid")
_TOO_PARANOID: Final = 3  # from this value on (Debian's default) perf_event_open(2) needs CAP_SYS_ADMIN

_UNUSED: Final = 0xC0000000  # no user has a number from 2^31 on (systemd: Users, Groups, UIDs and GIDs)

_HEADER: Final = struct.pack("<Ii", 0x20080522, 0)  # linux/capability.h: version 3, two words of each set; this thread
_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 8, 38, 47, 4  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def missing(status: str | None = None) -> list[str]:
    """Return the capabilities that recording needs and this process lacks, by name; `status` is /proc/self/status.

    CAP_SYS_ADMIN stands for CAP_BPF, CAP_PERFMON and CAP_CHECKPOINT_RESTORE, which were once part of it.
    """
    has = effective(status if status is not None else Path("/proc/self/status").read_text())
    once = ("CAP_BPF", "CAP_PERFMON", "CAP_CHECKPOINT_RESTORE") if MOUNTING in has else ()
    return [name for name in needed() if name not in has and name not in once]


def remedy(lacking: Iterable[str]) -> str:
    """Return what gives root the missing capabilities, for example in a container."""
    add = " ".join(f"--cap-add {name.removeprefix('CAP_')}" for name in lacking)
    return f"start the container with {add} (or --privileged)"


def needed() -> tuple[str, ...]:
    """Return the capabilities that recording needs on this machine: NEEDED, and one more where perf events are restricted."""
    try:
        is_closed = int(PARANOID.read_text()) >= _TOO_PARANOID
    except (OSError, ValueError):
        is_closed = False
    return (*NEEDED, MOUNTING) if is_closed else NEEDED


def effective(status: str) -> set[str]:
    """Return the capabilities of NUMBERS that a process has, by its /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    bits = int(line.split()[1], 16)
    return {name for name, number in NUMBERS.items() if bits >> number & 1}


def become_recorder(who: User) -> None:
    """Become the user for good, with only the capabilities to go on recording; root stays root.

    What is kept is not in effect but within `in_effect`: a file that the user names is opened with the user's rights. Who may
    send a signal goes by the real and the saved number (kill(2)); those are nobody's, so that the command cannot stop it, and
    another for each user, so that the recorders of one do not count against a limit of another's (RLIMIT_NPROC).
    """
    if who.uid == 0:
        return
    kept = mask(RECORDING) & _permitted()
    if kept != mask(RECORDING):
        kept |= mask([MOUNTING]) & _permitted()  # on kernels that do not know them all
    if os.geteuid() == 0:
        _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
        try:
            become(who, nobody_for(who.uid))
        except OSError:  # a user namespace, as of a container, does not know that number
            become(who, who.uid)
    _set(permitted=kept, effective=kept & mask(["CAP_BPF"]))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def nobody_for(uid: int) -> int:
    """Return the real user number of a user's recorders: it belongs to nobody, and each user has another."""
    return _UNUSED + uid % (_UNUSED >> 2)


@contextlib.contextmanager
def in_effect() -> Iterator[None]:
    """Put all rights of this process into effect, to look into a process that has changed its user."""
    effective, permitted, _ = _sets()
    if effective == permitted:
        yield
        return
    _set(permitted, permitted)
    try:
        yield
    finally:
        _set(permitted, effective)


def become_ordinary() -> None:
    """Give up all capabilities that an exec would pass on: those of a user who has some for the sake of the recorder."""
    if os.geteuid() != 0:
        give_up_all()


def give_up_all() -> None:
    """Give up all capabilities for good, root's too: what is left is what belongs to the user."""
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set(0, 0)


def mask(names: Iterable[str]) -> int:
    """Return a set of capabilities as the kernel has it."""
    return sum(1 << NUMBERS[name] for name in names)


def _permitted() -> int:
    return _sets()[1]


def _sets() -> tuple[int, int, int]:
    """Return which capabilities are effective, permitted and inheritable (capget(2))."""
    data = ctypes.create_string_buffer(24)
    if _libc.capget(_HEADER, data):
        raise OSError(ctypes.get_errno(), "capget")
    words = struct.unpack("<6I", data.raw)
    low, high = words[:3], words[3:]
    effective, permitted, inheritable = (below | above << 32 for below, above in zip(low, high, strict=True))
    return effective, permitted, inheritable


def _set(permitted: int, effective: int) -> None:
    words = (effective, permitted, 0)
    if _libc.capset(_HEADER, struct.pack("<6I", *(word & 0xFFFFFFFF for word in words), *(word >> 32 for word in words))):
        raise OSError(ctypes.get_errno(), "capset")
