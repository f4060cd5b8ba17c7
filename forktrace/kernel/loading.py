"""Loads the compiled probes into the kernel that runs, and attaches them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, Final, NamedTuple, TypeVar

from forktrace.errors import ForktraceError, MachineLacks
from forktrace.kernel import bpf
from forktrace.kernel.btf import Btf
from forktrace.kernel.compile import QUESTION_BYTES, RING_BYTES, compile_probes, digest_of
from forktrace.kernel.facts import COPIES, COPY, FILE_SECRET, RAW_IS_PREEMPTED, STACKS, Facts, facts_of
from forktrace.kernel.layout import probe_directory
from forktrace.kernel.linking import link, missing_facts
from forktrace.kernel.objects import MapSpec, ProbesObject, read_object
from forktrace.system import resource_limits
from forktrace.system.machine import this_machine
from forktrace.system.tracefs import mount_tracefs, tracepoint_number

TASKS: Final = "on_task"
GONE: Final = "on_gone"
PROGRAM: Final = "program "  # before the names of programs among the descriptors
LEAST_PROCESSES: Final = 4096
MOST_PROCESSES: Final = 65536
COUNTERS: Final = ("losses", "taken_over")  # arrays of numbers
_SHARE_OF_MEMORY: Final = 64  # the table of processes gets at most this part of the memory
_BYTES_A_PROCESS: Final = 600  # including the kernel's overhead per entry
_DESCRIPTORS_MOST: Final = 128
_THREADS: Final = 2

_Result = TypeVar("_Result")


class Hook(NamedTuple):
    """Where a program runs.

    Attributes:
        program: its name
        kind: of program; where raw tracepoints can be preempted, those of _EVENTS are at trace events
        tracepoints: those that it is attached to; of system calls those that this processor has; none: the recorder runs it
        needs: the fact that must not be 0, else it is left out
    """

    program: str
    kind: int
    tracepoints: tuple[str, ...]
    needs: str = ""


_WAITS: Final = ("sys_exit_wait4", "sys_exit_waitid")
_FORKS: Final = ("sys_exit_clone", "sys_exit_clone3", "sys_exit_fork", "sys_exit_vfork")
_MARKED: Final = "on_call"  # its copies mark a task whose event one of them has taken, and count what the others took over
_COPIED: Final = (_MARKED, "on_mmap")  # the latter does the same again, without harm
_EVENTS: Final = ("on_fork", "on_exec", "on_exit")
HOOKS: Final = (
    Hook("on_fork", bpf.RAW_TRACEPOINT, ("task_newtask",)),
    Hook("on_exec", bpf.RAW_TRACEPOINT, ("sched_process_exec",)),
    Hook("on_exit", bpf.RAW_TRACEPOINT, ("sched_process_exit",)),
    Hook("on_signal", bpf.RAW_TRACEPOINT, ("signal_generate",)),
    Hook("on_free", bpf.RAW_TRACEPOINT, ("sched_process_free",)),
    Hook(GONE, bpf.RAW_TRACEPOINT, ()),
    Hook("on_oom", bpf.RAW_TRACEPOINT, ("mark_victim",), "HAS_MARK_VICTIM"),
    Hook("on_io_uring", bpf.RAW_TRACEPOINT, ("io_uring_complete",), "HAS_IO_URING_WAITID"),
    Hook("on_call", bpf.TRACEPOINT, (*_WAITS, *_FORKS)),
    Hook("on_call", bpf.TRACEPOINT, ("sys_enter_exit_group", "sys_exit_connect"), STACKS),
    Hook("on_mmap", bpf.TRACEPOINT, ("sys_exit_mmap",), STACKS),
)


@dataclass(frozen=True)
class Loaded:
    """Probes that run.

    Attributes:
        descriptors: of maps by their names, and of what keeps programs attached
        maps: by their names, each with as many entries as it has got
        lacks: what this kernel cannot give, in words
    """

    descriptors: Mapping[str, int]
    maps: Mapping[str, MapSpec]
    lacks: tuple[str, ...] = ()


def find_object(facts: Sequence[str], folder: Path | None = None) -> ProbesObject:
    """Return the compiled probes that lie beside the sources, if they were made of these; else as bcc compiles them now."""
    folder = folder or probe_directory()
    found = read_object(folder)
    return found if found and found.digest == digest_of(folder, facts) else compile_probes(facts, folder)


class Loading:
    """Loading in progress: a child process loads and attaches the probes, and ends.

    So the 150 MB of bcc, where it is needed, are freed, and a tracefs that is mounted for the child alone is unmounted.
    """

    def __init__(self, ring_bytes: int = RING_BYTES, *, stacks: bool = True, attach: bool = False, secret: int = 0) -> None:
        self._ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.chdir("/")  # clang asks for the working directory, which may be gone
                _load_and_send(its, partial(load, ring_bytes, stacks=stacks, attach=attach, secret=secret))
            finally:
                os._exit(0)
        its.close()

    def wait(self) -> Loaded:
        """Return the loaded probes.

        Raises:
            MachineLacks: as `Probes`; the full text is in a file.
        """
        message, descriptors, _, _ = socket.recv_fds(self._ours, 1 << 16, _DESCRIPTORS_MOST)
        self._ours.close()
        _, status = os.waitpid(self._pid, 0)
        said = json.loads(message or "{}")
        if "names" not in said:
            reason = said.get("error") or f"what loads them ended with status {os.waitstatus_to_exitcode(status)}"
            kept = f"; the whole of it: {name}" if descriptors and (name := _keep(descriptors[0])) else ""
            raise MachineLacks(f"the probes cannot be loaded: {reason}{kept}", said.get("hint", "forktrace doctor"))
        maps = {name: MapSpec(name, *numbers) for name, *numbers in said["maps"]}
        return Loaded(dict(zip(said["names"], descriptors, strict=True)), maps, tuple(said["lacks"]))


def _keep(log: int) -> str:
    """Write what a descriptor holds to a file of the user's; return its name, nothing where there is no place for it."""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        with tempfile.NamedTemporaryFile(prefix="forktrace-", suffix=".log", delete=False) as kept:
            file.seek(0)
            kept.write(file.read())
        return kept.name
    return ""


