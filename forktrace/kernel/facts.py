"""What the probes must know of the kernel that runs: where members lie, numbers, what it has and what not. By its BTF.

The probes' object has a place for each fact (kernel.bpf.h); the loader puts the values in. A wrong one would pass the verifier
and give wrong rows, so of every member that a probe reads its size is compared with what the probe reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from forktrace.kernel.btf import Btf, Member
from forktrace.system.machine import Machine

# struct and prefix -> its members, which the probes name PREFIX_MEMBER, with the bytes that they read of them; without a number
# only the address of the member is used.
MEMBERS: Final[Mapping[str, str]] = {
    "task_struct task": "pid:4 tgid:4 real_parent:8 children sibling group_leader:8 thread_pid:8 start_boottime:8 exit_code:4 "
    "exit_signal:4 exit_state:4 flags:4 mm:8 stack:8 utime:8 stime:8 nvcsw:8 nivcsw:8 comm:16 signal:8 sighand:8 files:8 "
    "pid_links",
    "signal_struct signal": "live:4 flags:4 group_exit_code:4 pids utime:8 stime:8 maxrss:8 sum_sched_runtime:8",
    "sighand_struct sighand": "action",
    "sigaction sigaction": "sa_handler:8 sa_flags:8",
    "mm_struct mm": "arg_start:8 arg_end:8 exe_file:8 start_code:8",
    "file file": "f_inode:8 f_path",
    "inode inode": "i_ino:8 i_sb:8 i_size:8 i_uid:4",
    "super_block super_block": "s_dev:4",
    "path path": "dentry:8",
    "dentry dentry": "d_name",
    "qstr qstr": "name:8",
    "files_struct files_struct": "fdt:8",
    "fdtable fdtable": "fd:8 max_fds:4",
    "pid pid": "level:4 numbers tasks",
    "upid upid": "nr:4 ns:8",
    "pid_namespace pid_namespace": "child_reaper:8 ns pid_allocated:4",
    "ns_common ns_common": "inum:4",
    "linux_binprm linux_binprm": "filename:8",
    # what a trace event hands over
    "trace_event_raw_task_newtask fork_event": "pid:4 clone_flags:8",
    "trace_event_raw_sched_process_exec exec_event": "old_pid:4",
}
SIZES: Final = ("upid", "k_sigaction", "pt_regs")
CALLS: Final = ("CLONE", "FORK", "VFORK", "CLONE3", "WAIT4", "WAITID", "MMAP", "EXIT_GROUP", "CONNECT")
BIT_FIELDS: Final = ("is_child_subreaper", "has_child_subreaper")

# raw tracepoint -> the arguments that the probes rely on, numbers by their size; a kernel may hand over more.
TRACEPOINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "task_newtask": ("struct task_struct *", "u64"),
    "sched_process_exec": ("struct task_struct *", "s32", "struct linux_binprm *"),
    "sched_process_exit": ("struct task_struct *",),
    "signal_generate": ("s32", "struct kernel_siginfo *", "struct task_struct *", "s32", "s32"),
    "sched_process_free": ("struct task_struct *",),
}
# Facts of the recording, not of the kernel: whether stacks are wanted, what makes its keys of files.
STACKS: Final = "STACKS"
FILE_SECRET: Final = "FILE_SECRET"
# Whether a program at a raw tracepoint may be preempted (since Linux 7.0). It is skipped for other tasks meanwhile.
RAW_IS_PREEMPTED: Final = "RAW_IS_PREEMPTED"
# How many copies of a program run at a system call, where it may be preempted (work.bpf.h); and which of them this is, from 0.
COPY: Final = "COPY"
COPIES: Final = "COPIES"
_COPIES_IF_PREEMPTED: Final = 3
# Likewise of io_uring_complete. Later kernels hand over the whole completion, earlier ones its result.
IO_URING: Final = ("struct io_ring_ctx *", "void *", "struct io_uring_cqe *")
IO_URING_RESULT: Final = ("void *", "void *", "u64", "s32")


@dataclass(frozen=True)
class Ability:
    """What some kernels have and others lack, without which a recording goes on.

    The fact HAS_`name` is 1 if all its members are there.
    """

    name: str
    lack: str  # what is missing then, for a user
    members: Mapping[str, str]
    sizes: tuple[str, ...] = ()


ABILITIES: Final = (
    Ability(
        "CGROUPS",
        "control groups of processes",
        {
            "task_struct task": "cgroups:8",
            "css_set css_set": "dfl_cgrp:8",
            "cgroup cgroup": "kn:8",
            "kernfs_node kernfs_node": "id:8",
        },
    ),
    Ability(
        "WAITERS",
        "whether somebody already waited for a child when it ended",
        {
            "signal_struct signal": "wait_chldexit",
            "wait_queue_head wait_queue_head": "head",
            "wait_queue_entry wait_queue_entry": "private:8 entry",
            "wait_opts wait_opts": "wo_type:4 wo_flags:4 wo_pid:8 child_wait",
        },
    ),
    Ability(
        "TASK_LIMIT",
        "RLIMIT_NPROC as the limit that a failed fork met",
        {"task_struct task": "cred:8", "signal_struct signal": "rlim"},
        ("rlimit",),
    ),
    Ability(
        "PIDS_CGROUP",
        "pids.max as the limit that a failed fork met",
        {
            "task_struct task": "cgroups:8",
            "css_set css_set": "subsys",
            "pids_cgroup pids_cgroup": "counter:8 limit:8",
            "cgroup_subsys_state css": "parent:8",
        },
    ),
    Ability(
        "PID_NAMESPACE_PID_MAX",
        "pid_max of PID namespaces as the limit that a failed fork met",
        {"pid_namespace pid_namespace": "pid_max:4"},
    ),
    Ability(
        "IO_URING_WAITID",
        "reaps through io_uring",
        {
            "io_kiocb io_kiocb": "opcode:1 cmd",
            "io_waitid io_waitid": "which:4 upid:4 options:4 info",
            "waitid_info waitid_info": "pid:4 status:4 cause:4",
        },
    ),
)
# Fact -> what a recording lacks where it is 0, for a user.
LACKS: Final[Mapping[str, str]] = {f"HAS_{ability.name}": ability.lack for ability in ABILITIES} | {
    "HAS_MARK_VICTIM": "kills by the OOM killer (they look like SIGKILL of the kernel)",
    "EXIT_HAS_GROUP_DEAD": "stacks at a crash (since Linux 6.16)",
}


@dataclass(frozen=True)
class Facts:
    """The values of the facts by their names in the probes, and what is missing.

    Attributes:
        values: of every fact that this kernel has; 0 for the facts of an ability that it lacks
        missing: fact -> why it has no value
        tracepoints: raw tracepoint -> why no probe can be attached to it
        lacks: what a recording on this kernel will not have, in words
        task_iterator: the number of BPF's task iterator among the types of the kernel
    """

    values: Mapping[str, int]
    missing: Mapping[str, str]
    tracepoints: Mapping[str, str]
    lacks: tuple[str, ...]
    task_iterator: int

    @property
    def names(self) -> tuple[str, ...]:
        """All facts, the same on every kernel, in the order of their numbers."""
        return tuple(sorted({*self.values, *self.missing, STACKS, FILE_SECRET, COPY}))


def facts_of(btf: Btf, machine: Machine) -> Facts:
    """Return what the probes must know of the kernel with the types `btf`."""
    needed = _needed(btf, machine)
    values = _of_abilities(btf) | {"REG_LINK": 0} | needed.values | _of_machine(machine) | _of_preemption(btf) | _of_events(btf)
    lacks = tuple(words for fact, words in LACKS.items() if not values[fact])
    return Facts(values, needed.missing, _tracepoints(btf), lacks, btf.function("bpf_iter_task"))


def _needed(btf: Btf, machine: Machine) -> _Members:
    """What every kernel must have."""
    members = _Members(btf)
    for name in MEMBERS:
        members.take(name, MEMBERS[name])
    for size in SIZES:
        members.take_size(size)
    members.take_path("task_sum_exec_runtime", "task_struct", ("se", "sum_exec_runtime"), (8,))
    state = "__state" if "__state" in btf.members("task_struct") else "state"  # renamed in Linux 5.14, when it became an int
    members.take_path("task_state", "task_struct", (state,), (4, 8))
    members.take_path("task_thread_pointer", "task_struct", ("thread", *machine.thread_pointer), (8,))
    members.take_path("exec_event_filename", "trace_event_raw_sched_process_exec", ("__data_loc_filename",), (4,))
    for name in BIT_FIELDS:
        members.take_bit(f"signal_{name}", "signal_struct", name)
    for role, (member, place) in machine.registers.items():
        members.take_path(f"REG_{role}", "pt_regs", (member,), () if place else (4, 8), 8 * place)
    return members


def _of_abilities(btf: Btf) -> dict[str, int]:
    """Which abilities the kernel has, and the facts that they take."""
    known = {ability.name: _Members(btf).take_all(ability) for ability in ABILITIES}
    counter = _task_counter(btf)
    pids = btf.enumerator("cgroup_subsys_id", "pids_cgrp_id")
    waitid = btf.enumerator("io_uring_op", "IORING_OP_WAITID")
    completion = btf.tracepoint("io_uring_complete")
    has_result = alike(completion, IO_URING_RESULT)
    beside_members = {
        "TASK_LIMIT": counter is not None,
        "PIDS_CGROUP": pids is not None,
        "IO_URING_WAITID": waitid is not None and (has_result or alike(completion, IO_URING)),
    }
    values = {name: value for one in known.values() for name, value in one.values.items()}
    values |= {f"HAS_{name}": int(not one.missing and beside_members.get(name, True)) for name, one in known.items()}
    values |= dict(zip(("cred_counts", "counts_tasks", "COUNTS_OF_USER"), counter or (0, 0, 0), strict=True))
    return values | {"PIDS_CGROUP_ID": pids or 0, "IORING_OP_WAITID": waitid or 0, "IO_URING_HAS_RESULT": int(has_result)}


def _of_machine(machine: Machine) -> dict[str, int]:
    """What the processor decides, and what is the same everywhere."""
    return {f"SYSCALL_{name}": machine.calls.get(name, -1) for name in CALLS} | {
        "STACK_BYTES": machine.stack_bytes,
        "HAS_LINK_REGISTER": int("LINK" in machine.registers),
        "THREAD_POINTER_SPAN": machine.thread_pointer_span,
        "THREAD_POINTER_IS_SAVED": int(machine.thread_pointer_is_saved),
        "INIT_PID_NS": 0xEFFFFFFC,  # include/linux/proc_ns.h
    }


def _of_preemption(btf: Btf) -> dict[str, int]:
    """Where programs may be preempted."""
    return {
        RAW_IS_PREEMPTED: int(btf.has_variable("tracepoint_srcu_srcu_data")),
        COPIES: _COPIES_IF_PREEMPTED if btf.function("trace_call_bpf_faultable") else 1,
    }


def _of_events(btf: Btf) -> dict[str, int]:
    """What tracepoints hand over that older kernels lack."""
    victim = btf.tracepoint("mark_victim")
    group_dead = btf.members("trace_event_raw_sched_process_exit").get("group_dead")
    return {
        "EXIT_HAS_GROUP_DEAD": int(group_dead is not None),
        "exit_event_group_dead": group_dead.offset if group_dead else 0,
        "HAS_MARK_VICTIM": int(victim is not None),
        "MARK_VICTIM_HAS_TASK": int(victim is not None and "struct task_struct *" in victim),
    }


def _task_counter(btf: Btf) -> tuple[int, int, int] | None:
    """Return where struct cred points to what counts a user's tasks against RLIMIT_NPROC, where in that, and if it is the user.

    Since 5.14 it is struct ucounts ("Reimplement RLIMIT_NPROC on top of ucounts"), in an array of its own since 6.0.
    """
    cred, ucounts = btf.members("cred"), btf.members("ucounts")
    for member, enum in (("rlimit", "rlimit_type"), ("ucount", "ucount_type")):
        place = btf.enumerator(enum, "UCOUNT_RLIMIT_NPROC")
        if "ucounts" in cred and member in ucounts and place is not None:
            return cred["ucounts"].offset, ucounts[member].offset + 8 * place, 0
    user = btf.members("user_struct")
    if "user" in cred and "processes" in user and user["processes"].bytes == 4:
        return cred["user"].offset, user["processes"].offset, 1
    return None


def _tracepoints(btf: Btf) -> dict[str, str]:
    """Return what is wrong with the tracepoints, by their names."""
    wrong = {}
    for name, wanted in TRACEPOINTS.items():
        found = btf.tracepoint(name)
        if found is None:
            wrong[name] = f"tracepoint {name} is missing"
        elif not alike(found, wanted):
            wrong[name] = f"tracepoint {name} hands over ({', '.join(found)}), not ({', '.join(wanted)})"
    return wrong


def alike(found: tuple[str, ...] | None, wanted: tuple[str, ...]) -> bool:
    """Whether a tracepoint hands over the wanted arguments, numbers by their size, and perhaps more."""
    if found is None or len(found) < len(wanted):
        return False
    return all(one == other or (one[:1] in "us" and one[1:] == other[1:]) for one, other in zip(found, wanted, strict=False))


class _Members:
    """Looks members up one by one, and keeps in mind what was wrong."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self.values: dict[str, int] = {}
        self.missing: dict[str, str] = {}

    def take_all(self, ability: Ability) -> _Members:
        for name, words in ability.members.items():
            self.take(name, words)
        for size in ability.sizes:
            self.take_size(size)
        if self.missing:
            self.values |= dict.fromkeys(self.missing, 0)
        return self

    def take(self, name: str, words: str) -> None:
        """Take the members that `words` names, each with the bytes that are read of it."""
        struct, prefix = name.split()
        for word in words.split():
            member, _, size = word.partition(":")
            self.take_path(f"{prefix}_{member}", struct, (member,), (int(size),) if size else ())

    def take_path(self, fact: str, struct: str, path: tuple[str, ...], sizes: tuple[int, ...], further: int = 0) -> None:
        """Take where the member lies that `path` leads to; `sizes`: those that it may have."""
        offset, spelled, found = further, f"struct {struct}", Member(0, 0, 0, 0)
        types = self._btf.members(struct)
        for place, name in enumerate(path):
            if name not in types:
                self.missing[fact] = f"{spelled} has no {name}"
                return
            found = types[name]
            offset += found.offset
            spelled += f".{name}" if place else f" member {name}"
            types = self._btf.members_at(found.type)
        if found.bits or (sizes and found.bytes not in sizes):
            self.missing[fact] = (
                f"{spelled} has {found.bits or found.bytes} {'bits' if found.bits else 'bytes'}, not {sizes[0]}"
            )
            return
        self.values[fact] = offset

    def take_bit(self, fact: str, struct: str, name: str) -> None:
        """Take the byte and the bit of a flag: a bit-field, or (since 7.0 or thereabouts) a bool."""
        found = self._btf.members(struct).get(name)
        if found is None or (found.bits != 1 and (found.bits, found.bytes) != (0, 1)):
            self.missing |= dict.fromkeys((fact, f"{fact}_bit"), f"struct {struct} has no flag {name}")
            return
        self.values |= {fact: found.offset, f"{fact}_bit": found.bit}

    def take_size(self, struct: str) -> None:
        if not (size := self._btf.size(struct)):
            self.missing[f"{struct}_sizeof"] = f"struct {struct} is missing"
            return
        self.values[f"{struct}_sizeof"] = size
