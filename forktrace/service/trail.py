"""The files of a recording, one after the other, as they grow: one file, or those of a rotation."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final

import numpy as np
import pyarrow as pa

from forktrace.service.growing import Growing
from forktrace.trace.batches import SCHEMA, carried_over, integers
from forktrace.trace.events import KINDS
from forktrace.trace.rotation import paths

_NUMBERED: Final = re.compile(r"(.+)\.([0-9]{1,18})\.arrows", re.DOTALL)


class Trail:
    """Reads a recording from the file `path` on. What a file repeats of those before it is left out, and so is their end.

    Attributes:
        path, header: of the file that is read now; the header is {} until it is there
        is_behind: there may be more than the last look took

    Raises:
        PermissionMissing, ForktraceError: the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        self._trace = Growing(path)
        self._is_first, self._goes_on = True, False
        self.header: dict[str, Any] = {}
        self.is_behind = False

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
        self.is_behind = self._trace.is_behind
        if self._trace.ended and self._goes_on and (following := _next_file(self.path)):
            self._trace.close()
            self._trace = Growing(following)
            self._is_first, self._goes_on, self.is_behind = False, False, True
        return batches

    def _own(self, table: pa.Table) -> list[pa.RecordBatch]:
        """The rows that no file before had, without the end of a file that goes on in the next."""
        table, repeated = carried_over(table)
        ends = np.flatnonzero(integers(table["kind"])[0] == KINDS.index("end"))
        turns = ends[[_continues(text) for text in table["detail"].take(pa.array(ends)).to_pylist()]]
        self._goes_on = self._goes_on or len(turns) > 0
        left_out = repeated & (not self._is_first)
        left_out[turns] = True
        found: list[pa.RecordBatch] = (table.filter(pa.array(~left_out)) if left_out.any() else table).to_batches()
        return found


def _continues(totals: str) -> bool:
    """Whether the end of a file says that there is another; that it is an object was checked."""
    return json.loads(totals).get("continues") is True


def _next_file(path: str) -> str | None:
    """The file of a rotation that comes after one, by its number; those between may have been removed. None: not there yet."""
    folder, name = os.path.split(path)
    own = _NUMBERED.fullmatch(name)
    later: dict[int, str] = {}
    for other in paths(folder or "."):
        found = _NUMBERED.fullmatch(os.path.basename(other))
        if own and found and found[1] == own[1] and int(found[2]) > int(own[2]):
            later[int(found[2])] = other
    return later[min(later)] if later else None