def _load_and_send(channel: socket.socket, load_them: Callable[[], Loaded]) -> None:
    try:
        loaded = load_them()
    except ForktraceError as error:
        channel.send(json.dumps({"error": str(error), "hint": error.hint}).encode())
        return
    except Exception as error:
        log = os.memfd_create("log")
        verifier = getattr(error, "log", "")
        os.write(log, f"{traceback.format_exc()}\n{verifier}".encode())
        last = verifier.strip().splitlines()[-2:]
        said = {"error": "; ".join([f"{type(error).__name__}: {error}", *last])}
        if isinstance(error, (OSError, MemoryError)) and (hint := resource_limits.hint(error)):
            said["hint"] = hint
        socket.send_fds(channel, [json.dumps(said).encode()], [log])
        return
    news = {"names": list(loaded.descriptors), "maps": list(loaded.maps.values()), "lacks": loaded.lacks}
    socket.send_fds(channel, [json.dumps(news).encode()], list(loaded.descriptors.values()))


def load(ring_bytes: int, *, stacks: bool = True, attach: bool = False, secret: int = 0) -> Loaded:
    """Load and attach the probes; with `attach` also load the one that passes over all tasks. `secret`: see file_keys.

    Where the kernel's verifier rejects the stack walk, they are loaded without it.

    Raises:
        MachineLacks: this kernel, or this process, cannot.
        bpf.Refused: the verifier does not like them.
    """
    facts = facts_of(Btf(), this_machine())
    probes = find_object(facts.names)
    bpf.unlimit_memory()
    try:
        return _load(probes, facts, {STACKS: int(stacks), FILE_SECRET: secret}, ring_bytes, attach)
    except bpf.Refused as error:
        if not stacks or not error.log:
            raise
        loaded = _load(probes, facts, {STACKS: 0, FILE_SECRET: secret}, ring_bytes, attach)
        return Loaded(loaded.descriptors, loaded.maps, (*loaded.lacks, "Python stacks (the kernel refuses the walk)"))


