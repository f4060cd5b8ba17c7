"""The rows of a trace as numpy columns, and the processes that they name: every other table starts here.

A process is its position in fork order (`id`). `NONE` (-1) stands for "nothing said" in every integer array of this room and
for "outside the recording" in every array of ids; the tables that leave the room say `<NA>` instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from forktrace.errors import TraceError
from forktrace.trace import events
from forktrace.trace.batches import Values, integers
from forktrace.trace.stream import Trace

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

NONE: Final = -1
NEVER: Final = int(np.iinfo(np.int64).max)  # a moment that has not come
# Events carry the clock that BPF reads, a start is the kernel's own reading of it. The first may lag by microseconds while
# the time keeper corrects its rate (ktime_get_mono_fast_ns documents it); a process cannot do anything within its first ms
# that this would hide.
CLOCK_TOLERANCE_NS: Final = 1_000_000

REAP_CALLS: Final = (*events.WAIT_CALLS, "autoreap", "kernel", "unseen")  # the first to apply is believed
_NAMED: Final = ("exec", "exit", "zombie", "reap", "autoreap", "signal")  # kinds whose pid is a followed process


class Latest:
    """Finds, among things that have a key and a time, the last of a key up to a time, or the first from it on."""

    def __init__(self, key: Ints, time_ns: Ints) -> None:
        by_time = np.argsort(time_ns, kind="stable")
        rank = np.empty(len(key), np.int64)
        rank[by_time] = np.arange(1, len(key) + 1)
        place = key * (len(key) + 1) + rank
        self._order = np.argsort(place)
        self._place, self._key, self._times = place[self._order], key[self._order], time_ns[by_time]

    def until(self, key: Ints, time_ns: Ints) -> Ints:
        """Return the position of the last thing of each `key` at or before `time_ns`; NONE where there is none."""
        asked = key * (len(self._key) + 1) + np.searchsorted(self._times, time_ns, "right")
        return self._take(np.searchsorted(self._place, asked, "right") - 1, key)

    def since(self, key: Ints, time_ns: Ints) -> Ints:
        """Return the position of the first thing of each `key` at or after `time_ns`; NONE where there is none."""
        asked = key * (len(self._key) + 1) + np.searchsorted(self._times, time_ns, "left")
        return self._take(np.searchsorted(self._place, asked, "right"), key)

    def _take(self, found: Ints, key: Ints) -> Ints:
        if not len(self._key):
            return np.full(len(key), NONE)
        inside = np.clip(found, 0, len(self._key) - 1)
        good = (found == inside) & (self._key[inside] == key) & (key != NONE)
        return np.where(good, self._order[inside], NONE)


class Log:
    """The rows of `trace` in time order with every process in them resolved to its id.

    Attributes:
        time_ns, kind: of each row; `kind` is an index into `events.KINDS`, of one byte
        id, by_id, parent_id, adopter_id: the processes of each row
        pid, fork_ns, fork_row: of each process; `fork_row` is NONE when its fork was lost
        exit_row, zombie_row, release_row: of each process, its exit, first zombie row, and the reap or autoreap to believe
        gone_ns: of each process, when it was released; NEVER while it was not
        carried: which rows are repeated from earlier files of a rotation
        lossy: some rows may be missing (lost, or the file was cut off)

    Raises:
        TraceError: an event precedes its process's fork, or has none, in a trace that lost nothing.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self._columns: dict[str, tuple[Values, Flags]] = {}
        self.time_ns, self.kind, self.carried = self.numbers("time_ns"), self._column("kind")[0], trace.carried
        self.end_ns = int(self.time_ns[-1]) if len(self.time_ns) else trace.header["start_ns"]
        lost = self.rows("lost")
        self.lossy = trace.cut is not None or bool((self.at("count", lost) != 0).any())
        self._find_processes()
        self._find_subjects()
        self._find_releases()
        self.by_id = self._actors("by")
        self.parent_id = self._actors("parent")
        self.adopter_id = self._actors("adopter")
        self._check_parents()
        self._check_order()

    def numbers(self, name: str) -> Ints:
        """Return an integer column, of any other the indexes into its dictionary; NONE where the row says nothing.

        The dictionary of an enumeration is the whole of it, as `events.COLUMNS[name]` has it. `at` takes less of a column.
        """
        values, valid = self._column(name)
        return (values if valid.all() else np.where(valid, values, NONE)).astype(np.int64, copy=False)

    def _column(self, name: str) -> tuple[Values, Flags]:
        """The values of an integer column, or the indexes of any other, as they lie in the trace, and where there are any."""
        if name not in self._columns:
            self._columns[name] = integers(self.trace.table.column(name))
        return self._columns[name]

    def texts(self, name: str, rows: Ints) -> pd.Series:
        """Return what a text column says in `rows`, as a string column; `<NA>` for row NONE and where nothing is said."""
        return texts(self._taken(name, rows).to_pandas(types_mapper={pa.string(): pd.StringDtype()}.get))

    def distinct(self, name: str, rows: Ints) -> tuple[Ints, list[str]]:
        """Return the distinct texts of a column in `rows`, and which of them each row says; NONE as in `texts`.

        Not pandas.factorize, which compares texts up to their first NUL only, before pandas 3.
        """
        encoded = self._taken(name, rows).combine_chunks().dictionary_encode()
        return encoded.indices.cast(pa.int64()).fill_null(NONE).to_numpy(), encoded.dictionary.to_pylist()

    def _taken(self, name: str, rows: Ints) -> pa.ChunkedArray:
        column = self.trace.table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        return column.take(pa.array(rows, pa.int64(), mask=rows == NONE))

    def present(self, name: str) -> Flags:
        """Return where a column says something."""
        return np.asarray(pc.is_valid(self.trace.table.column(name)).to_numpy())

    def is_kind(self, *kinds: str) -> Flags:
        """Return which rows are of one of these kinds."""
        wanted = np.zeros(len(events.KINDS), bool)
        wanted[[events.KINDS.index(kind) for kind in kinds]] = True
        return wanted[self.kind]

    def rows(self, *kinds: str) -> Ints:
        """Return the positions of the rows of these kinds, in time order."""
        return np.flatnonzero(self.is_kind(*kinds))

    def at(self, name: str, rows: Ints) -> Ints:
        """Return the integers of a column, or its indexes as `numbers`, in `rows`; NONE for row NONE."""
        values, valid = self._column(name)
        if not len(values):
            return np.full(len(rows), NONE)
        return np.where((rows != NONE) & valid[rows], values[rows], NONE).astype(np.int64, copy=False)

    def has_origin(self, origin: str) -> Flags:
        """Return which processes came to be followed in this way, one of `events.ORIGINS`."""
        so: Flags = self.at("origin", self.fork_row) == events.ORIGINS.index(origin)
        return so

    @cached_property
    def totals(self) -> dict[str, Any]:
        """What the last row says of the whole recording (docs/trace-format.md); {} where there is none.

        That it is an object was checked when it was read. Numbers of hundreds of digits are left out.
        """
        ends = self.texts("detail", self.rows("end"))
        found: dict[str, Any] = json.loads(ends.iloc[-1]) if len(ends) else {}
        return {key: value for key, value in found.items() if not isinstance(value, int) or abs(value) <= NEVER}

    @property
    def continues(self) -> bool:
        """Whether the recording goes on in the next file of a rotation."""
        return self.totals.get("continues") is True

    @cached_property
    def still(self) -> tuple[int, Ints, Flags]:
        """What the kernel still had as the recording was about to end: when that was (0: not known), who, and who had ended."""
        still = self.totals.get("still")
        try:
            at_ns, found = int(still["at_ns"]), np.array(still["processes"], np.int64).reshape(-1, 3)  # type: ignore[index]
        except (TypeError, KeyError, ValueError, OverflowError):
            return 0, np.empty(0, np.int64), np.empty(0, bool)
        known = self._exact(found[:, 0], found[:, 1])
        return at_ns, known[known != NONE], found[known != NONE, 2] != 0

    def _find_processes(self) -> None:
        """One process for each (pid, start) of a fork row; in a lossy trace, of any row about a followed process."""
        pid, start_ns = self.numbers("pid"), self.numbers("start_ns")
        forks = self.rows("fork")
        forks = forks[(pid[forks] != NONE) & (start_ns[forks] != NONE)]
        others = np.flatnonzero(self.is_kind(*_NAMED) & (start_ns != NONE) & (pid != NONE)) if self.lossy else forks[:0]
        rows = np.concatenate([forks, others])
        pid, start_ns, fork_row = pid[rows], start_ns[rows], np.where(self.is_kind("fork")[rows], rows, NONE)
        if self.lossy:  # who forks a followed process is followed
            made = forks[self.at("origin", forks) == events.ORIGINS.index("forked")]
            made = made[(self.at("by_pid", made) != NONE) & (self.at("by_start_ns", made) != NONE)]
            pid = np.concatenate([pid, self.at("by_pid", made)])
            start_ns = np.concatenate([start_ns, self.at("by_start_ns", made)])
            fork_row = np.concatenate([fork_row, np.full(len(made), NONE)])
        rows = np.concatenate([rows, np.full(len(fork_row) - len(rows), len(self.time_ns))])
        once = first_of_each(pid, start_ns)  # a fork, if there is one
        once = once[np.lexsort((rows[once], start_ns[once]))]
        self.pid, self.fork_ns, self.fork_row = pid[once], start_ns[once], fork_row[once]
        self.count = len(once)
        self._started = Latest(self.pid, self.fork_ns)

    def _find_subjects(self) -> None:
        """Who each row is about. A reap comes when the number may be in use again, so it goes by the exits."""
        pid, start_ns = self.numbers("pid"), self.numbers("start_ns")
        self.id = self._named(pid, start_ns, lambda rows: self._started_by(pid[rows], self.time_ns[rows]))
        self.exit_row = first_rows(self.id, self.rows("exit"), self.count)
        exit_ns = pick(self.time_ns, self.exit_row, NEVER)
        exited = Latest(self.pid, exit_ns)
        unnamed = np.flatnonzero(self.is_kind("reap", "autoreap") & (start_ns == NONE))
        found = exited.until(pid[unnamed], self.time_ns[unnamed])
        self.id[unnamed] = np.where(found == NONE, self.id[unnamed], found)
        self.zombie_row = first_rows(self.id, self.rows("zombie"), self.count)

    def _find_releases(self) -> None:
        """The row that released each process: a wait is believed first, an `unseen` reap last; of equals the first."""
        rows = self.rows("reap", "autoreap")
        rows = rows[self.id[rows] != NONE]
        trust = np.array([REAP_CALLS.index(call) if call in REAP_CALLS else len(REAP_CALLS) for call in events.CALLS])
        rank = np.where(self.is_kind("autoreap")[rows], REAP_CALLS.index("autoreap"), trust[self.at("call", rows)])
        rank = np.where(rank < REAP_CALLS.index("autoreap"), 0, rank)
        self.release_row = first_rows(self.id, rows[np.argsort(rank, kind="stable")], self.count)
        self.gone_ns = pick(self.time_ns, self.release_row, NEVER)

    def _actors(self, role: str) -> Ints:
        """The process that has `role` in each row, which may be one outside that has the number of one long gone."""
        pid, start_ns = self.numbers(f"{role}_pid"), self.numbers(f"{role}_start_ns")

        def guess(rows: Ints) -> Ints:
            found = self._started_by(pid[rows], self.time_ns[rows])
            return np.where(pick(self.gone_ns, found, NEVER) < self.time_ns[rows], NONE, found)

        return self._named(pid, start_ns, guess)

    def _named(self, pid: Ints, start_ns: Ints, guess: Callable[[Ints], Ints]) -> Ints:
        """The process of each number and start; `guess(rows)` says it for the rows that have a number alone."""
        found = np.full(len(pid), NONE)
        exact, others = np.flatnonzero(start_ns != NONE), np.flatnonzero((start_ns == NONE) & (pid != NONE))
        found[exact] = self._exact(pid[exact], start_ns[exact])
        found[others] = guess(others)
        return found

    def _started_by(self, pid: Ints, time_ns: Ints) -> Ints:
        found = self._started.until(pid, time_ns)
        late = np.flatnonzero(found == NONE)
        found[late] = self._started.until(pid[late], time_ns[late] + CLOCK_TOLERANCE_NS)
        return found

    def _exact(self, pid: Ints, start_ns: Ints) -> Ints:
        found = np.searchsorted(self.fork_ns, start_ns)  # the first that started then, and hardly ever there is another
        again = np.flatnonzero(pick(self.pid, np.minimum(found, self.count - 1)) != pid)
        found[again] = self._started.until(pid[again], start_ns[again])
        return np.where(pick(self.fork_ns, np.minimum(found, self.count - 1)) == start_ns, found, NONE)

    def _check_parents(self) -> None:
        """Who makes a process, and its parents, are older than it is; so nobody descends from himself."""
        for role, ids in (("by", self.by_id), ("parent", self.parent_id)):
            rows = self.rows("fork", "exit", "zombie") if role == "parent" else self.rows("fork")
            younger = rows[(ids[rows] >= self.id[rows]) & (self.id[rows] != NONE)]
            named = younger[self.numbers(f"{role}_start_ns")[younger] != NONE]
            if len(named):
                row, pid = named[0], self.numbers("pid")[named[0]]
                other = self.numbers(f"{role}_pid")[row]
                raise TraceError(
                    f"{self.trace.path}: row {row}: process {pid} has a parent, {other}, that is not older than it"
                )
            ids[younger] = NONE  # a number that a process outside has had before

    def _check_order(self) -> None:
        if self.lossy:
            return
        start_ns = self.numbers("start_ns")
        early = self.time_ns + CLOCK_TOLERANCE_NS < pick(self.fork_ns, self.id)
        born_later = self._started.since(self.numbers("pid"), self.time_ns) != NONE
        nobody = (self.id == NONE) & (self.is_kind("exec", "exit", "zombie") | (start_ns != NONE) | born_later)
        wrong = np.flatnonzero(self.is_kind(*_NAMED) & (self.numbers("pid") != NONE) & (early | nobody))
        if len(wrong):
            row = wrong[0]
            what = f"{events.KINDS[self.kind[row]]} of process {self.numbers('pid')[row]} at {self.time_ns[row]} ns"
            raise TraceError(f"{self.trace.path}: row {row}: {what} comes before its fork, and nothing was lost")


