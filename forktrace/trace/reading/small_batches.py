"""Reads many small batches at once, for long recordings that were killed and so never merged.

Arrow takes some 30 us for a batch of four rows, and a checksum over its columns takes 90 us. Here numpy joins the buffers of
thousands of batches into one batch. Each batch passes the checks that stream.py makes of every batch: its bounds (by
ipc_messages.py), its checksum, its dictionaries, and Arrow's full validation, here of the joined columns. Anything unusual
raises `UnusualBatch`, and stream.py reads the file batch by batch: it accepts that, or says what is wrong and where.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forktrace.trace.batches import ARROW_ERRORS, INTEGERS, SCHEMA, Validity, dictionary, numbers, string_array, strings
from forktrace.trace.events import COLUMNS
from forktrace.trace.reading.ipc_messages import BATCH, DICTIONARY, Message, custom_metadata

FEWEST: Final = 64  # batches in a row, for which this is faster than Arrow
MOST: Final = 2048  # at once

_DICTIONARIES: Final = [name for name, what in COLUMNS.items() if what == "text" or isinstance(what, tuple)]  # in Arrow's order
_TEXTS: Final = [name for name, what in COLUMNS.items() if what == "text"]

Ints = npt.NDArray[np.int64]


class UnusualBatch(Exception):
    """Something is not as the recorder writes it; it may be correct all the same."""


class _Column(NamedTuple):
    name: str
    node: int  # its place among the columns
    buffer: int  # the first of its buffers: validity, then values; of strings: validity, offsets, text
    width: int  # bytes a value; 0: strings


def _columns() -> Iterator[_Column]:
    buffer = 0
    for node, (name, what) in enumerate(COLUMNS.items()):
        width = 1 if isinstance(what, tuple) else 4 if what == "text" else 0 if what == "string" else INTEGERS[what].itemsize
        yield _Column(name, node, buffer, width)
        buffer += 2 if width else 3


_COLUMNS: Final = tuple(_columns())
_BUFFERS: Final = _COLUMNS[-1].buffer + (2 if _COLUMNS[-1].width else 3)
_TEXT_ENDS: Final = [
    column.buffer + 2 for column in _COLUMNS if column.name in _TEXTS
]  # after which a checksum has its dictionary


class _Words:
    """A dictionary: its words, and the bytes that a checksum has of it."""

    def __init__(self, offsets: bytes, text: bytes, count: int) -> None:
        places = np.frombuffer(offsets, "<i4", count + 1).tolist() if count else [0]
        if places[0] != 0 or places[-1] > len(text) or any(end < start for start, end in pairwise(places)):
            raise UnusualBatch
        self.words = [text[start:end].decode() for start, end in pairwise(places)]
        self.raw = offsets[: 4 * count + 4] + text[: places[-1]] if count else b""


class _Batch(NamedTuple):
    message: Message
    words: tuple[_Words, ...]  # of each of _TEXTS


def spans(messages: Sequence[Message]) -> list[range]:
    """Return the ranges of `messages` that hold at least `FEWEST` batches, all of them small."""
    found, start, count = [], 0, 0
    for place, message in enumerate(messages):
        if message.kind == DICTIONARY:
            continue
        if _is_small(message):
            count += 1
            continue
        if count >= FEWEST:
            found.append(range(start, place))
        start, count = place + 1, 0
    return [*found, range(start, len(messages))] if count >= FEWEST else found


def _is_small(message: Message) -> bool:
    contents = message.contents
    return (
        message.kind == BATCH and not contents.compressed and contents.rows > 0 and contents.nodes > 0 and contents.buffers > 0
    )


def read(data: bytes, messages: Sequence[Message], wanted: Sequence[range]) -> Iterator[list[pa.RecordBatch]]:
    """Yield the rows of each of the ranges `wanted`, in few batches.

    Raises:
        UnusualBatch: one of them is unusual.
    """
    try:
        headers = pa.ipc.MessageReader.open_stream(pa.BufferReader(data))
        for _ in messages:
            headers.read_next_message()  # verifies all of a message's header, of which ipc_messages.py reads a part
        yield from _read(data, messages, wanted)
    except (*ARROW_ERRORS, struct.error, OverflowError) as error:
        raise UnusualBatch from error


def _read(data: bytes, messages: Sequence[Message], wanted: Sequence[range]) -> Iterator[list[pa.RecordBatch]]:
    known: dict[bytes, _Words] = {}
    current: dict[str, _Words] = {}
    at = 0
    for span in wanted:
        batches: list[_Batch] = []
        for message in messages[at : span.stop]:
            if message.kind == DICTIONARY:
                current |= _dictionary(data, message, known)
            elif message.offset >= messages[span.start].offset:
                batches.append(_Batch(message, tuple(current[name] for name in _TEXTS)))
        if len(current) < len(_DICTIONARIES):
            raise UnusualBatch
        at = span.stop
        yield [_joined(data, batches[start : start + MOST]) for start in range(0, len(batches), MOST)]


def _dictionary(data: bytes, message: Message, known: dict[bytes, _Words]) -> dict[str, _Words]:
    """Return the words of a dictionary message by the name of its column; those of an enumeration are the whole enumeration."""
    number = message.contents.dictionary
    if not 0 <= number < len(_DICTIONARIES):
        raise UnusualBatch
    name, words = _DICTIONARIES[number], _words_of(data, message, known)
    if name not in _TEXTS and words.words != list(COLUMNS[name]):
        raise UnusualBatch
    return {name: words}


def _words_of(data: bytes, message: Message, known: dict[bytes, _Words]) -> _Words:
    """Return the words of a dictionary message; they come back again and again."""
    holds, body = message.contents, data[message.body : message.end]
    (rows, nulls), buffers = _numbers_at(data, holds.nodes, 1), _numbers_at(data, holds.buffers, 3)
    if rows != holds.rows or nulls:
        raise UnusualBatch
    key = body + buffers.tobytes() + struct.pack("<q?", holds.rows, holds.compressed)
    if key not in known:
        parts = [body[start : start + length] for start, length in buffers.reshape(3, 2).tolist()]
        _, offsets, text = (_plain(part) for part in parts) if holds.compressed else parts
        known[key] = _Words(offsets, text, holds.rows)
    return known[key]


def _plain(part: bytes) -> bytes:
    """Return the content of a compressed buffer, whose declared size is within the bounds of ipc_messages.py."""
    size = struct.unpack_from("<q", part)[0] if part else -1
    return part[8:] if size == -1 else pa.decompress(part[8:], size, codec="zstd", asbytes=True)


def _numbers_at(data: bytes, place: int, count: int) -> Ints:
    """Return the numbers of a list of so many pairs: rows and nulls of columns, or starts and lengths of buffers."""
    if struct.unpack_from("<I", data, place)[0] != count:
        raise UnusualBatch
    return np.frombuffer(data, "<i8", 2 * count, place + 4)


class _Block:
    """Some batches, with the places of all their buffers in the file."""

    def __init__(self, data: bytes, batches: Sequence[_Batch]) -> None:
        self.data = data
        self.batches = batches
        messages = [batch.message for batch in batches]
        nodes = np.stack([_numbers_at(data, message.contents.nodes, len(_COLUMNS)) for message in messages])
        buffers = np.stack([_numbers_at(data, message.contents.buffers, _BUFFERS) for message in messages])
        self.rows = np.array([message.contents.rows for message in messages])
        self.nulls = nodes[:, 1::2]
        self.starts = buffers[:, 0::2] + np.array([message.body for message in messages])[:, None]
        self.lengths = buffers[:, 1::2]
        if (nodes[:, 0::2] != self.rows[:, None]).any() or (self.starts % 8).any():
            raise UnusualBatch
        self._first = np.cumsum(self.rows) - self.rows
        self.within = np.arange(self.rows.sum()) - self.spread(self._first)  # the place of each row in its batch
        whole = len(data) // 8 * 8
        self._views = {width: np.frombuffer(data, f"<i{width}", whole // width) for width in (1, 4, 8)}

    def spread(self, values: Any) -> Any:
        """What is said of each batch, for each of its rows."""
        return np.repeat(values, self.rows)

    def values(self, buffer: int, width: int, ahead: int = 0) -> Any:
        """The value of each row in a buffer, or that of the row `ahead`."""
        return self._views[width][self.spread(self.starts[:, buffer] // width) + self.within + ahead]

    def last_offsets(self, buffer: int) -> Ints:
        """Where the text of each batch ends."""
        ends: Ints = self._views[4][self.starts[:, buffer] // 4 + self.rows].astype(np.int64)
        return ends

    def validity(self, column: _Column) -> Validity:
        """Which rows have a value."""
        nulls = self.nulls[:, column.node]
        place = self.spread(np.where(nulls > 0, self.starts[:, column.buffer], 0)) + (self.within >> 3)
        valid: Validity = (self._views[1][place] >> (self.within & 7)) & 1 != 0
        valid |= self.spread(nulls == 0)
        if (np.add.reduceat(~valid, self._first, dtype=np.int64) != nulls).any():
            raise UnusualBatch
        return valid


def _joined(data: bytes, batches: Sequence[_Batch]) -> pa.RecordBatch:
    block = _Block(data, batches)
    _check_sums(block)
    joined = pa.RecordBatch.from_arrays([_array(block, column) for column in _COLUMNS], schema=SCHEMA)
    joined.validate(full=True)
    return joined


def _check_sums(block: _Block) -> None:
    """Compare the checksum of each batch (batches.checksum) with the one in its header."""
    used = np.empty_like(block.lengths)
    for column in _COLUMNS:
        used[:, column.buffer] = np.where(block.nulls[:, column.node] > 0, (block.rows + 7) // 8, 0)
        used[:, column.buffer + 1] = block.rows * column.width if column.width else 4 * (block.rows + 1)
        if not column.width:
            used[:, column.buffer + 2] = block.last_offsets(column.buffer + 1)
    if (used < 0).any() or (used > block.lengths).any():
        raise UnusualBatch
    stops = [*_TEXT_ENDS, _BUFFERS]
    data, shapes = block.data, set[bytes]()
    for batch, starts, ends in zip(block.batches, block.starts.tolist(), (block.starts + used).tolist(), strict=True):
        parts = [data[start:end] for start, end in zip(starts, ends, strict=True)]
        crc, begin = batch.message.contents.rows, 0
        for stop, words in zip(stops, (*batch.words, None), strict=True):
            crc = zlib.crc32(b"".join(parts[begin:stop]), crc)
            crc = zlib.crc32(words.raw, crc) if words else crc
            begin = stop
        _compare(data[batch.message.offset : batch.message.body], batch.message, b"%08x" % crc, shapes)


def _compare(header: bytes, message: Message, crc: bytes, shapes: set[bytes]) -> None:
    """Compare a checksum with that of a header; `shapes` are the beginnings of others that were right, without theirs."""
    shape = header[: message.contents.buffers - message.offset].replace(crc, b"", 1)
    if shape not in shapes:
        if custom_metadata(header).get(b"crc32") != crc:
            raise UnusualBatch
        shapes.add(shape)


def _array(block: _Block, column: _Column) -> pa.Array:
    valid = block.validity(column)
    what = COLUMNS[column.name]
    if not column.width:
        return _strings_of(block, column.buffer + 1, valid)
    values = block.values(column.buffer + 1, column.width)
    if what != "text":
        return numbers(what, np.where(valid, values, 0), valid)
    return _texts_of(block, _TEXTS.index(column.name), values, valid)


def _strings_of(block: _Block, offsets: int, valid: Validity) -> pa.Array:
    begins, ends = (block.values(offsets, 4, ahead).astype(np.int64) for ahead in (0, 1))
    if (begins < 0).any() or (ends < begins).any() or (ends > block.spread(block.lengths[:, offsets + 1])).any():
        raise UnusualBatch
    text = block.spread(block.starts[:, offsets + 1])
    there = np.flatnonzero(valid & (ends > begins))
    pieces = zip((text + begins)[there].tolist(), (text + ends)[there].tolist(), strict=True)
    places = np.cumsum(np.where(valid, ends - begins, 0))
    if len(places) and places[-1] >= 1 << 31:
        raise UnusualBatch
    joined = b"".join([block.data[start:end] for start, end in pieces])
    return string_array(np.concatenate([[0], places]).astype("<i4"), joined, valid)


def _texts_of(block: _Block, number: int, codes: Any, valid: Validity) -> pa.Array:
    """The codes of each batch index its own dictionary: make them index one dictionary of all words."""
    known = {id(batch.words[number]): batch.words[number] for batch in block.batches}
    place: dict[str, int] = {}
    common = {key: [place.setdefault(word, len(place)) for word in one.words] for key, one in known.items()}
    bases = dict(zip(common, np.cumsum([0, *map(len, common.values())]).tolist(), strict=False))
    table = np.array([code for codes_of in common.values() for code in codes_of] or [0], np.int32)
    base = block.spread([bases[id(batch.words[number])] for batch in block.batches])
    size = block.spread([len(batch.words[number].words) for batch in block.batches])
    if (valid & ((codes < 0) | (codes >= size))).any():
        raise UnusualBatch
    return dictionary(strings(list(place)), table[np.where(valid, base + codes, 0)], valid)
