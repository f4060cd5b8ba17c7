"""Compiles, attaches and polls the probes: the only module that imports bcc or knows where probes/ is."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from forktrace.errors import MachineLacks
from forktrace.live.bccloader import load_bcc
from forktrace.live.btf import Btf

RING_BYTES: Final = 16 << 20
SOURCES: Final = ("events.h", "common.bpf.h", "lifecycle.bpf.c", "wait.bpf.c")

# All that belongs to one processor architecture: system call numbers, where the arguments of a call are kept, the size of a
# kernel stack, the directory of its C headers. aarch64 would be a further column: its numbers, `syscallno`, `regs`.
MACHINES: Final[Mapping[str, Mapping[str, Any]]] = {
    "x86_64": {
        "calls": {"CLONE": 56, "FORK": 57, "VFORK": 58, "WAIT4": 61, "WAITID": 247, "CLONE3": 435},
        "registers": {"NR": "orig_ax", "ARG0": "di", "ARG1": "si", "ARG2": "dx", "ARG3": "r10"},
        "stack_bytes": 16384,
        "headers": "/usr/include/x86_64-linux-gnu",
    }
}

# struct -> the members whose offsets the probes use; in C `task_pid`, `signal_live`, ...
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "task_struct": tuple(
        "pid tgid real_parent children sibling group_leader thread_pid start_boottime exit_code exit_signal flags mm stack "
        "utime stime cred comm signal sighand cgroups".split()
    ),
    "signal_struct": tuple("live flags group_exit_code pids utime stime maxrss sum_sched_runtime rlim".split()),
    "sighand_struct": ("action",),
    "sigaction": ("sa_handler", "sa_flags"),
    "mm_struct": ("arg_start", "arg_end"),
    "linux_binprm": ("filename",),
    "pid": ("level", "numbers"),
    "upid": ("nr", "ns"),
    "pid_namespace": ("child_reaper", "ns", "pid_allocated"),
    "ns_common": ("inum",),
    "css_set": ("dfl_cgrp", "subsys"),
    "cgroup": ("kn",),
    "kernfs_node": ("id",),
}
# Without these the limit of a failed fork stays unknown, and a reap through io_uring unseen.
OPTIONAL_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "cred": ("ucounts",),
    "ucounts": ("rlimit",),
    "pids_cgroup": ("counter", "limit"),
    "cgroup_subsys_state": ("parent",),
    "pid_namespace": ("pid_max",),
    "io_kiocb": ("opcode", "cmd"),
    "io_waitid": ("which", "upid", "options", "info"),
    "waitid_info": ("pid", "status", "cause"),
}
SIZES: Final = ("upid", "k_sigaction", "pt_regs", "rlimit")
BIT_FIELDS: Final = ("is_child_subreaper", "has_child_subreaper")
SHORT: Final = {"task_struct": "task", "signal_struct": "signal", "sighand_struct": "sighand", "mm_struct": "mm"} | {
    "cgroup_subsys_state": "css"
}

# raw tracepoint -> the argument types the probes rely on; a kernel may hand over more.
TRACEPOINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "task_newtask": ("struct task_struct *", "u64"),
    "sched_process_exec": ("struct task_struct *", "pid_t", "struct linux_binprm *"),
    "sched_process_exit": ("struct task_struct *",),
    "signal_generate": ("int", "struct kernel_siginfo *", "struct task_struct *", "int", "int"),
    "sched_process_free": ("struct task_struct *",),
}


class Following(NamedTuple):
    """A followed process that is not gone: `exit_ns` 0 while it runs, `zombie_ns` 0 before a parent was notified."""

    pid: int
    start_ns: int
    exit_ns: int
    zombie_ns: int
    empty_waits: int


class WaitPlace(NamedTuple):
    """Where wait calls brought no child: enumerations as in events.h; `error` is 0 (empty), 4 (EINTR) or 10 (ECHILD)."""

    pid: int
    start_ns: int
    options: int
    error: int
    call: int
    target: int


def probe_directory() -> Path:
    """Return where the probes are: beside the package in a checkout, inside it when installed."""
    checkout = Path(__file__).parents[2] / "probes"
    return checkout if (checkout / SOURCES[0]).is_file() else Path(__file__).parents[1] / "probes"


def definitions(btf: Btf, machine: str) -> dict[str, int]:
    """Return the macros that make the probes fit this kernel and machine.

    Raises:
        MachineLacks: a tracepoint or a member that the probes need is not there, or is different.
    """
    if machine not in MACHINES:
        raise MachineLacks(f"forktrace does not know {machine} machines", "it runs on x86_64")
    _check_tracepoints(btf)
    facts = MACHINES[machine]
    defined = _offsets(btf, MEMBERS, required=True) | _offsets(btf, OPTIONAL_MEMBERS, required=False)
    defined |= {f"{name}_sizeof": btf.size(name) for name in SIZES}
    defined["task_sum_exec_runtime"] = (
        btf.members("task_struct")["se"].offset + btf.members("sched_entity")["sum_exec_runtime"].offset
    )
    for name in BIT_FIELDS:
        member = btf.members("signal_struct")[name]
        defined |= {f"signal_{name}": member.offset, f"signal_{name}_bit": member.bit}
    registers = btf.members("pt_regs")
    defined |= {f"REG_{name}": registers[member].offset for name, member in facts["registers"].items()}
    defined |= {f"SYSCALL_{name}": number for name, number in facts["calls"].items()}
    defined["STACK_BYTES"] = facts["stack_bytes"]
    pids_cgroup = btf.enumerator("cgroup_subsys_id", "pids_cgrp_id")
    waitid = btf.enumerator("io_uring_op", "IORING_OP_WAITID")
    victim = btf.tracepoint("mark_victim")
    return defined | {
        "RLIMIT_NPROC": 6,
        "INIT_PID_NS": 0xEFFFFFFC,
        "PIDS_CGROUP_ID": pids_cgroup or 0,
        "EXIT_HAS_GROUP_DEAD": int("bool" in (btf.tracepoint("sched_process_exit") or ())),
        "HAS_MARK_VICTIM": int(victim is not None),
        "MARK_VICTIM_HAS_TASK": int("struct task_struct *" in (victim or ())),
        "HAS_UCOUNTS_RLIMIT": int("cred_ucounts" in defined and "ucounts_rlimit" in defined),
        "HAS_PIDS_CGROUP": int(pids_cgroup is not None and "pids_cgroup_counter" in defined),
        "HAS_PID_NAMESPACE_PID_MAX": int("pid_namespace_pid_max" in defined),
        "IORING_OP_WAITID": waitid or 0,
        "HAS_IO_URING_WAITID": int(
            waitid is not None
            and "io_waitid_info" in defined
            and btf.tracepoint("io_uring_complete") == ("struct io_ring_ctx *", "void *", "struct io_uring_cqe *")
        ),
        "HAS_OLD_FORKS": int("FORK" in facts["calls"]),
    }


def _check_tracepoints(btf: Btf) -> None:
    for name, wanted in TRACEPOINTS.items():
        found = btf.tracepoint(name)
        if found is None or found[: len(wanted)] != wanted:
            have = "is missing" if found is None else f"hands over ({', '.join(found)})"
            raise MachineLacks(
                f"this kernel is not one forktrace knows: tracepoint {name} {have}",
                f"please report it with the output of uname -r; expected ({', '.join(wanted)})",
            )


def _offsets(btf: Btf, wanted: Mapping[str, tuple[str, ...]], *, required: bool) -> dict[str, int]:
    defined = {}
    for name, members in wanted.items():
        found = btf.members(name)
        for member in members:
            if member in found:
                defined[f"{SHORT.get(name, name)}_{member}"] = found[member].offset
            elif required:
                raise MachineLacks(
                    f"this kernel is not one forktrace knows: struct {name} has no {member}",
                    "please report it with the output of uname -r",
                )
    return defined


class Probes:
    """The probes, compiled and attached; nothing is followed before `follow`.

    Raises:
        MachineLacks: bcc, BTF, a tracepoint or the right to load BPF programs is missing.
    """

    def __init__(self, ring_bytes: int = RING_BYTES) -> None:
        machine = platform.machine()
        defined = definitions(Btf(), machine) | {"RING_PAGES": ring_bytes // mmap.PAGESIZE, "CONFIG_BPF_SYSCALL": 1}
        folder = probe_directory()
        os.environ["BCC_KERNEL_SOURCE"] = str(folder / "stub")
        bcc = load_bcc()
        flags = [f"-D{name}={value}" for name, value in defined.items()]
        flags += ["-Doffsetof(t,m)=__builtin_offsetof(t,m)", "-I/usr/include", f"-I{MACHINES[machine]['headers']}"]
        text = "#include <linux/types.h>\n" + "".join((folder / name).read_text() for name in SOURCES)
        try:
            self._bpf: Any = bcc.BPF(text=text.replace("#pragma once", ""), cflags=[*flags, "-Wno-everything"])
        except Exception as error:  # bcc raises bare Exception
            raise MachineLacks(
                f"the probes cannot be loaded: {str(error) or type(error).__name__}", "forktrace doctor"
            ) from error
        self._ring = Ring(self._bpf["ring"].map_fd, ring_bytes)

    def follow(self, pid: int, pid_ns: int) -> None:
        """Follow process `pid` of the PID namespace with inode number `pid_ns` from its next exec on."""
        settings = self._bpf["settings"]
        settings[ctypes.c_int(0)] = settings.Leaf((pid_ns, pid), 0, 0)

    def read(self) -> bytes:
        """Return the records that have come since the last call, as they lie in the ring."""
        return self._ring.read()

    def losses(self) -> list[int]:
        """Return what could not be delivered so far, by enum kind and enum loss."""
        return [entry.value for entry in self._bpf["losses"].values()]

    def following(self) -> list[Following]:
        """Return the followed processes that are not gone."""
        return [
            Following(one.pid, one.start_ns, one.exit_ns, one.zombie_ns, one.empty_waits)
            for one in self._bpf["followed"].values()
            if not one.reaped
        ]

    def wait_totals(self) -> dict[WaitPlace, int]:
        """Return how often wait calls brought no child, per place."""
        totals = self._bpf["wait_totals"].items()
        return {
            WaitPlace(place.pid, place.start_ns, place.options, place.error, place.call, place.target): count.value
            for place, count in totals
        }

    def forget(self, places: Iterable[WaitPlace]) -> None:
        """Remove places whose process is gone."""
        table = self._bpf["wait_totals"]
        for place in places:
            table.pop(table.Key(place.start_ns, place.pid, place.options, place.error, place.call, place.target), None)

    def close(self) -> None:
        """Detach the probes."""
        self._ring.close()
        self._bpf.cleanup()


class Ring:
    """Reads a BPF ring buffer in bulk, through its memory (kernel: Documentation/bpf/ringbuf.rst; the data is mapped twice)."""

    def __init__(self, map_fd: int, size: int) -> None:
        self._size = size
        self._consumer = mmap.mmap(map_fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(map_fd, mmap.PAGESIZE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._data = memoryview(self._producer)[mmap.PAGESIZE :]

    def read(self) -> bytes:
        """Return all finished records, each with its header, and make their room free."""
        (start,) = _u64(self._consumer)
        (end,) = _u64(self._producer)
        if start == end:
            return b""
        first = start % self._size
        whole = self._finished(first, end - start)
        chunk = bytes(self._data[first : first + whole])
        _pack_u64(self._consumer, 0, start + whole)
        return chunk

    def _finished(self, first: int, available: int) -> int:
        """Return how many bytes from `first` on are finished records: up to the first that is still being written."""
        lengths = self._data.cast("I")
        at, end = first // 4, (first + available) // 4
        while at < end:
            length = lengths[at]
            if length & BUSY:
                break
            at += record_words(length)
        lengths.release()
        return at * 4 - first

    def close(self) -> None:
        """Unmap."""
        self._data.release()
        self._producer.close()
        self._consumer.close()


BUSY: Final = 1 << 31
DISCARDED: Final = 1 << 30


def record_words(length: int) -> int:
    """Return how many 4-byte words a record takes in the ring: an 8-byte header, the data, padding to 8 bytes."""
    return ((length & ~DISCARDED) + 15) // 8 * 2


_u64 = struct.Struct("<Q").unpack_from
_pack_u64 = struct.Struct("<Q").pack_into