def _load(probes: ProbesObject, facts: Facts, wanted: Mapping[str, int], ring_bytes: int, attach: bool) -> Loaded:
    values = {**facts.values, **wanted}
    hooks = _used(values)
    names = [*{hook.program for hook in hooks}, *([TASKS] if attach else [])]
    _check(probes, facts, hooks, names)
    made = maps_of(probes.maps, ring_bytes, attach=attach, copies=values[COPIES] > 1)
    with contextlib.ExitStack() as undo:
        maps = {spec.name: _kept(undo, bpf.create_map(spec)) for spec in made}
        longest = sorted(names, key=lambda name: len(probes.functions[name]), reverse=True)
        copies = [(name, copy) for name in longest for copy in range(values[COPIES] if name in _COPIED else 1)]
        linked = [link(probes, name, {**values, COPY: copy}, maps) for name, copy in copies]
        loads = [
            partial(bpf.load_program, one, **_kind(name, values, facts)) for one, (name, _) in zip(linked, copies, strict=True)
        ]
        programs: dict[str, list[int]] = {name: [] for name in names}
        for (name, _), loaded in zip(copies, _at_once(loads), strict=True):
            programs[name].append(_kept(undo, loaded()[0]))
        links = {f"{number} {name}": _kept(undo, one) for number, (name, one) in enumerate(_attached(hooks, programs))}
        counted = {
            f"{PROGRAM}{hook.program} {copy}": one
            for hook in hooks
            for copy, one in enumerate(programs[hook.program][: 1 if hook.program == _MARKED else None])
        }
        kept = maps | links | counted | ({TASKS: programs[TASKS][0]} if attach else {})
        undo.pop_all()
    return Loaded(kept, {spec.name: spec for spec in made}, facts.lacks)


def _at_once(calls: Sequence[Callable[[], _Result]]) -> list[Callable[[], _Result]]:
    """Make these calls, in as many threads as can be started. Returns for each a function that has its result or raises."""
    done: dict[int, Callable[[], _Result]] = {}
    waiting = deque(enumerate(calls))

    def work() -> None:
        while waiting:
            with contextlib.suppress(IndexError):  # another thread has taken the last
                number, call = waiting.popleft()
                future: Future[_Result] = Future()
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)
                done[number] = future.result

    threads = []
    for _ in range(_THREADS - 1):
        with contextlib.suppress(RuntimeError):
            threads.append(Thread(target=work))
            threads[-1].start()
    work()
    for thread in threads:
        if thread.ident:
            thread.join()
    return [done[number] for number in range(len(calls))]


def _hooks(values: Mapping[str, int]) -> list[Hook]:
    """Return all hooks, each of the kind that it has on a kernel with these facts."""
    events = _EVENTS if values[RAW_IS_PREEMPTED] else ()
    return [hook._replace(kind=bpf.TRACEPOINT) if hook.program in events else hook for hook in HOOKS]


def _used(values: Mapping[str, int]) -> list[Hook]:
    """Return those that a kernel with these facts has a use for."""
    return [hook for hook in _hooks(values) if values.get(hook.needs, 1)]


def _kind(program: str, values: Mapping[str, int], facts: Facts) -> dict[str, Any]:
    """Return the arguments of bpf.load_program for a program."""
    if program == TASKS:
        return {"kind": bpf.TRACING, "attach_kind": bpf.TRACE_ITERATOR, "attach_to": facts.task_iterator}
    return {"kind": next(hook.kind for hook in _hooks(values) if hook.program == program)}


def programs_of(facts: Facts) -> dict[str, tuple[str, ...]]:
    """Return the programs to load on a kernel, each with its tracepoints (none: it is run by the recorder)."""
    found: dict[str, tuple[str, ...]] = {}
    for hook in _used({**facts.values, STACKS: 1}):
        found[hook.program] = (*found.get(hook.program, ()), *hook.tracepoints)
    return found | {TASKS: ()}


