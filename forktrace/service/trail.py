"""The files of a recording, one after the other, as they grow: one file, or those of a rotation."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pyarrow as pa

from forktrace.errors import NoFile
from forktrace.service.growing import Growing
from forktrace.trace.batches import SCHEMA, carried_over, integers
from forktrace.trace.events import KINDS
from forktrace.trace.files import named_alike


class Trail:
    """Reads a recording from the file `path` on. What a file repeats of those before it is left out, and so is their end.

    Where files were removed before they were read, it goes on with the oldest that is there, and with what that one repeats.

    Attributes:
        path, header: of the file that is read now; the header is {} until it is there
        is_behind: there may be more than the last look took
        begins_anew: what comes next is of a file before which others were missed, and says of all processes what is known

    Raises:
        PermissionMissing, ForktraceError: the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._trace = Growing(path)
        self._wants_repeated, self._goes_on = True, False
        self.header: dict[str, Any] = {}
        self.is_behind = self.begins_anew = False

    @property
    def path(self) -> str:
        """The file that is read now."""
        return self._trace.path

    def read(self) -> list[pa.RecordBatch]:
        """Return the batches that have come.

        Raises:
            TraceError: a file is damaged.
        """
        batches = self._own(pa.Table.from_batches(self._trace.read(), SCHEMA))
        self.header = self._trace.header or self.header
        self.is_behind, self.begins_anew = self._trace.is_behind, False
        if self._trace.ended and self._goes_on:
            self._turn()
        return batches

    def _turn(self) -> None:
        """Go on with the next file, if it is there."""
        found = _opened_after(self.path)
        if found is None:
            return
        ahead, following = found
        self.begins_anew = self._wants_repeated = ahead > 1
        self._trace.close()
        self._trace = following
        self._goes_on, self.is_behind = False, True

    def _own(self, table: pa.Table) -> list[pa.RecordBatch]:
        """The rows that no file before had, without the end of a file that goes on in the next.

        A loss is never taken again: it says how much was lost in all files.
        """
        table, repeated = carried_over(table)
        kind = integers(table["kind"])[0]
        ends = np.flatnonzero(kind == KINDS.index("end"))
        turns = ends[[_continues(text) for text in table["detail"].take(pa.array(ends)).to_pylist()]]
        self._goes_on = self._goes_on or len(turns) > 0
        left_out = repeated & ((kind == KINDS.index("lost")) | (not self._wants_repeated))
        left_out[turns] = True
        found: list[pa.RecordBatch] = (table.filter(pa.array(~left_out)) if left_out.any() else table).to_batches()
        return found


def _continues(totals: str) -> bool:
    """Whether the end of a file says that there is another; that it is an object was checked."""
    return json.loads(totals).get("continues") is True


def _opened_after(path: str) -> tuple[int, Growing] | None:
    """The next file of a rotation that is there, and how much later it is; None: there is none yet."""
    for ahead, other in named_alike(path):
        if ahead > 0:
            with contextlib.suppress(NoFile):  # it was removed meanwhile
                return ahead, Growing(other)
    return None
