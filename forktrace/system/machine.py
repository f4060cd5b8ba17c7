"""What depends on the processor architecture: system call numbers, registers, the thread pointer."""

from __future__ import annotations

import mmap
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from forktrace.errors import MachineLacks


@dataclass(frozen=True)
class Machine:
    """One architecture.

    Attributes:
        calls: system call numbers; a call that it does not have is missing
        registers: role -> the member of struct pt_regs, and the index if it is an array. ARG0 is the first
            argument as it was at the entry, also at the exit; LINK, where there is one, holds the innermost return address
        thread_pointer: the members from struct thread_struct to the thread pointer
        thread_pointer_span: pthread_self is less than so many bytes below the thread pointer
        thread_pointer_is_saved: the kernel has the value of the last context switch only
        headers: directory of its C headers
    """

    calls: Mapping[str, int]
    registers: Mapping[str, tuple[str, int]]
    thread_pointer: tuple[str, ...]
    thread_pointer_span: int
    thread_pointer_is_saved: bool
    headers: str

    @property
    def stack_bytes(self) -> int:
        """The size of a kernel stack: THREAD_SIZE, which is a page at least (VMAP_STACK)."""
        return max(16384, mmap.PAGESIZE)


MACHINES: Final[Mapping[str, Machine]] = {
    "x86_64": Machine(
        calls={"CLONE": 56, "FORK": 57, "VFORK": 58, "WAIT4": 61, "WAITID": 247, "CLONE3": 435, "MMAP": 9, "EXIT_GROUP": 231}
        | {"CONNECT": 42, "BPF": 321, "PERF_EVENT_OPEN": 298, "GET_ROBUST_LIST": 274},
        registers={
            "NR": ("orig_ax", 0),
            "ARG0": ("di", 0),
            "ARG1": ("si", 0),
            "ARG2": ("dx", 0),
            "ARG3": ("r10", 0),
            "ARG4": ("r8", 0),
            "ARG5": ("r9", 0),
            "SP": ("sp", 0),
        },
        thread_pointer=("fsbase",),
        thread_pointer_span=1,
        thread_pointer_is_saved=False,
        headers="/usr/include/x86_64-linux-gnu",
    ),
    # At the exit from a call x0 is its result. glibc's struct pthread lies right below the thread pointer, and is shorter.
    "aarch64": Machine(
        calls={"CLONE": 220, "WAIT4": 260, "WAITID": 95, "CLONE3": 435, "MMAP": 222, "EXIT_GROUP": 94}
        | {"CONNECT": 203, "BPF": 280, "PERF_EVENT_OPEN": 241, "GET_ROBUST_LIST": 100},
        registers={
            "NR": ("syscallno", 0),
            "ARG0": ("orig_x0", 0),
            "ARG1": ("regs", 1),
            "ARG2": ("regs", 2),
            "ARG3": ("regs", 3),
            "ARG4": ("regs", 4),
            "ARG5": ("regs", 5),
            "SP": ("sp", 0),
            "LINK": ("regs", 30),
        },
        thread_pointer=("uw", "tp_value"),
        thread_pointer_span=4096,
        thread_pointer_is_saved=True,
        headers="/usr/include/aarch64-linux-gnu",
    ),
}


def this_machine() -> Machine:
    """Return the architecture that this runs on.

    Raises:
        MachineLacks: forktrace does not support it.
    """
    name = platform.machine()
    if name not in MACHINES:
        raise MachineLacks(f"forktrace does not know {name} machines", f"it runs on {' and '.join(MACHINES)}")
    return MACHINES[name]
