"""Batches of events: what a column of `events.COLUMNS` is in Arrow, and how rows or numpy columns become a batch.

Dictionaries belong to their batch and are sorted (delta dictionaries would read back in quadratic time); those of the
enumerations are the whole enumeration. Nothing here imports pandas: `record` runs this code, and `pa.array` would import it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forktrace.trace.events import CARRIED, COLUMNS, KINDS, SHORTER, STORED_KINDS, Row

Values = npt.NDArray[Any]
Validity = npt.NDArray[np.bool_]
# Values with their validity (None: all are valid), or strings where None is null. Enumerations: indexes into their tuple.
Column = tuple[Values, Validity | None] | Sequence[str | None]

_FEW_ROWS: Final = 64  # in a batch, whose empty columns are kept

# What pyarrow raises for data that is not what it claims to be.
ARROW_ERRORS: Final = (pa.ArrowException, OSError, ValueError, MemoryError, SystemError, TypeError, LookupError, StopIteration)

INTEGERS: Final[Mapping[str | tuple[str, ...], np.dtype[Any]]] = {"int32": np.dtype("<i4"), "int64": np.dtype("<i8")}


def _arrow_type(what: str | tuple[str, ...]) -> pa.DataType:
    if isinstance(what, tuple):
        return pa.dictionary(pa.int8(), pa.string())
    return pa.dictionary(pa.int32(), pa.string()) if what == "text" else pa.type_for_alias(what)


SCHEMA: Final = pa.schema([pa.field(name, _arrow_type(what)) for name, what in COLUMNS.items()])


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
    elif what not in INTEGERS:
        return values
    valid = np.fromiter((value is not None for value in values), np.bool_, len(values))
    return np.fromiter((value or 0 for value in values), INTEGERS.get(what, np.dtype(np.int8)), len(values)), valid


def batch(columns: Mapping[str, Column], rows: int) -> pa.RecordBatch:
    """Return the batch of `columns`, each `rows` long; a column left out is all null. Lone surrogates become escapes."""
    if strange := columns.keys() - COLUMNS.keys():
        raise KeyError(f"no such columns: {sorted(strange)}")
    return pa.RecordBatch.from_arrays([_array(name, columns.get(name), rows) for name in COLUMNS], schema=SCHEMA)


def part(columns: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """Return the rows from `start` to before `stop` of `columns`, as `batch` takes them."""
    return {name: _part(column, slice(start, stop)) for name, column in columns.items()}


def _part(column: Any, rows: slice) -> Column:
    if not isinstance(column, tuple):
        texts: list[str | None] = column[rows]
        return texts
    values, valid = column
    return values[rows], None if valid is None else valid[rows]


def _array(name: str, column: Any, rows: int) -> pa.Array:
    what = COLUMNS[name]
    if column is None:
        return (_few_empty if rows <= _FEW_ROWS else _empty)(what, rows)
    if what == "text" or what == "string":
        array = _texts(column) if what == "text" else strings(column)
    else:
        values, valid = column
        array = numbers(what, values if valid is None else np.where(valid, values, 0), valid)
    if len(array) != rows:
        raise ValueError(f"{name} has {len(array)} values in a batch of {rows} rows")
    return array


def _empty(what: str | tuple[str, ...], rows: int) -> pa.Array:
    """Return a column that is all null."""
    if what == "text" or what == "string":
        return _texts([None] * rows) if what == "text" else strings([None] * rows)
    return numbers(what, np.zeros(rows, np.int8), np.zeros(rows, np.bool_))


_few_empty = lru_cache(maxsize=1024)(_empty)  # most columns are, and a quiet recording has a few rows in each batch


def numbers(what: str | tuple[str, ...], values: Values, valid: Validity | None) -> pa.Array:
    """Return an array of integers, or of an enumeration's indexes; `what` is as in `COLUMNS`, `valid` None: all are."""
    if isinstance(what, tuple):
        return dictionary(ENUMERATIONS[what], np.ascontiguousarray(values, np.int8), valid)
    data = pa.py_buffer(np.ascontiguousarray(values, INTEGERS[what]))
    return pa.Array.from_buffers(_arrow_type(what), len(values), [_bitmap(valid), data], _nulls(valid))


def _texts(values: Sequence[str | None]) -> pa.Array:
    words = sorted({value for value in values if value is not None})
    place: dict[str | None, int] = {word: index for index, word in enumerate(words)}
    codes = np.fromiter((place.get(value, -1) for value in values), np.int32, len(values))
    return dictionary(strings(words), np.maximum(codes, 0), codes >= 0)


def strings(values: Sequence[str | None]) -> pa.Array:
    """Return an array of strings."""
    encoded = [b"" if value is None else value.encode("utf-8", "backslashreplace") for value in values]
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, encoded), np.int32, len(values)), out=offsets[1:])
    valid = np.fromiter((value is not None for value in values), np.bool_, len(values))
    return string_array(offsets, b"".join(encoded), valid)


