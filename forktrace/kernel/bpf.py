"""bpf(2) and perf_event_open(2): loads and attaches programs, makes maps.

Layouts: the kernel's include/uapi/linux/bpf.h, perf_event.h and btf.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from forktrace.kernel.linking import Program
from forktrace.kernel.objects import INSTRUCTION, MapSpec
from forktrace.system.machine import this_machine

_MAP_CREATE, _PROG_LOAD, _PROG_TEST_RUN, _RAW_TRACEPOINT_OPEN, _BTF_LOAD = 0, 5, 10, 17, 18  # enum bpf_cmd
TRACEPOINT, RAW_TRACEPOINT, TRACING = 5, 17, 26  # enum bpf_prog_type
MAPPED: Final = 1 << 10  # BPF_F_MMAPABLE: of an array that may be read through its memory
TRACE_ITERATOR: Final = 28  # enum bpf_attach_type
_LOG_WHOLE, _LOG_STATISTICS = 1, 4
_LOG_BYTES: Final = 16 << 20
_NAME_BYTES: Final = 15
_ATTRIBUTE_BYTES: Final = 120  # the size of union bpf_attr in the oldest kernel
_PERF_TYPE_TRACEPOINT, _PERF_ATTRIBUTE_BYTES, _PERF_FLAG_FD_CLOEXEC = 2, 112, 8
_PERF_SET_BPF, _PERF_ENABLE = 0x40042408, 0x2400
_IO_URING_SETUP, _IO_URING_REGISTER, _REGISTER_FILES, _URING_PARAMETERS_BYTES = 425, 427, 2, 120  # on every processor
# Kinds of BTF, as `kind << 24`. The `vlen` of a function says whether it is global: then it is verified separately.
_INT, _FUNC, _FUNC_PROTO = 1 << 24, 12 << 24, 13 << 24
_STATIC, _GLOBAL = 0, 1

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(OSError):
    """The kernel does not load a program; `log` is the verifier's, and may be empty."""

    def __init__(self, number: int, log: str) -> None:
        super().__init__(number, os.strerror(number))
        self.log = log


