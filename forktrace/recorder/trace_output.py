"""Writes the trace: counts what it holds, knows up to which moment it is whole, and checks that its file is still there.

In a rotation it is several files, one after the other. The launcher opens them and hands them over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from io import FileIO, RawIOBase
from typing import Any, Final

from pyarrow import RecordBatch

from forktrace.errors import ForktraceError, UsageError
from forktrace.recorder.protocol.channel import Message
from forktrace.recorder.protocol.orders import Next, Order, decoded
from forktrace.system.procfs import clock_offset_ns
from forktrace.trace import events
from forktrace.trace.batches import Column, batch, batch_of, part
from forktrace.trace.carried import Carried
from forktrace.trace.stream import Full, Writer

_LOOK_EVERY_MS: Final = 20


class PatientSink(RawIOBase):
    """Writes to a pipe, a terminal or a device whose reader may stall, and gives up when `goes_on(since)` says so.

    `since` is when the reader last took something (time.monotonic). The descriptor stays blocking, as other processes share it:
    where poll(2) reports room, PIPE_BUF bytes are taken without waiting.
    """

    def __init__(self, descriptor: int, goes_on: Callable[[float], bool]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._goes_on = goes_on

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Write some of it, at least a byte.

        Raises:
            OSError: nobody takes it, any more or in time.
        """
        since, poll = time.monotonic(), select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while not poll.poll(_LOOK_EVERY_MS):
            if not self._goes_on(since):
                raise OSError(errno.ETIMEDOUT, "its reader does not read")
        return os.write(self._descriptor, memoryview(data)[: select.PIPE_BUF])


class TraceOutput:
    """Writes to `sink` as the `order` says; `counts` gets how many events of which kind were written.

    `is_file`: `sink` is a file that is there for the trace, and should not vanish. `carried` gets what is written, for the
    next file of a rotation to repeat.

    Attributes:
        path: what it is called
        counts, is_file: those
        until_ns: all that was before is written (CLOCK_BOOTTIME)

    Raises:
        Full: the trace would exceed the size that the order allows. Only `close` may follow.
    """

    def __init__(
        self, sink: RawIOBase, order: Order, counts: Counter[str], carried: Carried | None = None, *, is_file: bool
    ) -> None:
        self._writer = Writer(sink, order.header, order.max_size)
        self._sink = sink.fileno() if is_file else None
        self._had_name = os.fstat(sink.fileno()).st_nlink > 0
        self.path, self.is_file = order.path, is_file
        self._carried = carried
        self.counts = counts
        self.until_ns: int = order.header["start_ns"]

    def write(self, rows: Iterable[events.Row]) -> None:
        """Write a batch of rows that are no events of the kernel's, if there are any."""
        if rows := list(rows):
            self._write(batch_of(rows))

    def write_events(self, columns: Mapping[str, Column], rows: int) -> None:
        """Write a batch, sorted by time; as many rows as fit where the trace gets full."""
        done, size = 0, rows
        while done < rows:
            some = part(columns, done, min(done + size, rows))
            times, kinds = some["time_ns"][0], some["kind"][0]
            try:
                self._write(batch(some, len(times)))
            except Full:
                size //= 2
                if not size:
                    raise
                continue
            done += len(times)
            self.until_ns = max(self.until_ns, int(times[-1]))
            self.counts.update(events.KINDS[code] for code in kinds.tolist())

    def _write(self, batch: RecordBatch) -> None:
        self._writer.write(batch)
        if self._carried is not None:
            self._carried.add(batch)

    def repeat(self) -> None:
        """Write what the files before know of the processes that live on."""
        if self._carried is not None:
            for part in self._carried.parts():
                self._writer.write(part)

    def check(self) -> None:
        """Make sure that what is written can be found.

        Raises:
            ForktraceError: the file was removed or cut. One that never had a name may stay without.
        """
        if self._sink is None:
            return
        about = os.fstat(self._sink)
        if self._had_name and not about.st_nlink:
            raise ForktraceError(f"{self.path} was removed while it was written", "what was recorded is lost")
        if about.st_size < self._writer.bytes_written:
            raise ForktraceError(f"{self.path} was cut by somebody else while it was written", "record once more")

    def close(self, totals: Mapping[str, Any]) -> None:
        """Write the end: the trace is whole up to `until_ns`."""
        self._writer.close(batch_of([events.end(self.until_ns, json.dumps(totals))]))


