"""Mounts tracefs for this process alone where it is not mounted, and looks up tracepoints in it."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from forktrace.errors import MachineLacks

TRACEFS: Final = "/sys/kernel/tracing"
MOUNT: Final = f"sudo mount -t tracefs tracefs {TRACEFS}; for a container: a volume with the {TRACEFS} of its host"

_GROUPS: Final = {"sys": "syscalls", "sched": "sched", "task": "task"}  # first word of a name -> where its kind lies
_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000  # linux/sched.h, linux/mount.h


def mount_tracefs() -> None:
    """Make tracefs visible to this process alone, where it is not mounted; the mount is gone with the process.

    Raises:
        MachineLacks: it cannot be mounted.
    """
    if os.path.isdir(f"{TRACEFS}/events"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.unshare(_CLONE_NEWNS)
        or libc.mount(b"none", b"/sys", None, _MS_REC | _MS_PRIVATE, None)  # not "/": in a chroot that is no mount
        or libc.mount(b"tracefs", TRACEFS.encode(), b"tracefs", 0, None)
    ):
        reason = os.strerror(ctypes.get_errno())
        raise MachineLacks(f"tracefs cannot be mounted: {reason}", MOUNT)


def tracepoint_number(name: str) -> int | None:
    """Return the number of a tracepoint for perf_event_open(2); None: this kernel has no such tracepoint."""
    try:
        return int(Path(f"{TRACEFS}/events/{_GROUPS[name.partition('_')[0]]}/{name}/id").read_text())
    except FileNotFoundError:
        return None
