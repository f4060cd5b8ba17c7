"""Which zombies the views show, and in which order."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import numpy as np
import pandas as pd

from forktrace.analysis.once import once
from forktrace.analysis.recording import Recording
from forktrace.trace.words import NOTICEABLE_MS

_HELPER: Final = r"from (?:\w+\.)+(resource_tracker|semaphore_tracker|forkserver) import main"  # what they run with python -c
_HELPERS: Final = {
    "resource_tracker": "the resource tracker",
    "semaphore_tracker": "the semaphore tracker",
    "forkserver": "the fork server",
}


def rows(table: pd.DataFrame, *, index: bool = True) -> Iterator[Any]:
    """Yield the rows of a table as named tuples, with `Index` first: what itertuples does, in a third of its time."""
    columns: dict[Any, Any] = {"Index": table.index} if index else {}
    columns |= dict(table.items())
    yield from map(_row_of(tuple(columns)), *(values.to_numpy(object).tolist() for values in columns.values()))


@cache
def _row_of(columns: tuple[str, ...]) -> Any:
    return namedtuple("row", columns)


def first_row(table: pd.DataFrame) -> Any:
    """Return the first row of a table that has one, as `rows` does."""
    return next(rows(table.iloc[:1]))


def without_recorder(table: pd.DataFrame) -> pd.DataFrame:
    """Return lifecycles in which the command itself is no zombie: it was one for as long as forktrace took to reap it."""
    own = table["reap_cause"].eq("recorder").fillna(False).to_numpy(bool)
    if not own.any():
        return table
    return table.assign(
        zombie_ns=table["zombie_ns"].mask(own),
        zombie_ms=table["zombie_ms"].mask(own),
        own_zombie_ms=table["own_zombie_ms"].mask(own),
        zombie_open=table["zombie_open"] & ~own,
    )


def helpers(table: pd.DataFrame) -> pd.Series:
    """Return which rows of lifecycles are helpers of multiprocessing, `the resource tracker`; `<NA>`: all others."""
    codes, distinct = pd.factorize(table["argv"].where(table["exec_ns"].notna()))
    found = pd.Series(distinct, dtype="string").str.extract(_HELPER, expand=False).map(_HELPERS)
    return pd.Series(pd.array([*found, pd.NA], dtype="string")[codes], table.index)


@once
def of_program(recording: Recording) -> pd.DataFrame:
    """Return lifecycles as the views show them: without the helpers, and the command itself is no zombie."""
    table = without_recorder(recording.lifecycles())
    own = helpers(table).isna()
    return table if own.all() else table[own]


def lead(table: pd.DataFrame) -> pd.Series:
    """Return which rows of lifecycles were zombies for so long because of the program.

    Time after a process outside the recording had inherited them does not count: such as the machine's init reaps when it
    likes. Nor do helpers of multiprocessing.
    """
    lasted: pd.Series = table["own_zombie_ms"].ge(NOTICEABLE_MS)
    return lasted & ~lasted.index.isin(helpers(table[lasted]).dropna().index)


def left_by_parent(table: pd.DataFrame) -> pd.Series:
    """Return which rows of lifecycles were zombies for long until their parent ended; then a process outside reaped them."""
    return lead(table) & table["adopter_pid"].notna() & table["reaper_id"].isna() & ~table["zombie_open"]


def is_noticed(table: pd.DataFrame) -> pd.Series:
    """Return which rows of lifecycles are worth showing: zombies that lasted, and those that are still there."""
    told = without_recorder(table)
    so: pd.Series = told["zombie_ms"].ge(NOTICEABLE_MS) | told["zombie_open"]
    return so


def worst_first(table: pd.DataFrame) -> pd.DataFrame:
    """Return the zombies of lifecycles: those that `lead` first, of these the longest first."""
    zombies = table[table["zombie_ms"].notna()]
    first = lead(zombies)
    lasted_ms = zombies["own_zombie_ms"].where(first, zombies["zombie_ms"])
    order = np.lexsort((zombies["id"], -lasted_ms, ~first))
    return zombies.iloc[order]


def zombies_in(recording: Recording) -> int:
    """Return how many processes were zombies, for however short a time."""
    return int(without_recorder(recording.lifecycles())["zombie_ms"].notna().sum())


def worst(recording: Recording) -> int | None:
    """Return the id of the process to look at first: stolen, never reaped, or the longest zombie; None: there is none.

    Of those never reaped it is one whose line is known, if there is any: others are older than a recording that attached.
    """
    table = worst_first(of_program(recording))
    stolen = table["id"].isin(recording.stolen()["id"])
    left = table[table["zombie_open"]]
    first = pd.concat([table[stolen], left[left["fork_site"].notna()], left, table])["id"]
    return None if first.empty else int(first.iloc[0])
