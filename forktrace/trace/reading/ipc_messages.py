"""Finds the Arrow messages of a trace file, and makes sure that none of them can harm the reader.

A trace is untrusted input. Arrow believes the sizes that a file declares: it allocates what a compressed buffer says it will
become. So each message is looked at here, in plain Python, before Arrow sees it: its size against the file, its rows, the
declared sizes of its buffers. Layout: the "Encapsulated message format" of the Arrow columnar specification, and Message.fbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from forktrace.errors import TraceError

MAX_ROWS: Final = 1 << 20  # of one batch
MAX_BATCH_BYTES: Final = 1 << 28  # of one batch or dictionary, uncompressed
# A whole file may hold so much, and more in proportion to its size:
#     rows    one for each byte of the file; real ones take three bytes and more, since their times differ
#     bytes   MAX_RATIO for each byte of the file; real ones reach 400, by command lines of 4 KiB that repeat
FREE_ROWS: Final = 1 << 17
FREE_BYTES: Final = 1 << 26
MAX_RATIO: Final = 500

_CONTINUATION: Final = b"\xff\xff\xff\xff"
_END_MARK: Final = _CONTINUATION + bytes(4)
_MAX_HEADER_BYTES: Final = 1 << 24  # the schema message, whose header may hold a command line of megabytes
_MAX_METADATA_BYTES: Final = 1 << 16
_METADATA_V5: Final = 4  # MetadataVersion of Schema.fbs
_NO_HEADER: Final = "{}: cut off inside its header: no event was recorded"
SCHEMA, DICTIONARY, BATCH = 1, 2, 3  # the message kinds of Message.fbs


class Contents(NamedTuple):
    """What a message holds. Its lists are found by where they lie in the file; 0: there is none."""

    rows: int = 0
    declared: int = 0  # bytes, uncompressed
    nodes: int = 0  # the list of (rows, nulls) of each column
    buffers: int = 0  # the list of (start, length) of each buffer, counted from the message's body
    compressed: bool = False
    dictionary: int = 0  # the number of the dictionary, where it is one


class Message(NamedTuple):
    """Where a message lies in the file, and what it holds."""

    kind: int
    offset: int
    body: int  # where its header ends and its buffers begin
    end: int
    contents: Contents


@dataclass(frozen=True)
class Layout:
    """Where the messages of a trace lie."""

    messages: list[Message]  # all but the end mark
    cut: str | None  # why the file is cut off, None when it has its end mark

    @property
    def batches(self) -> list[int]:
        """The byte offset of each record batch."""
        return [message.offset for message in self.messages if message.kind == BATCH]

    @property
    def rows(self) -> int:
        """Of all batches."""
        return sum(message.contents.rows for message in self.messages if message.kind == BATCH)


class Cut(Exception):
    """The file ends inside a message."""


class Damage(Exception):
    """A message that is damaged."""


def scan(file: BinaryIO, size: int, path: str) -> Layout:
    """Return the layout of the trace `file` of `size` bytes, read from its start in one pass that keeps one message.

    Raises:
        TraceError: empty, not an Arrow stream, or damaged before its last message.
    """
    _check_start(file, size, path)
    messages: list[Message] = []
    batches = rows = declared = offset = 0
    while True:
        try:
            message = read_message(file, offset, size)
        except Cut:
            if offset == 0:
                raise TraceError(_NO_HEADER.format(path)) from None
            _check_is_last(file, offset, path)
            where = f"inside the message at byte {offset}" if offset < size else "without its end mark"
            return Layout(messages, f"the file ends {where}: the recorder was killed, or is still recording")
        except Damage as error:
            raise TraceError(f"{path}: damaged at byte {offset}, after batch {batches}: {error}") from None
        if message is None:
            _check_end(offset, size, path)
            return Layout(messages, None)
        if (message.kind == SCHEMA) != (offset == 0):
            raise TraceError(f"{path}: damaged at byte {offset}, after batch {batches}: the schema is not where it belongs")
        declared += message.contents.declared
        rows += message.contents.rows if message.kind == BATCH else 0
        if declared > FREE_BYTES + MAX_RATIO * size or rows > FREE_ROWS + size:
            grown = f"{declared:,} bytes, {rows:,} rows"
            raise TraceError(f"{path}: damaged at byte {offset}, after batch {batches}: it would grow to {grown}")
        messages.append(message)
        batches += message.kind == BATCH
        offset = message.end


def first_message(file: BinaryIO, size: int, path: str) -> bytes:
    """Return the first message of the trace `file` of `size` bytes, which holds its schema and its header.

    Raises:
        TraceError: empty, not an Arrow stream, cut off inside its header, or damaged there.
    """
    _check_start(file, size, path)
    try:
        message = read_message(file, 0, size)
    except Cut:
        raise TraceError(_NO_HEADER.format(path)) from None
    except Damage as error:
        raise TraceError(f"{path}: damaged at byte 0: {error}") from None
    if message is None or message.kind != SCHEMA:
        raise TraceError(f"{path}: damaged at byte 0: the schema is not where it belongs")
    file.seek(0)
    return file.read(message.end)


def _check_start(file: BinaryIO, size: int, path: str) -> None:
    if size == 0:
        raise TraceError(f"{path}: the file is empty", "the recorder had not begun, or the disk was full")
    file.seek(0)
    if not _CONTINUATION.startswith(file.read(4)):
        raise TraceError(f"{path}: not a trace of forktrace", "forktrace record writes one: forktrace record -- COMMAND")


def _check_end(offset: int, size: int, path: str) -> None:
    if offset + len(_END_MARK) != size:
        raise TraceError(f"{path}: damaged at byte {offset}: something follows the end mark")


def _check_is_last(file: BinaryIO, offset: int, path: str) -> None:
    """Raise when another message follows the one that seems to be cut off: then its length is wrong."""
    file.seek(offset)
    rest = file.read(2 * MAX_BATCH_BYTES)
    for start in _continuations(rest):
        try:
            length = struct.unpack_from("<i", rest, start + 4)[0]
            if 0 < length <= _MAX_METADATA_BYTES and _parse(rest[start + 8 : start + 8 + length])[0] in (DICTIONARY, BATCH):
                raise TraceError(
                    f"{path}: damaged at byte {offset}: the message there reaches into the next at {offset + start}"
                )
        except (struct.error, Damage):
            continue


def _continuations(rest: bytes) -> Iterator[int]:
    start = rest.find(_CONTINUATION, 8)
    while start >= 0:
        if start % 8 == 0:
            yield start
        start = rest.find(_CONTINUATION, start + 1)


def read_message(file: BinaryIO, offset: int, size: int) -> Message | None:
    """Return the message at `offset`, or None for the end mark."""
    file.seek(offset)
    prefix = _read_exactly(file, 8, offset, size)
    length = struct.unpack_from("<i", prefix, 4)[0]
    if prefix[:4] != _CONTINUATION:
        raise Damage("no message begins there")
    if length == 0:
        return None
    if not 0 < length <= (_MAX_METADATA_BYTES if offset else _MAX_HEADER_BYTES):
        raise Damage(f"a message header of {length} bytes")
    metadata = _read_exactly(file, length, offset + 8, size)
    try:
        kind, table, body_bytes = _parse(metadata)
        if not 0 <= body_bytes <= MAX_BATCH_BYTES:
            raise Damage(f"a message of {body_bytes} bytes")
        body = _read_exactly(file, body_bytes, offset + 8 + length, size)
        holds = _measure(metadata, kind, table, body, offset + 8)
    except struct.error:
        raise Damage("a message header that points outside itself") from None
    return Message(kind, offset, offset + 8 + length, offset + 8 + length + body_bytes, holds)


def _read_exactly(file: BinaryIO, length: int, offset: int, size: int) -> bytes:
    data = file.read(length) if offset + length <= size else b""
    if len(data) != length:
        raise Cut
    return data


def _parse(metadata: bytes) -> tuple[int, int, int]:
    """Return the kind of a message, the place of its table in `metadata`, and the length of its body in bytes."""
    root = _unpack("<I", metadata, 0)
    version, kind, table, body = (_field(metadata, root, number) for number in range(4))
    if not version or _unpack("<h", metadata, version) != _METADATA_V5 or not kind or not table:
        raise Damage("a message that is not one of Arrow's")
    return _unpack("<B", metadata, kind), _pointed(metadata, table), _unpack("<q", metadata, body) if body else 0


def custom_metadata(header: bytes) -> dict[bytes, bytes]:
    """Return the custom metadata in a message's header, which begins with its prefix of 8 bytes and is verified to be one."""
    metadata = header[8:]
    vector = _field(metadata, _unpack("<I", metadata, 0), 4)
    if not vector:
        return {}
    vector = _pointed(metadata, vector)
    tables = [_pointed(metadata, vector + 4 + 4 * number) for number in range(_unpack("<I", metadata, vector))]
    return {_string(metadata, _field(metadata, table, 0)): _string(metadata, _field(metadata, table, 1)) for table in tables}


