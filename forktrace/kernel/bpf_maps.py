"""Reads and writes BPF maps and the ring buffer by system calls, so that the recorder needs no bcc and LLVM in memory."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forktrace.errors import ForktraceError
from forktrace.kernel.bpf import TRACE_ITERATOR, call
from forktrace.kernel.objects import MapSpec

Records = npt.NDArray[np.void]

LONGEST: Final = 32 << 10  # bytes of a record at most
HEADER_BYTES: Final = 8  # before each record in the ring
BUSY: Final = 1 << 31
DISCARDED: Final = 1 << 30

_BUSY_S: Final = 1.0
_PRIORITY: Final = 1  # the lowest of real time: above all ordinary threads

# enum bpf_cmd; batches since Linux 5.6, iterators since 5.8
_UPDATE, _DELETE, _LOOKUP_BATCH, _LINK_CREATE, _ITER_CREATE = 2, 3, 24, 28, 33


class Map:
    """A hash or an array in the kernel, by its descriptor; keys and values are numpy records as in the probes.

    Raises:
        ForktraceError: the map was made with other sizes.
    """

    def __init__(self, descriptor: int, key: npt.DTypeLike, value: npt.DTypeLike, made: MapSpec) -> None:
        self._descriptor = descriptor
        self._keys = np.zeros(made.entries, key)
        self._values = np.zeros(made.entries, value)
        if (self._keys.itemsize, self._values.itemsize) != (made.key_bytes, made.value_bytes):
            raise ForktraceError(f"the compiled probes are of other sources: map {made.name}", "make object")

    @property
    def value_type(self) -> np.dtype[Any]:
        """The numpy type of its values."""
        return self._values.dtype

    def items(self) -> tuple[Records, Records]:
        """Return all keys and their values, as copies.

        Raises:
            ForktraceError: the kernel refuses.
        """
        position = ctypes.create_string_buffer(8)
        attributes = bytearray(56)
        keys, values = self._keys.ctypes.data, self._values.ctypes.data
        size, place = len(self._keys), ctypes.addressof(position)
        struct.pack_into("<QQQQIIQQ", attributes, 0, 0, place, keys, values, size, self._descriptor, 0, 0)
        try:
            attributes = _patiently(_LOOKUP_BATCH, attributes)
        except OSError as error:
            raise ForktraceError(f"a BPF map cannot be read: {error.strerror}") from error
        (found,) = struct.unpack_from("<I", attributes, 32)
        return self._keys[:found].copy(), self._values[:found].copy()

    def set(self, key: Any, value: Any) -> None:
        """Set one entry."""
        made = np.array(value, self._values.dtype)
        self._element(_UPDATE, key, made.ctypes.data)

    def delete(self, key: Any) -> None:
        """Remove one entry, if it is there."""
        self._element(_DELETE, key, 0)

    def _element(self, command: int, key: Any, value_address: int) -> None:
        wanted = np.array(key, self._keys.dtype)
        attributes = bytearray(struct.pack("<IIQQQ", self._descriptor, 0, wanted.ctypes.data, value_address, 0))
        try:
            _patiently(command, attributes)
        except OSError as error:
            raise ForktraceError(f"a BPF map cannot be written: {error.strerror}") from error


def _patiently(command: int, attributes: bytearray) -> bytearray:
    """Call bpf(2), and again while it fails with EBUSY: a probe interrupted another one in the same bucket of the hash.

    See `htab_lock_bucket` in the kernel's kernel/bpf/hashtab.c. Returns the attributes that the kernel has written.

    Raises:
        OSError: it fails, or stays busy for a second.
    """
    deadline = time.monotonic() + _BUSY_S
    while True:
        made = bytearray(attributes)
        try:
            with _before_others():
                call(command, made)
            return made
        except OSError as error:
            if error.errno == errno.ENOENT:  # no more entries, or no such entry
                return made
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise


@contextlib.contextmanager
def _before_others() -> Iterator[None]:
    """Let no ordinary thread preempt this one, as far as it may ask for that (RLIMIT_RTPRIO).

    While bpf(2) works on a map, the kernel runs no program of a trace event on that processor, also not for who preempts it.
    """
    changed = False
    with contextlib.suppress(OSError):
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
            changed = True
    try:
        yield
    finally:
        if changed:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Counters:
    """An array of numbers that the probes add to, read through its memory.

    Not by bpf(2): while that reads a map, which may be preempted, the kernel runs no program of a trace event on its processor.
    """

    def __init__(self, descriptor: int, made: MapSpec) -> None:
        self._entries = made.entries
        bytes_ = -(-8 * made.entries // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(descriptor, bytes_, mmap.MAP_SHARED, mmap.PROT_READ)

    def read(self) -> list[int]:
        """Return the numbers."""
        numbers: list[int] = np.frombuffer(self._memory, "<u8", self._entries).tolist()
        return numbers

    def close(self) -> None:
        """Unmap."""
        self._memory.close()


class TaskIterator:
    """A BPF program that the kernel calls for every task of this PID namespace (kernel: Documentation/bpf/bpf_iterators.rst).

    Raises:
        ForktraceError: the kernel refuses.
    """

    def __init__(self, program: int) -> None:
        self._link = self._made(_LINK_CREATE, struct.pack("<IIII", program, 0, TRACE_ITERATOR, 0))

    def run(self) -> None:
        """Call the program for each task."""
        with open(self._made(_ITER_CREATE, struct.pack("<II", self._link, 0)), "rb", buffering=0) as file:
            file.readall()

    def close(self) -> None:
        """Close it."""
        os.close(self._link)

    def _made(self, command: int, attributes: bytes) -> int:
        try:
            return call(command, bytearray(attributes.ljust(56, b"\0")))
        except OSError as error:
            raise ForktraceError(f"the tasks of this machine cannot be iterated: {error.strerror}") from error


class Ring:
    """Reads a BPF ring buffer in bulk, through its memory (kernel: Documentation/bpf/ringbuf.rst).

    The kernel maps the data twice in a row, so that a record that wraps around can be read in one piece. For that the first
    LONGEST bytes of the second mapping are enough.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self._size = size
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(descriptor, page + size + min(size, LONGEST), mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        # As one machine word. struct's standard sizes write byte by byte: the kernel would sometimes see half of a change, and
        # take the ring for full.
        self._consumed = memoryview(self._consumer)[:8].cast("Q")
        self._produced = memoryview(self._producer)[:8].cast("Q")
        self._data = memoryview(self._producer)[page:]

    def read(self) -> bytes:
        """Return all finished records, each with its header, and free their space."""
        chunk = self._read()
        return chunk + self._read() if chunk else chunk

    def _read(self) -> bytes:
        """Do so up to the end of the memory, where the ring wraps around."""
        start, end = self._consumed[0], self._produced[0]
        if start == end:
            return b""
        first = start % self._size
        whole = self._finished(first, end - start)
        chunk = bytes(self._data[first : first + whole])
        self._consumed[0] = start + whole
        return chunk

    def _finished(self, first: int, available: int) -> int:
        """Return how many bytes from `first` on are finished records: up to the first unfinished one, at most one lap."""
        lengths = self._data.cast("I")
        at, end = first // 4, min(first + available, self._size) // 4
        while at < end:
            length = lengths[at]
            if length & BUSY:
                break
            at += record_words(length)
        lengths.release()
        return at * 4 - first

    def close(self) -> None:
        """Unmap."""
        for view in (self._data, self._produced, self._consumed):
            view.release()
        self._producer.close()
        self._consumer.close()


def record_words(length: int) -> int:
    """Return how many 4-byte words a record takes in the ring: an 8-byte header, the data, padding to 8 bytes."""
    return ((length & ~DISCARDED) + 15) // 8 * 2
