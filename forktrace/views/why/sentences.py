"""Lines with blanks, made for whole columns: what is said of processes that are alike, and what goes into the blanks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.views.zombies import rows

_BLANK: Final = re.compile("\x01([\\w+-]+)\x02")  # `printable` leaves no such character in what comes from a trace

Codes = npt.NDArray[np.int64]
Said = TypeVar("Said")


def blank(name: str) -> str:
    """Return the place of a value in a sentence."""
    return f"\x01{name}\x02"


def named(shift: int) -> str:
    """Return the place of the name of the process whose id is by `shift` larger: `name+3`."""
    return blank(f"name{shift:+d}")


def fill(sentence: str, value: Callable[[str], str]) -> str:
    """Return a sentence with its blanks filled in, those of what is filled in too."""
    return _BLANK.sub(lambda found: fill(value(found[1]), value), sentence)


class Line(NamedTuple):
    """One line: a moment (`+1.204`) or a word (`why`) in front, a text, and the source line that it is about."""

    mark: str
    text: str
    source: str | None = None
    style: str = ""


class ChainLine(NamedTuple):
    """A line, the section of the chain that it belongs to, and its moment since the target's start; NaN where it has none."""

    section: str
    since_ns: float
    line: Line

    def filled(self, value: Callable[[str], str]) -> ChainLine:
        """Return it with its blanks filled in."""
        line = self.line
        return self._replace(line=line._replace(mark=fill(line.mark, value), text=fill(line.text, value)))


Event = tuple[str | int, Line]  # with its moment, for their order: a name of MOMENTS, or ns since the target's start


def at_s(since_ns: float) -> str:
    """Return a moment since the target's start in s: `+1.204`."""
    return f"{since_ns / 1e9:+.3f}"


class PerRow(NamedTuple, Generic[Said]):
    """What is said of each row: `codes` into the `distinct` sayings."""

    codes: Codes
    distinct: Sequence[Said]

    def of(self, row: int) -> Said:
        """Return what is said of a row."""
        found: Said = self.distinct[self.codes[row]]
        return found


class RowGroups:
    """Finds the rows of `table` that are alike in some columns, so that what is said of them is made once."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table
        self._codes: dict[str, tuple[Codes, int]] = {}

    def each(self, columns: Sequence[str], said: Callable[[Any], Said]) -> PerRow[Said]:
        """Return what `said` returns of a named tuple with these columns, and no others, for each row."""
        codes, first = self._groups(columns)
        return PerRow(codes, [said(row) for row in rows(self.table[list(columns)].iloc[first], index=False)])

    def add(self, name: str, kind: type, columns: Sequence[str], said: Callable[[Any], object]) -> None:
        """Add a column of a `kind` to the table: what `said` returns of the rows, as `each` does."""
        found = self.each(columns, said)
        self.table[name] = np.array(found.distinct, kind)[found.codes]

    def _groups(self, columns: Sequence[str]) -> tuple[Codes, Codes]:
        """For each row the number of its group; for each group its first row."""
        codes = np.zeros(len(self.table), np.int64)
        for name in columns:
            more, size = self._column(name)
            codes = pd.factorize(codes * size + more)[0].astype(np.int64)
        order = np.arange(len(codes))[::-1]
        first = np.zeros(codes.max(initial=-1) + 1, np.int64)
        first[codes[order]] = order
        return codes, first

    def _column(self, name: str) -> tuple[Codes, int]:
        if name not in self._codes:
            codes, distinct = pd.factorize(self.table[name], use_na_sentinel=True)
            self._codes[name] = codes.astype(np.int64) + 1, len(distinct) + 1
        return self._codes[name]
