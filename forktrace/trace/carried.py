"""What the next file of a rotation repeats: the rows that say what is known of the processes that live on.

Rows are added as they are written, and those that will not be needed are dropped time and again: what is held grows with the
processes that live, not with those that were. Nothing here imports pandas, since `record` runs this code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forktrace.trace.batches import Validity, as_carried, by_time, integers, numbers, rows_of, strings, validity
from forktrace.trace.events import COLUMNS, KINDS

FEWEST: Final = 8192  # rows, before some are dropped,
MOST_BATCHES: Final = 200  # or batches: one of a few rows takes the memory of a hundred
_PART: Final = 1 << 14  # rows of one batch
_PLACE: Final = ("call", "target", "flags", "result", "stack", "stack_status")  # with who waits
_ONCE: Final = ("runtime", "source")

Ints = npt.NDArray[np.int64]
_IsGone = Callable[[tuple[int, int]], bool] | None


class Carried:
    """Collects the rows that the next file repeats.

    Attributes:
        processes: how many processes these rows are about
    """

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._most = FEWEST
        self.processes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Add what was written."""
        self._batches.append(batch)
        self._rows += batch.num_rows
        if self._rows > self._most or len(self._batches) > MOST_BATCHES:
            self.drop()

    def drop(self, is_gone: _IsGone = None) -> None:
        """Drop rows that will not be repeated; `is_gone` tells of a process (number, start) whether its release was lost."""
        rows = _Rows(by_time(self._batches))
        self._batches = [rows.kept(is_gone)] if self._rows else []
        self.processes = rows.living
        self._rows = sum(batch.num_rows for batch in self._batches)
        self._most = max(FEWEST, 2 * self._rows)

    def parts(self) -> Iterator[pa.RecordBatch]:
        """Yield what is to be repeated, marked so."""
        table = by_time(self._batches)
        for start in range(0, len(table), _PART):
            yield as_carried(rows_of(table, np.arange(start, min(start + _PART, len(table)))))


class _Rows:
    """Rows in time order, and which of them are needed."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._kind = integers(table["kind"])[0].astype(np.int64)
        self._time_ns = integers(table["time_ns"])[0]
        self._who, (self._subject, self._actor) = self._processes(("pid", "start_ns"), ("by_pid", "by_start_ns"))
        self.living = 0

    def _is(self, *kinds: str) -> Validity:
        found: Validity = np.isin(self._kind, [KINDS.index(kind) for kind in kinds])
        return found

    def _number(self, name: str) -> Ints:
        values, valid = integers(self._table[name])
        return np.where(valid, values, -1).astype(np.int64)

    def kept(self, is_gone: _IsGone) -> pa.RecordBatch:
        """Return the rows that are needed."""
        subject, actor = self._subject, self._actor
        forked = np.zeros(len(self._who), np.bool_)
        forked[subject[self._is("fork")]] = True
        released = np.zeros(len(self._who), np.bool_)
        released[subject[self._is("reap", "autoreap")]] = True
        if is_gone:
            places = np.flatnonzero(forked & ~released).tolist()
            released[[place for place in places if is_gone(self._identity(place))]] = True
        lives = forked & ~released
        self.living = int(lives.sum())
        wanted = self._is("fork", "exit", "zombie") & lives[subject]
        wanted |= self._is(*_ONCE)
        for kind in ("exec", "signal", "oom"):
            wanted[_last(np.flatnonzero(self._is(kind) & lives[subject]), subject)] = True
        waits = np.flatnonzero(self._is("waits") & lives[actor])
        wanted[_last(waits, actor, *(self._number(name) for name in _PLACE))] = True
        programs = self._programs(lives)
        losses = self._losses(lives)
        wanted[list(losses)] = True
        return self._batch(np.flatnonzero(wanted), programs, losses)

    def _processes(self, *columns: tuple[str, str]) -> tuple[Ints, list[Ints]]:
        """The distinct processes that rows name in some roles, and which of them each row names in each."""
        named = np.concatenate([np.stack([self._number(name) for name in pair], axis=1) for pair in columns])
        distinct, which = np.unique(named, axis=0, return_inverse=True)
        return distinct, list(which.reshape(len(columns), -1))

    def _identity(self, place: int) -> tuple[int, int]:
        return int(self._who[place][0]), int(self._who[place][1])

    def _programs(self, lives: Validity) -> dict[int, int]:
        """Row of a fork -> the row that has its program, where neither the child's nor the forker's own rows repeat that."""
        subject, actor = self._subject, self._actor
        named = np.flatnonzero(self._is("fork", "exec") & validity(self._table["argv"].chunk(0)))
        last = _last(named, subject)
        last_of = np.full(len(lives), -1)
        last_of[subject[last]] = last
        forks = np.flatnonzero(self._is("fork") & lives[subject])
        forks = forks[last_of[subject[forks]] < 0]
        kept = lives[actor[forks]] & (last_of[actor[forks]] >= 0) & (last_of[actor[forks]] <= forks)
        fork_of = np.full(len(lives), -1)
        fork_of[subject[self._is("fork")]] = np.flatnonzero(self._is("fork"))
        found = {int(fork): self._program_before(int(fork), named, fork_of) for fork in forks[~kept]}
        return {fork: row for fork, row in found.items() if row >= 0}

    def _program_before(self, fork: int, named: Ints, fork_of: Ints) -> int:
        """The row that has the program of the forker at a fork, which may be that of its own forker; -1: it is not known."""
        while fork >= 0:
            of_forker = named[(self._subject[named] == self._actor[fork]) & (named <= fork)]
            if len(of_forker):
                return int(of_forker[-1])
            before = int(fork_of[self._actor[fork]])
            fork = before if before < fork else -1
        return -1

    def _losses(self, lives: Validity) -> dict[int, int]:
        """The last row of each kind of loss -> how much was lost in all; {}: all processes that a loss may concern are gone."""
        rows = np.flatnonzero(self._is("lost"))
        if not len(rows) or not (self._who[lives][:, 1] <= self._time_ns[rows[-1]]).any():
            return {}
        totals: dict[str | None, tuple[int, int]] = {}
        for row, number in zip(rows.tolist(), self._number("count")[rows].tolist(), strict=True):
            what = self._table["detail"][row].as_py()
            totals[what] = row, totals.get(what, (0, 0))[1] + number
        return dict(totals.values())

    def _batch(self, rows: Ints, programs: dict[int, int], counts: dict[int, int]) -> pa.RecordBatch:
        """These rows, with programs and counts put in."""
        batch = rows_of(self._table, rows)
        columns = dict(zip(COLUMNS, batch.columns, strict=True))
        if programs:
            texts = batch["argv"].to_pylist()
            for fork, row in programs.items():
                texts[int(np.searchsorted(rows, fork))] = self._table["argv"][row].as_py()
            columns["argv"] = strings(texts)
        if counts:
            values, valid = (part.copy() for part in integers(pa.chunked_array([batch["count"]])))
            places = np.searchsorted(rows, list(counts))
            values[places], valid[places] = list(counts.values()), True
            columns["count"] = numbers("int64", np.where(valid, values, 0), valid)
        return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)


def _last(rows: Ints, *keys: Any) -> Ints:
    """The last of `rows` with each combination of `keys`, which are of all rows."""
    if not len(rows):
        return rows
    columns = np.stack([key[rows] for key in keys], axis=1)[::-1]
    _, first = np.unique(columns, axis=0, return_index=True)
    return np.sort(rows[::-1][first])