def string_array(offsets: Values, text: bytes, valid: Validity) -> pa.Array:
    """Return the strings that lie in `text` from each of the int32 `offsets` to the next."""
    return pa.Array.from_buffers(
        pa.string(), len(valid), [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(text)], _nulls(valid)
    )


def dictionary(words: pa.Array, codes: Values, valid: Validity | None) -> pa.Array:
    """Return an array whose values are `words[code]`; int8 codes make one of the type of an enumeration."""
    kind = pa.dictionary(pa.int8() if codes.dtype == np.int8 else pa.int32(), pa.string())
    return pa.DictionaryArray.from_buffers(kind, len(codes), [_bitmap(valid), pa.py_buffer(codes)], words, _nulls(valid))


def _bitmap(valid: Validity | None) -> pa.Buffer | None:
    return None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _nulls(valid: Validity | None) -> int:
    return 0 if valid is None else len(valid) - int(np.count_nonzero(valid))


ENUMERATIONS: Final = {what: strings(what) for what in COLUMNS.values() if isinstance(what, tuple)}
ENUMERATIONS_OF: Final = {name: ENUMERATIONS[what] for name, what in COLUMNS.items() if isinstance(what, tuple)}


def upgraded(batch: pa.RecordBatch, form: int) -> pa.RecordBatch | None:
    """Return a batch of a file of format `form` with today's enumerations; None: its own are not those of that format."""
    columns, shorter = dict(zip(COLUMNS, batch.columns, strict=True)), SHORTER.get(form, {})
    for name, words in ENUMERATIONS_OF.items():
        if not columns[name].dictionary.equals(words[: shorter.get(name, len(words))]):
            return None
    for name in shorter:
        codes, valid = integers(pa.chunked_array([columns[name]]))
        columns[name] = dictionary(ENUMERATIONS_OF[name], codes, valid)
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema) if shorter else batch


def checksum(batch: pa.RecordBatch) -> int:
    """Return the CRC-32 of the number of rows and of every column; an enumeration's dictionary is left out."""
    crc: int = batch.num_rows
    for name, column in zip(COLUMNS, batch.columns, strict=True):
        crc = _crc(column, crc)
        if COLUMNS[name] == "text":
            crc = _crc(column.dictionary, crc)
    return crc


