"""The trace as the recorder writes it: up to which moment it is whole, what it holds, and that somebody will find it."""

from __future__ import annotations

import errno
import json
import os
import select
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from io import RawIOBase
from typing import Any, Final

from forktrace.errors import ForktraceError
from forktrace.recorder.orders import Order
from forktrace.trace import events
from forktrace.trace.batches import Column, batch, batch_of, part
from forktrace.trace.stream import Full, Writer

_LOOK_EVERY_MS: Final = 20


class PatientSink(RawIOBase):
    """Writes to a pipe, a terminal or a device whose reader may stall, and gives up when `goes_on(since)` says so.

    `since` is when it last took something (time.monotonic). The descriptor's flags are left alone, as others have it too: what
    poll(2) says has room takes PIPE_BUF bytes without waiting.
    """

    def __init__(self, descriptor: int, goes_on: Callable[[float], bool]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._goes_on = goes_on

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def writable(self) -> bool:
        """It is."""
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

    `is_file`: `sink` is a file that is there for the trace, and should not vanish.

    Attributes:
        until_ns: all that was before is written (CLOCK_BOOTTIME)

    Raises:
        Full: the trace would exceed the size that the order allows. Only `close` may follow.
    """

    def __init__(self, sink: RawIOBase, order: Order, counts: Counter[str], *, is_file: bool) -> None:
        self._writer = Writer(sink, order.header, order.max_size)
        self._sink = sink.fileno() if is_file else None
        self._had_name = os.fstat(sink.fileno()).st_nlink > 0
        self._path = order.path
        self._counts = counts
        self.until_ns: int = order.header["start_ns"]

    def write(self, rows: Iterable[events.Row]) -> None:
        """Write a batch of rows that are no events of the kernel's, if there are any."""
        if rows := list(rows):
            self._writer.write(batch_of(rows))

    def write_events(self, columns: Mapping[str, Column], rows: int) -> None:
        """Write a batch, sorted by time; as many rows as fit where the trace gets full."""
        done, size = 0, rows
        while done < rows:
            some = part(columns, done, min(done + size, rows))
            times, kinds = some["time_ns"][0], some["kind"][0]
            try:
                self._writer.write(batch(some, len(times)))
            except Full:
                size //= 2
                if not size:
                    raise
                continue
            done += len(times)
            self.until_ns = max(self.until_ns, int(times[-1]))
            self._counts.update(events.KINDS[code] for code in kinds.tolist())

    def check(self) -> None:
        """Make sure that what is written can be found.

        Raises:
            ForktraceError: the file was removed or cut. One that never had a name may stay without.
        """
        if self._sink is None:
            return
        about = os.fstat(self._sink)
        if self._had_name and not about.st_nlink:
            raise ForktraceError(f"{self._path} was removed while it was written", "what was recorded is lost")
        if about.st_size < self._writer.bytes_written:
            raise ForktraceError(f"{self._path} was cut by somebody else while it was written", "record once more")

    def close(self, totals: Mapping[str, Any]) -> None:
        """Write the end: the trace is whole up to `until_ns`."""
        self._writer.close(batch_of([events.end(self.until_ns, json.dumps(totals))]))
        self.check()