def verify(probes: ProbesObject, facts: Facts, name: str, **switched: int) -> int:
    """Return how many instructions the verifier looks at in a program. Facts are as `switched` says, else this kernel's.

    Nothing is attached.

    Raises:
        MachineLacks: it needs what this kernel has not.
        bpf.Refused: the verifier does not like it.
    """
    bpf.unlimit_memory()
    values = {**facts.values, STACKS: 1, FILE_SECRET: 0, COPY: 0, **switched}
    with contextlib.ExitStack() as undo:
        few = [spec._replace(entries=min(spec.entries, LEAST_PROCESSES)) for spec in probes.maps]
        maps = {spec.name: _kept(undo, bpf.create_map(spec)) for spec in few}
        program, said = bpf.load_program(link(probes, name, values, maps), statistics=True, **_kind(name, values, facts))
        os.close(program)
        return _instructions(said)


def _instructions(statistics: str) -> int:
    """Return how many instructions the verifier processed, by its log; Linux 7.2 says it per function: `169+952`."""
    return sum(map(int, statistics.partition("processed ")[2].split()[0].split("+")))


def _kept(undo: contextlib.ExitStack, descriptor: int) -> int:
    undo.callback(os.close, descriptor)
    return descriptor


def _check(probes: ProbesObject, facts: Facts, hooks: Sequence[Hook], programs: Sequence[str]) -> None:
    """Make sure that this kernel has what the programs need.

    Raises:
        MachineLacks: it has not; says what, and which program needs it.
    """
    for hook in hooks:
        for tracepoint in hook.tracepoints:
            if reason := facts.tracepoints.get(tracepoint):
                _refuse(hook.program, reason)
    for program in programs:
        for reason in missing_facts(probes, program, facts).values():
            _refuse(program, reason)
    if TASKS in programs and not facts.task_iterator:
        _refuse(TASKS, "there is no iterator over tasks")


def _refuse(program: str, reason: str) -> None:
    raise MachineLacks(
        f"this kernel is not one forktrace knows: {reason}, which {program} needs",
        "please report it with the output of uname -r",
    )


def maps_of(maps: Sequence[MapSpec], ring_bytes: int, *, attach: bool, copies: bool) -> list[MapSpec]:
    """Return the maps with their numbers of entries: of processes as many as the machine allows, limited by its memory."""
    most = _most_processes()
    sizes = {"followed": most, "numbers": 2 * most, "ring": ring_bytes, "questions": QUESTION_BYTES, "mapped": most}
    sizes |= ({} if attach else {"mapped": 1, "wanted": 1}) | ({} if copies else {"reported_tasks": 1})
    flags = dict.fromkeys(COUNTERS, bpf.MAPPED)
    return [spec._replace(entries=sizes.get(spec.name, spec.entries), flags=flags.get(spec.name, spec.flags)) for spec in maps]


def _most_processes() -> int:
    threads = int(Path("/proc/sys/kernel/threads-max").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(LEAST_PROCESSES, min(MOST_PROCESSES, threads, memory // _SHARE_OF_MEMORY // _BYTES_A_PROCESS))


def _attached(hooks: Sequence[Hook], programs: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, int]]:
    """Attach the programs, copies in their order; yield the name of each tracepoint with what keeps the program there."""
    if any(hook.kind == bpf.TRACEPOINT for hook in hooks):
        mount_tracefs()
    processor = min(os.sched_getaffinity(0))
    for hook in hooks:
        for tracepoint in hook.tracepoints:
            if hook.kind == bpf.RAW_TRACEPOINT:
                yield tracepoint, bpf.attach_raw_tracepoint(programs[hook.program][0], tracepoint)
            elif number := tracepoint_number(tracepoint):
                yield from ((tracepoint, _attach_tracepoint(one, number, processor)) for one in programs[hook.program])
            elif tracepoint not in _FORKS:
                _refuse(hook.program, f"tracepoint {tracepoint} is missing")


def _attach_tracepoint(program: int, number: int, processor: int) -> int:
    try:
        return bpf.attach_tracepoint(program, number, processor)
    except PermissionError as error:
        level = Path("/proc/sys/kernel/perf_event_paranoid").read_text().strip()
        raise MachineLacks(
            "perf_event_open(2) is refused",
            f"with kernel.perf_event_paranoid={level} it takes CAP_SYS_ADMIN; or sysctl kernel.perf_event_paranoid=2",
        ) from error
