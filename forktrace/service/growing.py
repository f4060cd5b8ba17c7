"""Reads a trace while it is written: each look takes the complete messages since the last one.

What is taken has passed the checks of `stream.read`. Of what was read only the last dictionaries are kept, which later batches
may still use.
"""

from __future__ import annotations

import os
from typing import Any, Final

import pyarrow as pa

from forktrace.errors import TraceError
from forktrace.trace.batches import carried_over
from forktrace.trace.checks import fault_of
from forktrace.trace.reading.ipc_messages import (
    BATCH,
    DICTIONARY,
    FREE_BYTES,
    SCHEMA,
    Cut,
    Damage,
    Layout,
    Message,
    read_message,
)
from forktrace.trace.stream import checked, open_file, open_stream, printable_header

MOST_ROWS: Final = 1 << 16  # of one look


class Growing:
    """A trace that is still being written.

    Attributes:
        path: its file
        header: what was known at its start; {} until that is in the file
        ended: its end mark was read: no more will come
        offset: up to which byte it was read
        is_behind: the last look stopped at its bound, and there may be more

    Raises:
        PermissionMissing, ForktraceError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.header: dict[str, Any] = {}
        self.ended = self.is_behind = False
        self._file = open_file(self.path)
        self.offset = 0
        self._batches = 0
        self._schema = b""
        self._words: dict[int, bytes] = {}  # the last message of each dictionary

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> list[pa.RecordBatch]:
        """Return the batches that have come, in file order: those of `MOST_ROWS` rows or a little more; [] when none has.

        Raises:
            TraceError: not a trace, damaged, or shorter than it was.
        """
        known = dict(self._words)
        messages = self._messages()
        if not messages or not self._schema:
            return []
        data = self._schema + b"".join([*known.values(), *(self._bytes(one) for one in messages)])
        header, stream = open_stream(pa.BufferReader(data), self.path)
        self.header = self.header or printable_header(header)
        batches = list(checked(stream, Layout(messages, None), self.path, header["format"]))
        self._batches += len(batches)
        if batches and (fault := fault_of(carried_over(pa.Table.from_batches(batches))[0])):
            raise TraceError(f"{self.path}: damaged before byte {self.offset}: {fault}")
        return batches

    def _messages(self) -> list[Message]:
        """The next complete messages, as many as a look may take; the schema is kept and left out."""
        found: list[Message] = []
        rows = declared = 0
        self.is_behind = False
        while message := self._next():
            self.offset = message.end
            rows += message.contents.rows if message.kind == BATCH else 0
            declared += message.contents.declared
            if message.kind == SCHEMA:
                self._schema = self._bytes(message)
                continue
            if message.kind == DICTIONARY:
                self._words[message.contents.dictionary] = self._bytes(message)
            found.append(message)
            self.is_behind = rows >= MOST_ROWS or declared >= FREE_BYTES
            if self.is_behind:
                break
        return found

    def _next(self) -> Message | None:
        """The next message, if it is whole."""
        if self.ended:
            return None
        size = os.fstat(self._file.fileno()).st_size
        if size < self.offset:
            raise TraceError(f"{self.path}: it is shorter than it was: {size:,} bytes, and {self.offset:,} were read")
        try:
            message = read_message(self._file, self.offset, size)
        except Cut:
            return None
        except Damage as error:
            raise TraceError(f"{self.path}: damaged at byte {self.offset}, after batch {self._batches}: {error}") from None
        self.ended = message is None
        if message and (message.kind == SCHEMA) != (self.offset == 0):
            raise TraceError(f"{self.path}: damaged at byte {self.offset}: the schema is not where it belongs")
        return message

    def _bytes(self, message: Message) -> bytes:
        self._file.seek(message.offset)
        return self._file.read(message.end - message.offset)
