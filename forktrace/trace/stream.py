"""The trace file: an Arrow IPC stream, zstd-compressed, whose schema metadata holds the header as JSON.

An empty batch comes first, so that even a recording that is killed at once can be read. Each batch carries the CRC-32 of its
columns. Batches of a few rows are written as they are: zstd would make them larger, and ten times slower to read. Nothing
here imports pandas, since `record` runs this code.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa

from forktrace.errors import ForktraceError, NoFile, PermissionMissing, TraceError
from forktrace.trace.batches import (
    ARROW_ERRORS,
    SCHEMA,
    Column,
    Validity,
    batch,
    batch_of,
    by_time,
    carried_over,
    checksum,
    integers,
    merged,
    upgraded,
)
from forktrace.trace.checks import FORMAT, fault_of, header_of
from forktrace.trace.events import KINDS
from forktrace.trace.files import replaced
from forktrace.trace.reading import small_batches
from forktrace.trace.reading.ipc_messages import BATCH, FREE_BYTES, MAX_RATIO, Layout, first_message, scan
from forktrace.trace.words import printable

__all__ = ["FORMAT", "SCHEMA", "Column", "Full", "Trace", "Writer", "batch", "batch_of", "merge", "read"]

END_BYTES: Final = 8192  # of a trace whose size is limited, kept for the totals
_FEW_ROWS: Final = 12  # below, a batch is smaller without zstd
_CHECKSUM: Final = b"crc32"
_MANY_BYTES: Final = 1 << 24
# Levels of zstd: while it is recorded; of what is written once and kept; of a little of that.
_FAST, _SMALL, _SMALLEST = 1, 9, 15
_LITTLE: Final = 1 << 16  # rows, of which the last takes 0.15 s, some three times as long as the one before
MANY_BATCHES: Final = 1000


@dataclass(frozen=True)
class Trace:
    """A trace in memory: `table` has the columns of `SCHEMA`, sorted by `time_ns`; equal times keep the file's order."""

    path: str
    header: dict[str, Any]
    table: pa.Table
    cut: str | None  # why the file was cut off or not closed; None: it is whole
    carried: Validity  # the rows that are repeated from earlier files of a rotation


class Full(Exception):
    """A batch would make the trace larger than it may become; nothing of it was written."""


