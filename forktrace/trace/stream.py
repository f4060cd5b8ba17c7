"""The trace file: an Arrow IPC stream, zstd-compressed, whose schema metadata holds the header as JSON.

An empty batch comes first, so that even a recording that is killed at once can be read. Each batch carries the CRC-32 of its
columns. Dictionaries belong to their batch and are sorted; those of the enumerations are the whole enumeration and are
written once. Nothing here imports pandas: `record` runs this code, and `pa.array` would import it.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forktrace.errors import ForktraceError, PermissionMissing, TraceError
from forktrace.trace import frames
from forktrace.trace.events import COLUMNS, KINDS, Row

FORMAT: Final = 1

# Values with a boolean validity (None: all are valid), or strings where None is null. Enumerations: indexes into their tuple.
Column = tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None] | Sequence[str | None]


def _arrow_type(what: str | tuple[str, ...]) -> pa.DataType:
    if isinstance(what, tuple):
        return pa.dictionary(pa.int8(), pa.string())
    return {"int32": pa.int32(), "int64": pa.int64(), "string": pa.string(), "text": pa.dictionary(pa.int32(), pa.string())}[
        what
    ]


SCHEMA: Final = pa.schema([pa.field(name, _arrow_type(what)) for name, what in COLUMNS.items()])

_CHECKSUM: Final = b"crc32"
_DTYPES: Final = {"int32": np.dtype("<i4"), "int64": np.dtype("<i8")}
_MAX_TIME_NS: Final = 1 << 62  # 146 years: a time plus the clock's offset stays an int64


@dataclass(frozen=True)
class Trace:
    """A trace in memory: `table` has the columns of `SCHEMA`, sorted by `time_ns`; equal times keep the file's order."""

    path: str
    header: dict[str, Any]
    table: pa.Table
    cut: str | None  # why the file was cut off or not closed; None: it is whole


def batch_of(rows: Iterable[Row]) -> pa.RecordBatch:
    """Return the batch of `rows`, where a missing key is null.

    Raises:
        KeyError, ValueError: a key that is no column, or a value that its enumeration does not have.
    """
    rows = list(rows)
    if strange := {key for row in rows for key in row} - COLUMNS.keys():
        raise KeyError(f"no such columns: {sorted(strange)}")
    return batch({name: _column_of([row.get(name) for row in rows], what) for name, what in COLUMNS.items()}, len(rows))


def _column_of(values: list[Any], what: str | tuple[str, ...]) -> Column:
    if isinstance(what, tuple):
        values = [None if value is None else what.index(value) for value in values]
    elif what in ("text", "string"):
        return values
    dtype = np.dtype("i1") if isinstance(what, tuple) else _DTYPES[what]
    valid = np.fromiter((value is not None for value in values), bool, len(values))
    return np.fromiter((value or 0 for value in values), dtype, len(values)), valid


def batch(columns: Mapping[str, Column], rows: int) -> pa.RecordBatch:
    """Return the batch of `columns`, each `rows` long; a column left out is all null. Lone surrogates become escapes."""
    if strange := columns.keys() - COLUMNS.keys():
        raise KeyError(f"no such columns: {sorted(strange)}")
    return pa.RecordBatch.from_arrays([_array(name, columns.get(name), rows) for name in COLUMNS], schema=SCHEMA)


def _array(name: str, column: Column | None, rows: int) -> pa.Array:
    what = COLUMNS[name]
    if column is None:
        column = [None] * rows if what in ("text", "string") else (np.zeros(rows, np.int8), np.zeros(rows, np.bool_))
    if isinstance(column, tuple) and isinstance(column[0], np.ndarray):
        values, valid = column
        if what == "text" or what == "string":
            raise TypeError(f"{name} takes strings")
        return _numbers(what, values, valid, rows)
    return _texts(list(column), rows) if what == "text" else _strings(list(column), rows)


def _numbers(what: str | tuple[str, ...], values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None, rows: int) -> pa.Array:
    if len(values) != rows or (valid is not None and len(valid) != rows):
        raise ValueError(f"a column of {len(values)} values in a batch of {rows} rows")
    if valid is not None:
        values = np.where(valid, values, 0)
    if isinstance(what, tuple):
        return _dictionary(_ENUMERATIONS[what], np.ascontiguousarray(values, np.int8), valid)
    return pa.Array.from_buffers(
        _arrow_type(what), rows, [_bitmap(valid), pa.py_buffer(np.ascontiguousarray(values, _DTYPES[what]))], _nulls(valid)
    )


