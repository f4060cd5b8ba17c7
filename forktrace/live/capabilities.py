"""What the recorder needs of root's rights, one by one (capabilities(7)), and how it lets go of all others.

docs/privileges.md has the list, measured by tests/kernel/test_privileges.py.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from forktrace.live.user import User, become

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
# From then on, of processes that are not the user's any more: which program it is, and which file it has mapped. CAP_BPF: the
# maps, on kernels before "bpf: refine kernel.unprivileged_bpf_disabled behaviour" (5.19).
RECORDING: Final = ("CAP_BPF", "CAP_SYS_PTRACE", "CAP_CHECKPOINT_RESTORE")
NEEDED: Final = (*ARMING, *(name for name in RECORDING if name not in ARMING))

_VERSION_3: Final = 0x20080522  # linux/capability.h: two words of each set
_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 8, 38, 47, 4  # linux/prctl.h

_libc = ctypes.CDLL(None, use_errno=True)


def missing(status: str | None = None) -> list[str]:
    """Return the capabilities that recording needs and this process lacks, by name; `status` is /proc/self/status.

    CAP_SYS_ADMIN stands for CAP_BPF, CAP_PERFMON and CAP_CHECKPOINT_RESTORE, which were once part of it.
    """
    has = effective(status if status is not None else Path("/proc/self/status").read_text())
    once = ("CAP_BPF", "CAP_PERFMON", "CAP_CHECKPOINT_RESTORE") if MOUNTING in has else ()
    return [name for name in NEEDED if name not in has and name not in once]


def effective(status: str) -> set[str]:
    """Return the capabilities of NUMBERS that a process has, by its /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    bits = int(line.split()[1], 16)
    return {name for name, number in NUMBERS.items() if bits >> number & 1}


def become_recorder(who: User) -> None:
    """Take on the user's numbers and groups for good, and keep no right but to go on recording; root stays what it is."""
    if who.uid == 0:
        return
    kept = effective(Path("/proc/self/status").read_text()) & {*RECORDING, MOUNTING}
    if kept & set(RECORDING) >= set(RECORDING):
        kept.discard(MOUNTING)  # it is only for kernels and containers that do not know the others
    _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    become(who)
    set_capabilities(kept)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def become_ordinary() -> None:
    """Give up all capabilities that an exec would pass on: those of a user who has some for the sake of the recorder."""
    if os.geteuid() == 0:
        return
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    set_capabilities(())


def set_capabilities(names: Iterable[str]) -> None:
    """Have these capabilities, effective and permitted, and no others.

    Raises:
        OSError: the kernel refuses.
    """
    bits = sum(1 << NUMBERS[name] for name in names)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = struct.pack("<Ii", _VERSION_3, 0)
    if _libc.capset(header, struct.pack("<6I", low, low, 0, high, high, 0)):
        raise OSError(ctypes.get_errno(), "capset")