class Writer:
    """Writes a trace to `sink`, beginning with its header and an empty batch; every write reaches the operating system.

    It never becomes larger than `most` bytes, the last batch and the end mark included.

    Raises:
        Full: the batch does not fit. A smaller one may, and there is room for `close`.
        ForktraceError: the sink takes no more (disk full, reader gone). What was written before stays readable, since
            nothing is written after that: every further `write` raises again, and `close` does nothing.
    """

    def __init__(
        self, sink: BinaryIO | io.RawIOBase, header: Mapping[str, Any], most: int | None = None, level: int = _FAST
    ) -> None:
        self.rows = 0
        self.batches = 0
        self.bytes_written = 0
        self._room = math.inf if most is None else most - END_BYTES
        self._declared = 0  # bytes, uncompressed
        self._sink = sink
        self._failure: ForktraceError | None = None
        self._buffer = io.BytesIO()
        schema = SCHEMA.with_metadata({b"forktrace": json.dumps({**header, "format": FORMAT}).encode()})
        self._empty = batch({}, 0)  # the dictionaries of the last batch
        self._packing = self._last = self._stream(schema, pa.Codec("zstd", compression_level=level))
        self._packing.write_batch(self._empty)
        self._take()  # dropped: the reader gets schema and first batch from the other stream
        self._plain = self._last = self._stream(schema, None)
        self.write(self._empty)

    def _stream(self, schema: pa.Schema, compression: pa.Codec | None) -> Any:
        options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
        return pa.ipc.new_stream(self._buffer, schema, options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one batch made by `batch` or `batch_of`."""
        self._declared += batch.get_total_buffer_size()
        grows = self._declared > (FREE_BYTES + MAX_RATIO * self.bytes_written) // 2  # else the reader would refuse so much
        stream = self._plain if batch.num_rows < _FEW_ROWS or grows else self._packing
        if stream is not self._last:  # so that it knows which dictionaries the reader has by now
            stream.write_batch(self._empty)
            self._take()
        self._last = stream
        stream.write_batch(batch, custom_metadata={_CHECKSUM: b"%08x" % checksum(batch)})
        data = self._take()
        if self.bytes_written + len(data) > self._room:
            stream.write_batch(self._empty)  # the reader still has those of the batch before
            self._take()
            raise Full
        self._empty = batch.slice(0, 0)
        self._hand_over(data)
        self.rows += batch.num_rows
        self.batches += 1

    def close(self, totals: pa.RecordBatch | None = None) -> None:
        """Write the last batch, which has one row and fits into END_BYTES, and the end mark; the sink stays open."""
        if self._failure:
            return
        if totals is not None:
            self._room = math.inf
            self.write(totals)
        self._plain.close()
        self._hand_over(self._take())

    def _take(self) -> bytes:
        data = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return data

    def _hand_over(self, data: bytes) -> None:
        if self._failure:
            raise self._failure
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._sink.write(rest) or 0 :]
            self._sink.flush()
        except OSError as error:
            message = f"cannot write the trace: {error.strerror or error}"
            self._failure = ForktraceError(message, "what was written before can be read")
            raise self._failure from error
        self.bytes_written += len(data)


def read(path: str | os.PathLike[str]) -> Trace:
    """Return the trace in the file `path`; one that is cut off up to its last whole batch, with the reason in `cut`.

    Raises:
        TraceError: empty, damaged, not a trace, or from a newer forktrace; the message names the file and the place.
        PermissionMissing, ForktraceError: the file cannot be read.
    """
    name = os.fspath(path)
    data = _read_bytes(name)
    layout = scan(io.BytesIO(data), len(data), name)
    header, stream = open_stream(pa.BufferReader(data), name)
    form = header["format"]
    table, carried = carried_over(by_time(_fast(data, layout, name) or checked(stream, layout, name, form), layout.rows))
    if fault_of(table):
        _raise_at_fault(data, layout, name)
    pa.default_memory_pool().release_unused()  # the batches, half of what is held by now
    return Trace(name, printable_header(header), table, layout.cut or _not_closed(table), carried)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the header of the trace file `path`, and read no more of it.

    Raises:
        TraceError, PermissionMissing, ForktraceError: as `read`.
    """
    name = os.fspath(path)
    with _opened(name) as file:
        start = first_message(file, os.fstat(file.fileno()).st_size, name)
    return printable_header(open_stream(pa.BufferReader(start), name)[0])


def _read_bytes(path: str) -> bytes:
    with _opened(path) as file:
        start = file.read(8)  # /dev/zero never ends
        return start + file.read() if start.startswith(b"\xff\xff\xff\xff") else start


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    with _named(path), open(path, "rb") as file:
        yield file


def open_file(path: str) -> BinaryIO:
    """Open the file of a trace.

    Raises:
        PermissionMissing, NoFile, ForktraceError: it cannot be read.
    """
    with _named(path):
        return open(path, "rb")


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn an OSError into an error that names the trace."""
    try:
        yield
    except PermissionError as error:
        raise PermissionMissing(f"{path}: {error.strerror}", "a trace belongs to the user who recorded it") from None
    except FileNotFoundError as error:
        raise NoFile(f"{path}: {error.strerror}") from None
    except OSError as error:
        raise ForktraceError(f"{path}: {error.strerror}") from None


def open_stream(source: Any, path: str) -> tuple[dict[str, Any], Any]:
    """Return the header and Arrow's reader, placed before the first batch.

    Raises:
        TraceError: it is no trace, or from a newer forktrace.
    """
    try:
        stream = pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(use_threads=False))
        metadata = stream.schema.metadata or {}
    except ARROW_ERRORS as error:
        raise TraceError(f"{path}: damaged at byte 0: {_one_line(error)}") from None
    if b"forktrace" not in metadata:
        raise TraceError(f"{path}: an Arrow stream, but not a trace of forktrace")
    header = header_of(metadata[b"forktrace"], path)
    if not stream.schema.equals(SCHEMA):
        raise TraceError(f"{path}: damaged at byte 0: the columns are not those of format {header['format']}")
    return header, stream


def _fast(data: bytes, layout: Layout, path: str) -> list[pa.RecordBatch] | None:
    """Return all rows in file order, small batches joined, checked as `checked` does; None: few batches, or an unusual one."""
    spans = small_batches.spans(layout.messages)
    if not spans:
        return None
    inside = {place for span in spans for place in span}
    rest = [one for place, one in enumerate(layout.messages) if place not in inside or one.kind != BATCH]
    try:
        joined = dict(zip([span.start for span in spans], small_batches.read(data, layout.messages, spans), strict=True))
        header, stream = open_stream(pa.BufferReader(b"".join([data[one.offset : one.end] for one in rest])), path)
        others = checked(stream, Layout(rest, layout.cut), path, header["format"])
        parts: list[pa.RecordBatch] = []
        for place, one in enumerate(layout.messages):
            parts += joined.get(place, [])
            if place not in inside and one.kind == BATCH:
                parts.append(next(others))
    except (small_batches.UnusualBatch, TraceError):
        return None
    return parts


def checked(stream: Any, layout: Layout, path: str, form: int) -> Iterator[pa.RecordBatch]:
    """Yield each whole batch, once its structure, its enumerations and its checksum are right; `form`: the file's format.

    Raises:
        TraceError: they are not.
    """
    for number, offset in enumerate(layout.batches):
        try:
            batch, metadata = stream.read_next_batch_with_custom_metadata()
            batch.validate(full=True)
            whole = upgraded(batch, form) if (metadata or {}).get(_CHECKSUM) == b"%08x" % checksum(batch) else None
        except ARROW_ERRORS as error:
            raise TraceError(f"{path}: damaged in batch {number} at byte {offset}: {_one_line(error)}") from None
        if whole is None:
            raise TraceError(f"{path}: damaged in batch {number} at byte {offset}: the checksum is wrong")
        yield whole


def _one_line(error: BaseException) -> str:
    return printable(str(error).partition("\n")[0])[:200] or type(error).__name__  # Arrow quotes what it has read


def _raise_at_fault(data: bytes, layout: Layout, path: str) -> None:
    header, stream = open_stream(pa.BufferReader(data), path)
    parts = checked(stream, layout, path, header["format"])
    for number, (part, offset) in enumerate(zip(parts, layout.batches, strict=True)):
        if fault := fault_of(carried_over(pa.Table.from_batches([part]))[0]):
            raise TraceError(f"{path}: damaged in batch {number} at byte {offset}: {fault}")


def printable_header(header: dict[str, Any]) -> dict[str, Any]:
    """Return `header` with `?` for the bytes of names that are no UTF-8."""
    printable: dict[str, Any] = json.loads(json.dumps(header, ensure_ascii=False).encode("utf-8", "replace"))
    return printable


def _not_closed(table: pa.Table) -> str | None:
    closed = np.any(integers(table["kind"])[0] == KINDS.index("end"))
    return None if closed else "the recording was not closed: its last event is missing"


def merge(path: str | os.PathLike[str], fewest: int = MANY_BATCHES) -> bool:
    """Rewrite the closed trace `path` with large batches, and return whether it was.

    A file with fewer batches than `fewest`, or with large ones, opens fast and stays as it is.

    The new file replaces the old one when it is complete, with the same mode and owner. An error leaves the old one.
    Memory does not grow with the trace.
    """
    name = os.path.realpath(path)
    try:
        with open(name, "rb") as file:
            layout = scan(file, os.fstat(file.fileno()).st_size, name)
            if layout.cut or len(layout.batches) < fewest or layout.rows > 4096 * len(layout.batches):
                return False
            file.seek(0)
            _rewrite(file, layout, name)
    except (OSError, ForktraceError):
        return False
    return True


def _rewrite(file: BinaryIO, layout: Layout, path: str) -> None:
    with replaced(path) as sink:
        _keep_rights(file, sink)
        _write_merged(file, layout, path, sink)
        os.fsync(sink.fileno())


def _keep_rights(old: BinaryIO, new: BinaryIO) -> None:
    was, now = os.fstat(old.fileno()), os.fstat(new.fileno())
    if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
        os.fchown(new.fileno(), was.st_uid, was.st_gid)
    os.fchmod(new.fileno(), was.st_mode & 0o7777)


def _write_merged(file: BinaryIO, layout: Layout, path: str, sink: BinaryIO) -> None:
    header, stream = open_stream(pa.PythonFile(file, "r"), path)
    writer = Writer(sink, header, level=_SMALLEST if layout.rows < _LITTLE else _SMALL)
    few = _joined(
        checked(stream, layout, path, header["format"]), rows=256
    )  # a thousand small batches hold more memory than their rows
    for large in _joined(few, rows=1 << 14):
        writer.write(large)
    writer.close()


def _joined(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield batches of `rows` rows or a little more, or of many bytes; the last has what is left."""
    waiting: list[pa.RecordBatch] = []
    missing_rows, missing_bytes = rows, _MANY_BYTES
    for part in batches:
        waiting.append(part)
        missing_rows -= part.num_rows
        missing_bytes -= part.get_total_buffer_size()
        if missing_rows <= 0 or missing_bytes <= 0:
            yield merged(waiting)
            waiting, missing_rows, missing_bytes = [], rows, _MANY_BYTES
    if waiting:
        yield merged(waiting)