def is_regular(trace: int) -> bool:
    """Return whether the trace, a descriptor, is a regular file.

    Raises:
        UsageError: it is a socket that need not be connected to one end: whoever it is sent to then would see who sends.
    """
    mode = os.fstat(trace).st_mode
    if stat.S_ISSOCK(mode):
        with socket.socket(fileno=os.dup(trace)) as end:
            if end.type != socket.SOCK_STREAM:
                raise UsageError("the trace is a socket without a connection", "name a file with -o")
    return stat.S_ISREG(mode)


def empty(trace: int, order: Order) -> None:
    """Make the trace, a descriptor, empty if it is a file that is there for it.

    Raises:
        UsageError: as `is_regular`.
    """
    if is_regular(trace) and order.path != "-" and os.fstat(trace).st_size:
        os.ftruncate(trace, 0)


def single_output(trace: int, order: Order, goes_on: Callable[[float], bool], files: ExitStack) -> TraceOutput:
    """Return what writes to the trace, a descriptor that is closed with `files`; `goes_on` as for PatientSink."""
    file = files.enter_context(FileIO(trace, "wb"))
    is_patient = not is_regular(trace)
    is_file = order.path != "-" and not is_patient
    return TraceOutput(PatientSink(trace, goes_on) if is_patient else file, order, Counter(), is_file=is_file)


class RotationOutput:
    """The files of a rotation as the recorder writes them, one after the other; `trace` is the first, a descriptor.

    Attributes:
        next: the file that was handed over: its path, and a descriptor; None: there is none
        output: writes to the newest file
        carried: what the next file repeats

    Raises:
        UsageError: a file is no regular file, whose reader would have to be waited for.
    """

    def __init__(self, order: Order, counts: Counter[str], trace: int) -> None:
        start_ns = order.header["start_ns"]
        self._order = replace(order, header=order.header | {"rotation": start_ns, "file": order.file}, max_size=None)
        self._counts = counts
        self._has_asked = False
        self.carried = Carried()
        self.next: tuple[str, int] | None = None
        self._file, self.output = self._begun(trace)

    def _begun(self, descriptor: int) -> tuple[FileIO, TraceOutput]:
        """Begin a file of the rotation."""
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{self._order.path} is no regular file", "a rotation writes files")
        file = FileIO(descriptor, "wb")
        return file, TraceOutput(file, self._order, self._counts, self.carried, is_file=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def offer(self, message: Message, descriptors: list[int]) -> list[int]:
        """Take the next file, unless there is one already; return the descriptors that are not needed."""
        if self.next or len(descriptors) != 1:
            return descriptors
        said: dict[str, Any] = {key: value for key, value in message.items() if key != "say"}
        self.next = decoded(Next, said).path, descriptors[0]
        return []

    def asks_once(self) -> bool:
        """Return whether the next file is to be asked for, which it is once a file."""
        asks, self._has_asked = not self._has_asked, True
        return asks

    def check_next(self) -> None:
        """Make sure that the next file is one, and nobody's but this recording's; else it is closed and forgotten.

        Raises:
            UsageError: it is no regular file, not empty, or cannot be written to.
        """
        path, descriptor = self.next or ("", -1)
        about = os.fstat(descriptor)
        wrong = {
            "is no regular file": not stat.S_ISREG(about.st_mode),
            "is not empty": about.st_size > 0,
            "is not open for writing": fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY,
        }
        for what, so in wrong.items():
            if so:
                self.next = None
                os.close(descriptor)
                raise UsageError(f"{path} {what}")

    def go_on(self, start_ns: int) -> TraceOutput:
        """Close the file, and return what writes to the next one, which begins at a moment (CLOCK_BOOTTIME)."""
        path, descriptor = self.next or ("", -1)
        self.next, self._has_asked = None, False
        header = self._order.header
        header = header | {"start_ns": start_ns, "clock_offset_ns": clock_offset_ns(), "file": header["file"] + 1}
        self._order = replace(self._order, path=path, header=header)
        self.close()
        self._file, self.output = self._begun(descriptor)
        return self.output
