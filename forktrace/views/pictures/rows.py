"""The rows of a picture: in which order processes stand, what they are called, and which of the names have room."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.names import Names, name, printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.requests import start_sites
from forktrace.views.pictures.key import Rows
from forktrace.views.words import place, short_command, short_site, shorten
from forktrace.views.zombies import helpers, rows

MOST_NAME: Final = 30  # characters of a number and a name
MOST_LEVELS: Final = 10  # that are indented
_TYPED: Final = re.compile(r"\S*python[\d.]*t?( -\w+)* -c ")  # code that a line of the program typed, as multiprocessing does
_INTERPRETER: Final = re.compile(r"^(?:\S*/)?python[\d.]*t? (?=[^\s-])")


def tree_order(table: pd.DataFrame) -> Rows:
    """Return the rows of lifecycles so that children stand below their parent, those of one parent in fork order."""
    below = _children(table)
    order: list[int] = []
    stack = below[-1][::-1]
    while stack:
        order.append(stack.pop())
        stack += below[order[-1]][::-1]
    return np.array(order, np.int64)


def levels(table: pd.DataFrame) -> Rows:
    """Return how far below the first of its family that is there each row of lifecycles is."""
    below, found = _children(table), np.zeros(len(table), np.int64)
    queue = list(below[-1])
    for one in queue:
        found[below[one]] = found[one] + 1
        queue += below[one]
    return found


def _children(table: pd.DataFrame) -> list[list[int]]:
    """The rows of the children of each row; in the last place those whose parent is not there."""
    parent = pd.Index(table["id"]).get_indexer(table["parent_id"].to_numpy(np.int64, na_value=-1))
    below: list[list[int]] = [[] for _ in range(len(table) + 1)]
    for row, above in enumerate(parent.tolist()):
        below[above if above < row else -1].append(row)  # no process comes before its parent, but in a damaged trace
    return below


def row_names(recording: Recording, table: pd.DataFrame) -> list[str]:
    """Return what each process is called: its number, and its program or the line that started it."""
    names = Names(recording.whole.lifecycles())
    helper = helpers(table).tolist()
    return [
        f"{names.pid(row.id)} {_what(row, helper[number])}"
        for number, row in enumerate(rows(table.assign(started=start_sites(table))))
    ]


def _what(row: Any, helper: Any) -> str:
    if not pd.isna(helper):
        return str(helper).removeprefix("the ")
    typed = not pd.isna(row.argv) and _TYPED.match(row.argv) and not pd.isna(row.started)
    if not pd.isna(row.argv) and not pd.isna(row.exec_ns) and not typed:
        command = short_command(printable(row.argv), MOST_NAME)
        return short_command(_INTERPRETER.sub("", command, count=1), MOST_NAME - 8)
    if not pd.isna(row.started):
        return short_site(place(row.started), MOST_NAME - 8)
    return shorten(name(row.comm), MOST_NAME - 8)


def named(table: pd.DataFrame, gap: int) -> list[int]:
    """Return which rows of lifecycles have their names written, at least `gap` rows apart: parents before others."""
    parents = set(table["parent_id"].dropna().tolist())
    is_parent = table["id"].isin(parents).to_numpy()
    taken = np.zeros(len(table) + 2 * gap, bool)
    for row in (*np.flatnonzero(is_parent).tolist(), *np.flatnonzero(~is_parent).tolist()):
        if not taken[row + 1 : row + 2 * gap].any():
            taken[row + gap] = True
    return (np.flatnonzero(taken) - gap).tolist()
