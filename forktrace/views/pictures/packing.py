"""Columns for the script of a page: whole numbers and texts, packed into bytes, which are compressed and written as base64."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

Numbers = npt.NDArray[Any]

_LEVEL: Final = 6


class Packing:
    """Collects columns and the texts that they name.

    A number is stored as 0 where it is not known, else as 1 + 2n for n >= 0 and as -2n for n < 0. A column has as many planes
    as its largest stored number has bytes: the lowest bytes of all rows, then the next. `delta`: stored is the difference
    from the row before; `base`: from that other column.
    """

    def __init__(self) -> None:
        self.strings: list[str] = []
        self._places: dict[str, int] = {}
        self._columns: dict[str, dict[str, Any]] = {}
        self._planes: list[bytes] = []
        self._size = 0
        self._known: dict[bytes, int] = {}

    def texts(self, texts: Iterable[str]) -> Numbers:
        """Return the places of some texts in `strings`; a million that are mostly alike take half a second."""
        codes, distinct = pd.factorize(np.array(list(texts), object))
        return np.array([self._place(one) for one in distinct], np.int64)[codes]

    def _place(self, text: str) -> int:
        place = self._places.setdefault(text, len(self.strings))
        if place == len(self.strings):
            self.strings.append(text)
        return place

    def add(self, name: str, values: Numbers, *, delta: bool = False, base: str = "") -> None:
        """Add a column; NaN: not known."""
        known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(len(values), bool)
        numbers = np.where(known, values, 0).astype(np.int64)
        numbers = np.diff(numbers, prepend=0) if delta else numbers
        stored = np.where(known, np.where(numbers >= 0, 2 * numbers + 1, -2 * numbers), 0)
        planes = max(-(-int(stored.max(initial=0)).bit_length() // 8), 1)
        data = np.ascontiguousarray(stored.astype("<i8").view(np.uint8).reshape(len(stored), 8).T[:planes]).tobytes()
        about = {"at": self._at(data), "rows": len(stored), "planes": planes, "delta": delta, "base": base}
        self._columns[name] = about

    def _at(self, data: bytes) -> int:
        """Where these bytes are; those that there are already are not added again."""
        place = self._known.setdefault(hashlib.sha256(data).digest(), self._size)
        if place == self._size:
            self._planes.append(data)
            self._size += len(data)
        return place

    def base64(self, **more: Any) -> str:
        """Return the size of a JSON object in 8 bytes, the object, and behind it the planes, compressed by gzip, as base64."""
        head = json.dumps({**more, "strings": self.strings, "columns": self._columns}, separators=(",", ":")).encode()
        size = len(head).to_bytes(8, "little")
        return base64.b64encode(gzip.compress(b"".join((size, head, *self._planes)), _LEVEL, mtime=0)).decode()