def pick(values: Ints, positions: Ints, missing: int = NONE) -> Ints:
    """Return `values` at `positions`; `missing` where the position is NONE."""
    if not len(values):
        return np.full(len(positions), missing)
    return np.where(positions == NONE, missing, values[positions])


def first_rows(ids: Ints, rows: Ints, count: int) -> Ints:
    """Return for each of `count` processes the first of `rows` that is about it; `ids` is who each row is about."""
    return last_rows(ids, rows[::-1], count)


def last_rows(ids: Ints, rows: Ints, count: int) -> Ints:
    """Return for each of `count` processes the last of `rows` that is about it; NONE where there is none."""
    found = np.full(count + 1, NONE)  # the place after the last takes the rows about nobody
    found[ids[rows]] = rows
    return found[:count]


def first_of_each(*columns: Ints) -> Ints:
    """Return the positions of the first row of each distinct combination, in no particular order."""
    if not len(columns[0]):
        return np.empty(0, np.int64)
    order = np.lexsort(columns[::-1])
    changed = np.zeros(len(order), bool)
    changed[0] = True
    for column in columns:
        changed[1:] |= column[order][1:] != column[order][:-1]
    return order[changed]


def distinct_of(values: Ints) -> tuple[Ints, Ints]:
    """Return the distinct integers in order, and which of them each value is: as np.unique, which sorts all of them."""
    which, found = pd.factorize(values)
    order = np.argsort(found)
    place = np.empty(len(found), np.int64)
    place[order] = np.arange(len(found))
    return found[order], place[which]


def nullable(values: Ints, missing: int = NONE) -> pd.arrays.IntegerArray:
    """Return `values` as a pandas Int64 array; `<NA>` where they are `missing`."""
    return pd.arrays.IntegerArray(values.astype(np.int64), values == missing)


def category(codes: Ints, values: Iterable[str]) -> pd.Categorical[str]:
    """Return a pandas category of `values`; `<NA>` for code NONE, and for one that a trace says where it cannot be."""
    words = list(values)
    return pd.Categorical.from_codes(np.where(codes < len(words), codes, NONE).astype(np.int64), categories=pd.Index(words))


def texts(values: Iterable[object]) -> pd.Series:
    """Return a pandas string column of strings and `pd.NA`."""
    return pd.Series(values, dtype="string")


def chosen(codes: npt.NDArray[np.integer], values: Sequence[object]) -> pd.Series:
    """Return the pandas string column that says `values[code]`; `<NA>` for code NONE."""
    return pd.Series(texts([*values, pd.NA]).array.take(codes))  # NONE is the last


def empty_texts(rows: int) -> pd.Series:
    """Return a pandas string column that says nothing."""
    return pd.Series(pd.NA, index=range(rows), dtype="string")