def _string(metadata: bytes, place: int) -> bytes:
    start = _pointed(metadata, place) if place else 0
    return metadata[start + 4 : start + 4 + _unpack("<I", metadata, start)] if place else b""


def _measure(metadata: bytes, kind: int, table: int, body: bytes, start: int) -> Contents:
    """Return what the message holds, once that is within bounds; its header `metadata` begins at `start` in the file."""
    if kind == SCHEMA:
        return Contents()
    if kind == BATCH:
        return _held(metadata, table, body, start)
    if kind == DICTIONARY:
        number, words = _dictionary(metadata, table)
        return _held(metadata, words, body, start)._replace(dictionary=number)
    raise Damage(f"a message of kind {kind}")


def _dictionary(metadata: bytes, table: int) -> tuple[int, int]:
    """Return the number of a dictionary, and the place of the table of its batch of words."""
    number, words, delta = (_field(metadata, table, field) for field in range(3))
    if (delta and _unpack("<B", metadata, delta)) or not words:
        raise Damage("a dictionary that continues another")
    return _unpack("<q", metadata, number) if number else 0, _pointed(metadata, words)


def _held(metadata: bytes, table: int, body: bytes, start: int) -> Contents:
    """Return what a batch holds, by its table."""
    length, nodes, buffers, compression = (_field(metadata, table, number) for number in range(4))
    rows = _unpack("<q", metadata, length) if length else 0
    if not 0 <= rows <= MAX_ROWS:
        raise Damage(f"a batch of {rows} rows")
    nodes, buffers = (_pointed(metadata, place) if place else 0 for place in (nodes, buffers))
    declared = _declared(metadata, buffers, body, compression != 0) if buffers else 0
    if declared > MAX_BATCH_BYTES:
        raise Damage(f"a batch that would grow to {declared} bytes")
    nodes, buffers = (start + place if place else 0 for place in (nodes, buffers))
    return Contents(rows, declared, nodes, buffers, compression != 0)