def _crc(array: pa.Array, crc: int) -> int:
    """Continue `crc` over an array that begins at the start of its buffers, without their padding."""
    rows = len(array)
    if rows == 0:
        return crc
    validity, *data = array.buffers()
    if array.null_count:
        crc = zlib.crc32(memoryview(validity)[: (rows + 7) // 8], crc)
    if len(data) == 1:
        kind = array.type.index_type if isinstance(array.type, pa.DictionaryType) else array.type
        return zlib.crc32(memoryview(data[0])[: rows * kind.bit_width // 8], crc)
    offsets = memoryview(data[0])[: (rows + 1) * 4]
    text = memoryview(data[1])[: int(np.frombuffer(offsets, "<i4")[-1])] if data[1] else b""
    return zlib.crc32(text, zlib.crc32(offsets, crc))


def integers(column: pa.ChunkedArray) -> tuple[Values, Validity]:
    """Return the values of an integer column, or the indexes of an enumeration (anything where null), and which are valid."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return values_of(array), validity(array)


def values_of(array: pa.Array) -> Values:
    """Return the integers of an array, or the indexes of an enumeration; anything where it is null."""
    kind = array.type.index_type if isinstance(array.type, pa.DictionaryType) else array.type
    values = np.frombuffer(array.buffers()[1] or b"", np.dtype(str(kind)))
    return values[array.offset : array.offset + len(array)]


def validity(array: pa.Array) -> Validity:
    """Return which values of an array are valid (not null); not to be written to."""
    if array.null_count in (0, len(array)):
        return np.broadcast_to(np.bool_(array.null_count == 0), len(array))  # one byte for all
    bits = np.unpackbits(np.frombuffer(array.buffers()[0], np.uint8), bitorder="little")
    return bits[array.offset : array.offset + len(array)].astype(np.bool_)


def by_time(batches: Iterable[pa.RecordBatch], rows: int | None = None) -> pa.Table:
    """Return one contiguous table of `batches`, sorted by `time_ns`; equal times keep their order.

    Batches that come one by one are let go one by one, if it is said how many `rows` they have together.
    """
    if rows is None:
        batches = list(batches)
        rows = sum(batch.num_rows for batch in batches)
    columns = [_Texts(name) if what in ("text", "string") else _Numbers(what, rows) for name, what in COLUMNS.items()]
    for batch in batches:
        for column, array in zip(columns, batch.columns, strict=True):
            column.add(array)
    table = pa.Table.from_arrays([column.joined() for column in columns], schema=SCHEMA)
    times, _ = integers(table["time_ns"])
    if np.all(times[:-1] <= times[1:]):
        return table
    return _taken(table, np.argsort(times, kind="stable"))


class _Texts:
    """A column of strings of many batches."""

    def __init__(self, name: str) -> None:
        self._field = SCHEMA.field(name)
        self._parts: list[pa.Array] = []

    def add(self, array: pa.Array) -> None:
        self._parts.append(array)

    def joined(self) -> pa.ChunkedArray:
        column = pa.chunked_array(self._parts, self._field.type)
        self._parts.clear()
        return pa.Table.from_arrays([column], schema=pa.schema([self._field])).combine_chunks().column(0)


class _Numbers:
    """A column of integers or of an enumeration, of many batches. What is null throughout takes no memory."""

    def __init__(self, what: str | tuple[str, ...], rows: int) -> None:
        self._what = what
        self._values = np.zeros(rows, INTEGERS.get(what, np.dtype(np.int8)))
        self._rows = self._nulls = 0
        self._bits: list[pa.Array] = []

    def add(self, array: pa.Array) -> None:
        end = self._rows + len(array)
        if array.null_count < len(array):
            self._values[self._rows : end] = values_of(array)
        self._bits.append(_bits(array))
        self._rows, self._nulls = end, self._nulls + array.null_count

    def joined(self) -> pa.Array:
        bits = pa.concat_arrays(self._bits).buffers()[1] if self._nulls else None
        data = pa.py_buffer(self._values)
        if isinstance(self._what, tuple):
            words = ENUMERATIONS[self._what]
            return pa.DictionaryArray.from_buffers(_arrow_type(self._what), self._rows, [bits, data], words, self._nulls)
        return pa.Array.from_buffers(_arrow_type(self._what), self._rows, [bits, data], self._nulls)


def _bits(array: pa.Array) -> pa.Array:
    """Which values of an array there are, as Arrow's booleans."""
    bits = array.buffers()[0] if array.null_count else None
    offset = array.offset if bits else 0
    ones = pa.py_buffer(b"\xff" * (len(array) // 8 + 1))
    return pa.Array.from_buffers(pa.bool_(), len(array), [None, bits or ones], 0, offset)


def carried_over(table: pa.Table) -> tuple[pa.Table, Validity]:
    """Return `table` with plain kinds, and which of its rows are repeated from earlier files of a rotation."""
    codes, valid = integers(table["kind"])
    carried = valid & (codes >= len(KINDS))
    if not carried.any():
        return table, carried
    plain = np.arange(len(STORED_KINDS), dtype=np.int8)
    plain[len(KINDS) :] = [KINDS.index(kind) for kind in CARRIED.values()]
    return _with_kinds(table, plain[np.where(valid, codes, 0)], valid), carried


def as_carried(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose rows, of the kinds that can be, are marked as repeated from an earlier file."""
    codes, _ = integers(pa.chunked_array([batch["kind"]]))
    marked = {KINDS.index(kind): STORED_KINDS.index(name) for name, kind in CARRIED.items()}
    return _with_kinds(batch, np.array([marked[code] for code in codes.tolist()], np.int8), None)


def _with_kinds(rows: Any, codes: Values, valid: Validity | None) -> Any:
    """A table or a batch with other kinds."""
    kinds = dictionary(ENUMERATIONS_OF["kind"], codes, valid)
    return rows.set_column(list(COLUMNS).index("kind"), SCHEMA.field("kind"), kinds)


def rows_of(table: pa.Table, rows: Values) -> pa.RecordBatch:
    """Return these rows of a table in one chunk as a batch; its dictionaries have only the words that they use."""
    return _batch_of(_taken(table, rows).combine_chunks())


def _taken(table: pa.Table, rows: Values) -> pa.Table:
    places = pa.py_buffer(rows.astype("<i8", copy=False))
    return table.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, places], 0))


def merged(batches: Iterable[pa.RecordBatch]) -> pa.RecordBatch:
    """Return `batches` as one, sorted by time, such that zstd makes little of it."""
    whole = _batch_of(by_time(batches))
    return pa.RecordBatch.from_arrays([_repeating(name, whole[name]) for name in COLUMNS], schema=SCHEMA)


def _repeating(name: str, array: pa.Array) -> pa.Array:
    """The same values; what lies under a null, which may be anything, is the value before once more."""
    what, valid = COLUMNS[name], validity(array)
    if what == "string" or valid.all() or not valid.any():
        return array
    values = values_of(array)[np.maximum.accumulate(np.where(valid, np.arange(len(array)), 0))]
    return dictionary(array.dictionary, values, valid) if what == "text" else numbers(what, values, valid)


def _batch_of(table: pa.Table) -> pa.RecordBatch:
    """A table in one chunk as a batch; its dictionaries are sorted."""
    columns = [_sorted_words(table[name].chunk(0)) if COLUMNS[name] == "text" else table[name].chunk(0) for name in COLUMNS]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _sorted_words(array: pa.Array) -> pa.Array:
    codes, valid = integers(pa.chunked_array([array]))
    words = array.dictionary.to_pylist()
    order = sorted(np.unique(codes[valid]).tolist(), key=words.__getitem__)
    place = np.zeros(max(1, len(words)), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return dictionary(strings([words[index] for index in order]), place[np.where(valid, codes, 0)], valid)
