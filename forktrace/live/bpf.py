"""Compiles, attaches and polls the probes: the only module that has bcc loaded."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np

from forktrace.errors import MachineLacks
from forktrace.live.bccloader import load_bcc
from forktrace.live.btf import Btf
from forktrace.live.layout import enums, layouts, probe_directory
from forktrace.live.maps import Map, Records, Ring, TaskIterator
from forktrace.live.tracefs import mount_tracefs
from forktrace.trace.events import KINDS

RING_BYTES: Final = 16 << 20
QUESTION_BYTES: Final = 1 << 20  # thousands of programs can be new at once
FOLLOWED: Final = 65536  # entries of the maps of that name in common.bpf.h
WAIT_PLACES: Final = 16384
INTERPRETERS: Final = 4096
CODES: Final = 16384
SOURCES: Final = ("events.h", "common.bpf.h", "pystack.bpf.h", "lifecycle.bpf.c", "wait.bpf.c")
ATTACH_SOURCE: Final = "tasks.bpf.c"
TASK_PROGRAM: Final = "bpf_iter__task"
WANTED: Final = 16384  # entries of the maps of that name, and of `mapped`, in ATTACH_SOURCE
MAPPED: Final = 65536

# The kinds that come through the ring, in the order of enum kind, and what else can get lost, in that of enum loss.
EVENTS: Final = KINDS[:10]
RING_KINDS: Final = (*EVENTS, "stack", "code")
LOSSES: Final = (*RING_KINDS, "process not followed", "wait place", "child not adopted", "process number", "unknown file")

# All that belongs to one processor architecture: system call numbers, where the arguments of a call are kept, the size of a
# kernel stack, the directory of its C headers. aarch64 would be a further column: its numbers, `syscallno`, `regs`, `tp_value`.
MACHINES: Final[Mapping[str, Mapping[str, Any]]] = {
    "x86_64": {
        "calls": {"CLONE": 56, "FORK": 57, "VFORK": 58, "WAIT4": 61, "WAITID": 247, "CLONE3": 435, "BPF": 321}
        | {"MMAP": 9, "EXIT_GROUP": 231},
        "registers": {"NR": "orig_ax", "ARG0": "di", "ARG1": "si", "ARG2": "dx", "ARG3": "r10", "ARG4": "r8", "ARG5": "r9"}
        | {"SP": "sp"},
        "thread_pointer": "fsbase",  # in struct thread_struct; pthread_self
        "stack_bytes": 16384,
        "headers": "/usr/include/x86_64-linux-gnu",
    }
}

# struct -> the members whose offsets the probes use; in C `task_pid`, `signal_live`, ...
MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "task_struct": tuple(
        "pid tgid real_parent children sibling group_leader thread_pid start_boottime exit_code exit_signal flags mm stack "
        "utime stime cred comm signal sighand cgroups files exit_state pid_links".split()
    ),
    "signal_struct": tuple("live flags group_exit_code pids utime stime maxrss sum_sched_runtime rlim".split()),
    "sighand_struct": ("action",),
    "sigaction": ("sa_handler", "sa_flags"),
    "mm_struct": ("arg_start", "arg_end", "exe_file", "start_code"),
    "file": ("f_inode", "f_path"),
    "inode": ("i_ino", "i_sb", "i_size"),
    "super_block": ("s_dev",),
    "path": ("dentry",),
    "dentry": ("d_name",),
    "qstr": ("name",),
    "files_struct": ("fdt",),
    "fdtable": ("fd", "max_fds"),
    "linux_binprm": ("filename",),
    "pid": ("level", "numbers", "tasks"),
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
    thread = btf.members("thread_struct")[facts["thread_pointer"]]
    states = btf.members("task_struct")
    defined["task_state"] = states["__state" if "__state" in states else "state"].offset  # renamed in Linux 5.14
    defined["task_thread_pointer"] = btf.members("task_struct")["thread"].offset + thread.offset
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

    bcc and LLVM take 150 MB, so a process of their own compiles and attaches, hands over the descriptors, and is gone;
    `meanwhile` runs beside it.

    Raises:
        MachineLacks: bcc, BTF, a tracepoint or the right to load BPF programs is missing.
    """

    def __init__(
        self,
        ring_bytes: int = RING_BYTES,
        *,
        stacks: bool = True,
        attach: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._descriptors = _compiled_elsewhere(ring_bytes, stacks, attach, meanwhile)
        call = MACHINES[platform.machine()]["calls"]["BPF"]
        types = layouts()
        self._settings = Map(self._descriptors["settings"], "<u4", types["settings"], 1, call)
        self._losses = Map(self._descriptors["losses"], "<u4", "<u8", len(LOSSES), call)
        self._followed = Map(self._descriptors["followed"], "<u8", types["process"], FOLLOWED, call)
        self._wait_totals = Map(self._descriptors["wait_totals"], types["wait_place"], "<u8", WAIT_PLACES, call)
        self._ring = Ring(self._descriptors["ring"], ring_bytes)
        self._questions = Ring(self._descriptors["questions"], QUESTION_BYTES)
        self._question = np.dtype([("header", "<u8"), ("question", types["question"])])
        self._interpreters = Map(self._descriptors["interpreters"], "<u8", types["interpreter"], INTERPRETERS, call)
        self._sent = [
            Map(self._descriptors[name], "<u8", "u1", CODES, call) for name in ("sent_codes", "sent_stacks") if stacks
        ]
        if attach:
            self._attaching = Map(self._descriptors["attaching"], "<u4", types["attaching"], 1, call)
            self._wanted = Map(self._descriptors["wanted"], "<u4", "u1", WANTED, call)
            self._mapped = Map(self._descriptors["mapped"], "<u4", types["mapping"], MAPPED, call)
            self._tasks = TaskIterator(self._descriptors["tasks"], call)

    def wake_up(self) -> int:
        """Return the descriptor that is readable while there are questions."""
        return self._descriptors["questions"]

    def questions(self) -> Iterable[Any]:
        """Return what the probes have asked about files since the last call, as `struct question`."""
        asked = self._questions.read()
        return np.frombuffer(asked, self._question)["question"] if asked else ()

    def describe(self, file: int, fields: Mapping[str, int]) -> None:
        """Answer what `file` is: the fields of `struct interpreter`, none for a file that is no interpreter."""
        names = self._interpreters.value_type.names or ()
        self._interpreters.set(file, tuple(fields.get(name, 0) for name in names))

    def forget_files(self, files: Iterable[int]) -> None:
        """Ask again about these files when they are met."""
        for file in files:
            self._interpreters.delete(file)

    def forget_stacks(self, codes: Iterable[int], stacks: Iterable[int]) -> None:
        """Send these code objects and stacks again when they are met."""
        for sent, keys in zip(self._sent, (codes, stacks), strict=False):
            for key in keys:
                sent.delete(key)

    def follow(self, pid: int, pid_ns: int) -> None:
        """Follow process `pid` of the PID namespace with inode number `pid_ns` from its next exec on."""
        self._settings.set(0, ((pid_ns, pid), 0, 0))

    def want(self, pids: Iterable[int], never: Iterable[int]) -> None:
        """Let passes follow these processes and what descends from them, except for `never`; all by their numbers here."""
        for pid in never:
            self._wanted.set(pid, 0)
        for pid in pids:
            self._wanted.set(pid, 1)

    def say_mapped(self, pid: int, library: int, start: int) -> None:
        """Tell the next pass that process `pid` has mapped the file `library` (by the probes' file_key) at `start`."""
        self._mapped.set(pid, (library, start))

    def pass_tasks(self) -> tuple[int, int]:
        """Look at all tasks; return how many processes are followed since, and how many could not be told."""
        self._attaching.set(0, (1, 0, 0, 0))
        self._tasks.run()
        _, found = self._attaching.items()
        return int(found[0]["added"]), int(found[0]["pending"])

    def attached(self) -> None:
        """End the attaching, and forget what passes were told."""
        self._attaching.set(0, (0, 0, 0, 0))
        for told in (self._wanted, self._mapped):
            for pid in told.items()[0].tolist():
                told.delete(pid)

    def read(self) -> bytes:
        """Return the records that have come since the last call, as they lie in the ring."""
        return self._ring.read()

    def losses(self) -> dict[str, int]:
        """Return how much of what could not be delivered so far."""
        _, counts = self._losses.items()
        return dict(zip(LOSSES, counts.tolist(), strict=True))

    def following(self) -> Records:
        """Return the entries (`struct process`) of the followed processes that are not reaped; `exit_ns` 0: it runs."""
        _, entries = self._followed.items()
        open_ones: Records = entries[entries["reaped"] == 0]
        return open_ones

    def wait_totals(self) -> tuple[Records, Records]:
        """Return the places (`struct wait_place`) where wait calls brought no child, and how often."""
        return self._wait_totals.items()

    def forget(self, place: Records) -> None:
        """Remove a place whose process is gone."""
        self._wait_totals.delete(place)

    def close(self) -> None:
        """Detach the probes."""
        self._ring.close()
        self._questions.close()
        if "tasks" in self._descriptors:
            self._tasks.close()
        for descriptor in self._descriptors.values():
            os.close(descriptor)


def _compiled_elsewhere(ring_bytes: int, stacks: bool, attach: bool, meanwhile: Callable[[], None]) -> dict[str, int]:
    """Compile and attach in a child process, beside it run `meanwhile`; return the descriptors of what it made, by name."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir("/")  # clang asks for the working directory, which may be gone
            _compile_and_send(its, ring_bytes, stacks, attach)
        finally:
            os._exit(0)
    its.close()
    meanwhile()
    message, descriptors, _, _ = socket.recv_fds(ours, 1 << 16, 64)
    os.waitpid(pid, 0)
    said = json.loads(message or b'{"error": "the compiler died", "hint": ""}')
    if "error" in said:
        raise MachineLacks(said["error"], said["hint"])
    return dict(zip(said["names"], descriptors, strict=True))


def _compile_and_send(channel: socket.socket, ring_bytes: int, stacks: bool, attach: bool) -> None:
    try:
        mount_tracefs()
        bpf = compile_probes(ring_bytes, stacks, attach)
    except MachineLacks as error:
        channel.send(json.dumps({"error": str(error), "hint": error.hint}).encode())
        return
    names = ["settings", "losses", "followed", "wait_totals", "ring", "questions", "interpreters"]
    names += ["raw_programs", "sys_programs", *(["sent_codes", "sent_stacks"] if stacks else [])]
    names += ["attaching", "wanted", "mapped"] if attach else []
    held = {name: bpf[name].map_fd for name in names}
    held |= {"tasks": bpf.funcs[TASK_PROGRAM.encode()].fd} if attach else {}
    held |= {f"raw {name.decode()}": descriptor for name, descriptor in bpf.raw_tracepoint_fds.items()}
    held |= {f"tracepoint {name}": descriptor for name, descriptor in enumerate(bpf.tracepoint_fds.values())}
    socket.send_fds(channel, [json.dumps({"names": list(held)}).encode()], list(held.values()))


def compile_probes(ring_bytes: int, stacks: bool = True, attach: bool = False) -> Any:
    """Return bcc's object with the probes compiled and attached, with `attach` also the one that passes over all tasks.

    Raises:
        MachineLacks: as `Probes`.
    """
    machine = platform.machine()
    defined = definitions(Btf(), machine) | {
        "STACKS": int(stacks),
        "RING_PAGES": ring_bytes // mmap.PAGESIZE,
        "QUESTION_PAGES": QUESTION_BYTES // mmap.PAGESIZE,
        "CONFIG_BPF_SYSCALL": 1,
    }
    folder = probe_directory()
    os.environ["BCC_KERNEL_SOURCE"] = str(folder / "stub")
    bcc = load_bcc()
    flags = [f"-D{name}={value}" for name, value in defined.items()]
    flags += [
        "-Doffsetof(t,m)=__builtin_offsetof(t,m)",
        "-I/usr/include",
        f"-I{MACHINES[machine]['headers']}",
        "-Wno-everything",
    ]
    sources = (*SOURCES, *([ATTACH_SOURCE] if attach else []))
    text = "#include <linux/types.h>\n" + "".join((folder / name).read_text() for name in sources)
    try:
        probes = bcc.BPF(text=text.replace("#pragma once", ""), cflags=flags)
        _link(bcc, probes, text)
        if attach:
            probes.load_func(TASK_PROGRAM, bcc.BPF.TRACING)
        return probes
    except Exception as error:  # bcc raises bare Exception
        raise MachineLacks(f"the probes cannot be loaded: {str(error) or type(error).__name__}", "forktrace doctor") from error


def _link(bcc: Any, probes: Any, text: str) -> None:
    """Load the programs that tail calls lead to, named for the type of their array and their place in it.

    The kernel verifies several at once: half a second that two processors share.
    """
    (order,) = enums(re.findall(r"enum program \{.*?\}", text, flags=re.DOTALL)[0]).values()
    types = {"raw": bcc.BPF.RAW_TRACEPOINT, "sys": bcc.BPF.TRACEPOINT}
    names = [
        bcc.lib.bpf_function_name(probes.module, number).decode() for number in range(bcc.lib.bpf_num_functions(probes.module))
    ]
    linked = [name for name in names if name.partition("_")[0] in types and name.partition("_")[2].upper() in order]
    with ThreadPoolExecutor(2) as pool:
        programs = list(pool.map(lambda name: probes.load_func(name, types[name.partition("_")[0]]), linked))
    for name, program in zip(linked, programs, strict=True):
        kind, _, place = name.partition("_")
        probes[f"{kind}_programs"][ctypes.c_int(order.index(place.upper()))] = ctypes.c_int(program.fd)