def _declared(metadata: bytes, vector: int, body: bytes, compressed: bool) -> int:
    """Return the sum of the buffers' uncompressed sizes; `vector` is the place of their list in `metadata`."""
    count, total = _unpack("<I", metadata, vector), 0
    if vector + 4 + 16 * count > len(metadata):
        raise Damage("a list of buffers that points outside itself")
    for start, length in struct.iter_unpack("<qq", metadata[vector + 4 : vector + 4 + 16 * count]):
        if start < 0 or length < 0 or start + length > len(body):
            raise Damage("a buffer outside its message")
        size = _unpack("<q", body, start) if compressed and length >= 8 else length
        if size < -1 or size > MAX_BATCH_BYTES:
            raise Damage(f"a buffer of {size} bytes")
        total += length if size == -1 else size
    return total


def _field(metadata: bytes, table: int, number: int) -> int:
    """Return the place of field `number` of the flatbuffer table at `table`, 0 when it is left out."""
    vtable = table - _unpack("<i", metadata, table)
    if 4 + 2 * number + 2 > _unpack("<H", metadata, vtable):
        return 0
    offset = _unpack("<H", metadata, vtable + 4 + 2 * number)
    return table + offset if offset else 0


def _pointed(metadata: bytes, place: int) -> int:
    return place + _unpack("<I", metadata, place)


def _unpack(form: str, data: bytes, place: int) -> int:
    if place < 0:
        raise struct.error
    value: int = struct.unpack_from(form, data, place)[0]
    return value