def call(command: int, attributes: bytearray) -> int:
    """Call bpf(2) and return its result; the kernel writes its answer into `attributes`.

    Raises:
        OSError: the kernel refuses.
    """
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    result = int(_libc.syscall(this_machine().calls["BPF"], command, ctypes.byref(buffer), len(attributes)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def create_map(spec: MapSpec) -> int:
    """Return the descriptor of a new map."""
    name = spec.name.encode()[:_NAME_BYTES]
    sizes = (spec.kind, spec.key_bytes, spec.value_bytes, spec.entries, spec.flags, 0, 0)
    return call(_MAP_CREATE, _padded(struct.pack("<7I16s", *sizes, name)))


def unlimit_memory() -> None:
    """Before 5.11 the memory of maps counts against RLIMIT_MEMLOCK, whose default is too small."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))


def load_program(
    program: Program, kind: int, *, attach_kind: int = 0, attach_to: int = 0, statistics: bool = False
) -> tuple[int, str]:
    """Return the descriptor of a program that the kernel has verified, and with `statistics` the verifier's statistics.

    All functions of the program but the first are global: they are verified once, not at each call. That takes BTF, and the
    minimum of it is made here.

    Raises:
        Refused: the verifier rejects it, or this process may not.
    """
    btf = _load_btf(program.functions)
    try:
        try:
            return _load(program, kind, attach_kind, attach_to, btf, _LOG_STATISTICS if statistics else 0)
        except Refused as error:
            if error.errno in (errno.EPERM, errno.ENOMEM) or statistics:
                raise
        return _load(program, kind, attach_kind, attach_to, btf, _LOG_WHOLE)
    finally:
        os.close(btf)


def _load(program: Program, kind: int, attach_kind: int, attach_to: int, btf: int, level: int) -> tuple[int, str]:
    licence, name = ctypes.create_string_buffer(b"GPL"), next(iter(program.functions)).encode()[:_NAME_BYTES]
    code = ctypes.create_string_buffer(program.code, len(program.code))
    places = b"".join(struct.pack("<II", begin, 3 + number) for number, begin in enumerate(program.functions.values()))
    functions = ctypes.create_string_buffer(places, len(places))
    log = mmap.mmap(-1, _LOG_BYTES) if level else None
    view = (ctypes.c_char * _LOG_BYTES).from_buffer(log) if log else None
    attributes = _padded(
        struct.pack(
            "<IIQQIIQII16sIIIIQIIQII",
            *(kind, len(program.code) // INSTRUCTION.itemsize, ctypes.addressof(code), ctypes.addressof(licence)),
            *(level, _LOG_BYTES if level else 0, ctypes.addressof(view) if view else 0, 0, 0, name, 0, attach_kind, btf),
            *(8, ctypes.addressof(functions), len(program.functions), 0, 0, 0, attach_to),
        )
    )
    try:
        return call(_PROG_LOAD, attributes), _text(log)
    except OSError as error:
        raise Refused(error.errno or 0, _text(log)) from error
    finally:
        del view


def _text(log: mmap.mmap | None) -> str:
    return log[: log.find(b"\0")].decode(errors="replace") if log else ""


def _load_btf(functions: Mapping[str, int]) -> int:
    """Return the descriptor of types that describe `u64 NAME(u64 number)` for each function, the types 3 and following."""
    strings = b"\0u64\0number\0"
    types = struct.pack("<IIII", 1, _INT, 8, 64) + struct.pack("<IIIII", 0, _FUNC_PROTO | 1, 1, 5, 1)
    for number, name in enumerate(functions):
        types += struct.pack("<III", len(strings), _FUNC | (_GLOBAL if number else _STATIC), 2)
        strings += name.encode() + b"\0"
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    data = ctypes.create_string_buffer(header + types + strings, 24 + len(types) + len(strings))
    return call(_BTF_LOAD, _padded(struct.pack("<QQIII", ctypes.addressof(data), 0, len(data), 0, 0), 32))


def attach_raw_tracepoint(program: int, tracepoint: str) -> int:
    """Return a descriptor: as long as it is open, `program` runs at the raw tracepoint."""
    name = ctypes.create_string_buffer(tracepoint.encode())
    return call(_RAW_TRACEPOINT_OPEN, _padded(struct.pack("<QI", ctypes.addressof(name), program), 16))


def attach_tracepoint(program: int, number: int, processor: int) -> int:
    """Return a descriptor: as long as it is open, `program` runs at the tracepoint with that number, on all processors."""
    attributes = bytearray(struct.pack("<IIQQQQ", _PERF_TYPE_TRACEPOINT, _PERF_ATTRIBUTE_BYTES, number, 1, 0, 0))
    buffer = (ctypes.c_char * _PERF_ATTRIBUTE_BYTES).from_buffer(attributes.ljust(_PERF_ATTRIBUTE_BYTES, b"\0"))
    numbers = (-1, processor, -1, _PERF_FLAG_FD_CLOEXEC)
    event = int(_libc.syscall(this_machine().calls["PERF_EVENT_OPEN"], ctypes.byref(buffer), *numbers))
    if event < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    try:
        fcntl.ioctl(event, _PERF_SET_BPF, program)
        fcntl.ioctl(event, _PERF_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return event


def run_raw_tracepoint(program: int, argument: int) -> None:
    """Run a program of a raw tracepoint once, here and now, as if its tracepoint had this argument (since Linux 5.10)."""
    arguments = ctypes.c_uint64(argument)
    call(_PROG_TEST_RUN, _padded(struct.pack("<I36xI4xQ", program, ctypes.sizeof(arguments), ctypes.addressof(arguments))))


def times_not_run(program: int) -> int:
    """Return how often the kernel skipped a program because it was running on that processor already, for a preempted task.

    That happens where tracepoints are preemptible (since about Linux 7.0). It is `recursion_misses`, since 5.12. Before 5.14
    who has given up root's rights may not read it.
    """
    try:
        text = Path(f"/proc/self/fdinfo/{program}").read_text()
    except PermissionError:
        return 0
    _, found, rest = text.partition("recursion_misses:")
    return int(rest.split(None, 1)[0]) if found else 0


def close_after_end(descriptors: Sequence[int]) -> None:
    """Let a kernel thread close these after the end of this process, so that nobody waits for it.

    Closing the last descriptor of a tracepoint waits until every processor has left the probes, some 60 ms each. An io_uring
    can hold files (io_uring_register(2)), and closes them in the background (kernel: io_uring/io_uring.c, io_ring_exit_work).
    Where io_uring is not allowed, as in many containers, the end of this process closes them and waits.
    """
    parameters = (ctypes.c_char * _URING_PARAMETERS_BYTES)()
    ring = int(_libc.syscall(_IO_URING_SETUP, 1, ctypes.byref(parameters)))
    if ring >= 0:
        files = (ctypes.c_int * len(descriptors))(*descriptors)
        _libc.syscall(_IO_URING_REGISTER, ring, _REGISTER_FILES, ctypes.byref(files), len(descriptors))


def _padded(attributes: bytes, length: int = _ATTRIBUTE_BYTES) -> bytearray:
    return bytearray(attributes.ljust(length, b"\0"))