def _texts(values: list[Any], rows: int) -> pa.Array:
    words = sorted({value for value in values if value is not None})
    place = {word: index for index, word in enumerate(words)}
    codes = np.fromiter((place.get(value, -1) for value in values), np.int32, rows)
    valid = codes >= 0
    return _dictionary(_strings(words, len(words)), np.maximum(codes, 0), None if valid.all() else valid)


def _strings(values: list[Any], rows: int) -> pa.Array:
    if len(values) != rows:
        raise ValueError(f"a column of {len(values)} values in a batch of {rows} rows")
    encoded = [b"" if value is None else value.encode("utf-8", "backslashreplace") for value in values]
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(np.fromiter(map(len, encoded), np.int32, rows), out=offsets[1:])
    valid = np.fromiter((value is not None for value in values), bool, rows)
    buffers = [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.string(), rows, buffers, _nulls(valid))


def _dictionary(words: pa.Array, codes: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None) -> pa.Array:
    kind = pa.dictionary(pa.int8() if codes.dtype == np.int8 else pa.int32(), pa.string())
    return pa.DictionaryArray.from_buffers(kind, len(codes), [_bitmap(valid), pa.py_buffer(codes)], words, _nulls(valid))


def _bitmap(valid: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if _nulls(valid) == 0 else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _nulls(valid: npt.NDArray[np.bool_] | None) -> int:
    return 0 if valid is None else len(valid) - int(np.count_nonzero(valid))


_ENUMERATIONS: Final = {what: _strings(list(what), len(what)) for what in COLUMNS.values() if isinstance(what, tuple)}


class Writer:
    """Writes a trace to `sink`, beginning with its header and an empty batch; every write reaches the operating system.

    Raises:
        ForktraceError: the sink takes no more (disk full, reader gone). What was written before stays readable.
    """

    def __init__(self, sink: BinaryIO, header: Mapping[str, Any]) -> None:
        self.rows = 0
        self.batches = 0
        self.bytes_written = 0
        self._sink = sink
        metadata = {b"forktrace": json.dumps({"format": FORMAT, **header}).encode()}
        options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
        self._buffer = io.BytesIO()
        self._stream = pa.ipc.new_stream(self._buffer, SCHEMA.with_metadata(metadata), options=options)
        self.write(batch({}, 0))

    def write(self, batch: pa.RecordBatch) -> None:
        """Write one batch made by `batch` or `batch_of`."""
        self._stream.write_batch(batch, custom_metadata={_CHECKSUM: b"%08x" % _checksum(batch)})
        self._hand_over()
        self.rows += batch.num_rows
        self.batches += 1

    def close(self) -> None:
        """Write the end mark; the sink stays open."""
        self._stream.close()
        self._hand_over()

    def _hand_over(self) -> None:
        """Hand what Arrow encoded to the sink: a failed write never leaves Arrow's own state in doubt."""
        data = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        try:
            self._sink.write(data)
            self._sink.flush()
        except OSError as error:
            raise ForktraceError(
                f"cannot write the trace: {error.strerror or error}", "what was written so far can be read"
            ) from error
        self.bytes_written += len(data)


def _checksum(batch: pa.RecordBatch) -> int:
    """Return the CRC-32 of the rows' number and of every column; an enumeration's own dictionary is left out."""
    crc = batch.num_rows
    for name, column in zip(COLUMNS, batch.columns, strict=True):
        crc = _crc(column, crc)
        if COLUMNS[name] == "text":
            crc = _crc(column.dictionary, crc)
    return crc


def _crc(array: pa.Array, crc: int) -> int:
    rows = len(array)
    validity, *data = array.buffers()
    if rows == 0:
        return crc
    crc = zlib.crc32(b"" if array.null_count == 0 else memoryview(validity)[: (rows + 7) // 8], crc)
    if len(data) == 1:
        width = (array.type.index_type if pa.types.is_dictionary(array.type) else array.type).bit_width // 8
        return zlib.crc32(memoryview(data[0])[: rows * width], crc)
    offsets = memoryview(data[0])[: (rows + 1) * 4]
    end = int(np.frombuffer(offsets, "<i4")[-1])
    return zlib.crc32(b"" if data[1] is None else memoryview(data[1])[:end], zlib.crc32(offsets, crc))


def read(path: str | os.PathLike[str]) -> Trace:
    """Return the trace in the file `path`; one that is cut off up to its last whole batch, with the reason in `cut`.

    Raises:
        TraceError: empty, damaged, not a trace, or from a newer forktrace; the message names the file and the place.
        PermissionMissing, ForktraceError: the file cannot be read.
    """
    name = os.fspath(path)
    data = _read_bytes(name)
    layout = frames.scan(io.BytesIO(data), len(data), name)
    header, batches = _open(pa.BufferReader(data), layout, name)
    whole = list(batches)
    table = pa.Table.from_batches(whole, SCHEMA).unify_dictionaries().combine_chunks()
    _check_values(table, whole, layout, name)
    table = _by_time(table)
    return Trace(name, header, table, layout.cut or _not_closed(table))


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            start = file.read(8)  # of /dev/zero no more is wanted
            return start + file.read() if start.startswith(b"\xff\xff\xff\xff") else start
    except PermissionError as error:
        raise PermissionMissing(f"{path}: {error.strerror}", "a trace belongs to the user who recorded it") from None
    except OSError as error:
        raise ForktraceError(f"{path}: {error.strerror}") from None


def _open(source: Any, layout: frames.Layout, path: str) -> tuple[dict[str, Any], Iterator[pa.RecordBatch]]:
    """Return the header and an iterator over the checked batches."""
    try:
        stream = pa.ipc.open_stream(source, options=pa.ipc.IpcReadOptions(use_threads=False))
        schema = stream.schema
        if not schema.metadata or b"forktrace" not in schema.metadata:
            raise TraceError(f"{path}: not a trace of forktrace, but another Arrow stream")
        header = _header(schema.metadata[b"forktrace"], path)
        if not schema.equals(SCHEMA):
            raise TraceError(f"{path}: damaged at byte 0: not the columns of format {header['format']}")
    except _ARROW_ERRORS as error:
        raise TraceError(f"{path}: damaged at byte 0: {_one_line(error)}") from None
    return header, (_next_batch(stream, number, offset, path) for number, offset in enumerate(layout.batches))


_ARROW_ERRORS: Final = (
    pa.ArrowException,
    OSError,
    ValueError,
    MemoryError,
    SystemError,
    TypeError,
    KeyError,
    EOFError,
    StopIteration,
)


def _next_batch(stream: Any, number: int, offset: int, path: str) -> pa.RecordBatch:
    where = f"{path}: damaged in batch {number} at byte {offset}"
    try:
        batch, metadata = stream.read_next_batch_with_custom_metadata()
        batch.validate(full=True)
        for column, what in zip(batch.columns, COLUMNS.values(), strict=True):
            if isinstance(what, tuple) and not column.dictionary.equals(_ENUMERATIONS[what]):
                raise TraceError(f"{where}: an enumeration that is not this format's")
        if metadata is None or metadata.get(_CHECKSUM) != b"%08x" % _checksum(batch):
            raise TraceError(f"{where}: the checksum is wrong")
    except _ARROW_ERRORS as error:
        raise TraceError(f"{where}: {_one_line(error)}") from None
    return batch


def _one_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


_HEADER: Final[Mapping[str, type | tuple[type, ...]]] = {
    "forktrace": str,
    "command": list,
    "cwd": str,
    "target_pid": int,
    "target_start_ns": (int, type(None)),
    "user": str,
    "host": str,
    "boot_id": str,
    "kernel": str,
    "start_ns": int,
    "clock_offset_ns": int,
    "recorder_pid": int,
    "pid_ns": int,
}


def _header(data: bytes, path: str) -> dict[str, Any]:
    try:
        text = json.dumps(json.loads(data), ensure_ascii=False)
        header = json.loads(text.encode("utf-8", "replace"))  # a file name may be no UTF-8
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}: damaged at byte 0: the header is no JSON: {_one_line(error)}") from None
    number = header.get("format") if isinstance(header, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise TraceError(f"{path}: damaged at byte 0: the header names no format")
    if number > FORMAT:
        raise TraceError(
            f"{path}: written by a newer forktrace ({header.get('forktrace')}, format {number}; this one reads {FORMAT})",
            "upgrade forktrace to read it",
        )
    for key, kind in _HEADER.items():
        _check_header(header, key, kind, path)
    return header


def _check_header(header: dict[str, Any], key: str, kind: type | tuple[type, ...], path: str) -> None:
    value = header.get(key)
    good = isinstance(value, kind) and not isinstance(value, bool)
    if isinstance(value, int):
        good = good and 0 <= value < _MAX_TIME_NS
    if isinstance(value, list):
        good = good and all(isinstance(word, str) for word in value)
    if not good:
        raise TraceError(f"{path}: damaged at byte 0: the header's {key} is {value!r:.40}")


def _check_values(table: pa.Table, batches: list[pa.RecordBatch], layout: frames.Layout, path: str) -> None:
    if _fault(table) is None:
        return
    for number, (batch, offset) in enumerate(zip(batches, layout.batches, strict=True)):
        if fault := _fault(pa.Table.from_batches([batch])):
            raise TraceError(f"{path}: damaged in batch {number} at byte {offset}: {fault}")


def _fault(table: pa.Table) -> str | None:
    """Return what is wrong with the values of `table`, None when all are possible."""
    for name in ("time_ns", "kind"):
        if table[name].null_count:
            return f"an event without {name}"
    for name, what in COLUMNS.items():
        if what in _DTYPES and name not in _ANY_NUMBER and (number := _impossible(table[name], name)) is not None:
            return f"{name} is {number}"
    if (status := _bad_exit(table)) is not None:
        return f"the wait status of an exit is {status:#x}"
    return "the totals are no JSON object" if any(_totals(text) is None for text in _details(table, "end")) else None


_ANY_NUMBER: Final = ("flags", "target_pid", "result")


def _impossible(column: pa.ChunkedArray, name: str) -> int | None:
    values, valid = _numpy(column)
    bad = (values < 0) | (values >= _MAX_TIME_NS) if name.endswith("_ns") else values < 0
    found = values[bad & valid]
    return int(found[0]) if len(found) else None


def _bad_exit(table: pa.Table) -> int | None:
    status, valid = _numpy(table["status"])
    status = status[valid & _of_kind(table, "exit")]
    found = status[(status > 0xFFFF) | (status & 0x7F == 0x7F)]
    return int(found[0]) if len(found) else None


def _numpy(column: pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the values of an integer column, 0 where null, and which are valid."""
    array = _single(column)
    values = np.frombuffer(array.buffers()[1] or b"", _DTYPES[str(array.type)])[array.offset : array.offset + len(array)]
    return values, _valid(array)


def _valid(array: pa.Array) -> npt.NDArray[np.bool_]:
    if array.null_count == 0:
        return np.ones(len(array), np.bool_)
    bits = np.unpackbits(np.frombuffer(array.buffers()[0], np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(np.bool_)


def _of_kind(table: pa.Table, kind: str) -> npt.NDArray[np.bool_]:
    array = _single(table["kind"])
    codes = np.frombuffer(array.buffers()[1] or b"", np.int8)[array.offset : array.offset + len(array)]
    same: npt.NDArray[np.bool_] = codes == KINDS.index(kind)
    return same


def _single(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _details(table: pa.Table, kind: str) -> list[str | None]:
    return [table["detail"][int(row)].as_py() for row in np.flatnonzero(_of_kind(table, kind))]


def _totals(text: str | None) -> dict[str, Any] | None:
    try:
        totals = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return totals if isinstance(totals, dict) else None


def _by_time(table: pa.Table) -> pa.Table:
    times = _numpy(table["time_ns"])[0]
    if np.all(times[:-1] <= times[1:]):
        return table
    order = np.argsort(times, kind="stable")
    return table.take(pa.Array.from_buffers(pa.int64(), len(order), [None, pa.py_buffer(order)], 0))


def _not_closed(table: pa.Table) -> str | None:
    return None if _of_kind(table, "end").any() else "the recording was not closed: its last event is missing"
