"""What changed between two sides of one recording or several: figures, and rows by fork line and cause."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from forktrace.analysis.comparison.runs import Line, Run
from forktrace.analysis.comparison.statistics import FEW_RUNS, bootstrap_errors, degrees, quantile, student_t, u_test
from forktrace.analysis.log import Ints
from forktrace.analysis.recording import Recording
from forktrace.analysis.selection import span_ns
from forktrace.errors import UsageError

Floats = npt.NDArray[np.float64]

CHANCE: Final = 0.05
_LAST_WITH_MORE: Final = 2  # format that records more than the one before; 3 only adds rotations
RISING: Final = ("zombie-seconds", "max-zombie", "unreaped", "stolen", "failed-forks")  # figures that --fail-if knows
_RISE: Final = re.compile(r"(?P<name>[a-z-]+?)\+(?P<size>[0-9.]+)(?P<unit>%|ms|s|m|h)?")


class Side(NamedTuple):
    """The zombies of a row on one side: how many, seconds per 1,000 forks, quantiles (NaN: not known), those still there."""

    processes: int
    per_1000_s: float
    p50_ms: float
    p90_ms: float
    max_ms: float
    still: int


class Row(NamedTuple):
    """A fork line and a cause on both sides; `line` None: no zombie there. `sure`: chance does not explain the difference."""

    cause: str
    old_line: Line | None
    new_line: Line | None
    old: Side
    new: Side
    sure: bool


class Change(NamedTuple):
    """A figure on both sides, the median of several runs; `missing`: losses touch it, so that it is not compared."""

    name: str
    old: float
    new: float
    sure: bool
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """The figures, the rows (those that changed most first), how it was compared, and remarks."""

    figures: Sequence[Change]
    rows: Sequence[Row]
    runs: tuple[int, int]
    seed: int
    remarks: Sequence[str]

    def figure(self, name: str) -> Change:
        """Return one figure."""
        return next(one for one in self.figures if one.name == name)


def compare(old: Sequence[Recording], new: Sequence[Recording], seed: int = 0) -> Comparison:
    """Return what changed from the old recordings to the new ones.

    One recording a side: chance is estimated by a bootstrap over clearing calls, since one start clears many zombies at once.
    Several: by a U test over the figures of the runs.
    """
    sides = ([Run(one) for one in old], [Run(one) for one in new])
    rng = np.random.default_rng(seed)
    rows = _Rows(sides, rng)
    touched = _missing(sides, "zombie-seconds")
    found = [row._replace(sure=row.sure and not touched) for row in rows.rows()]
    found.sort(key=lambda row: (not row.sure, -abs(row.new.per_1000_s - row.old.per_1000_s)))
    return Comparison(_changes(sides, rows, rng), found, (len(old), len(new)), seed, _remarks(sides, touched))


def _missing(sides: tuple[Sequence[Run], Sequence[Run]], name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for side in sides for run in side for one in run.figures[name].missing))


def _remarks(sides: tuple[Sequence[Run], Sequence[Run]], touched: tuple[str, ...]) -> list[str]:
    found = [f"figures of zombies are not compared: {'; '.join(touched)}"] if touched else []
    several = max(map(len, sides)) > 1
    if several and min(map(len, sides)) < FEW_RUNS:
        found.append(f"fewer than {FEW_RUNS} runs a side: no difference can be told from chance")
    formats = {
        min(run.recording.header["format"], _LAST_WITH_MORE)
        for side in sides
        for run in side
        if "format" in run.recording.header
    }
    if len(formats) > 1:
        found.append(f"traces of formats {' and '.join(map(str, sorted(formats)))}: what one of them lacks is not compared")
    if any(run.table["fork_site"].isna().all() and len(run.table) for side in sides for run in side):
        found.append("a recording has no stacks: its processes have no lines")
    return found


def _changes(sides: tuple[Sequence[Run], Sequence[Run]], rows: _Rows, rng: np.random.Generator) -> list[Change]:
    found = []
    for name in sides[0][0].figures:
        old, new = (np.array([run.figures[name].value for run in side]) for side in sides)
        lacking = _missing(sides, name)
        if len(old) > 1 or len(new) > 1:
            sure = min(len(old), len(new)) >= FEW_RUNS and u_test(old, new, rng) < CHANCE
        else:
            sure = name == "zombie-seconds" and rows.total_is_sure
        found.append(Change(name, float(np.median(old)), float(np.median(new)), sure and not lacking, lacking))
    return found


class _Rows:
    """The zombies of all runs by row: line and cause, those of both sides matched."""

    def __init__(self, sides: tuple[Sequence[Run], Sequence[Run]], rng: np.random.Generator) -> None:
        self._sides, self._rng = sides, rng
        lines = [{line for run in side for line in _used(run)} for side in sides]
        self._old_to_new = match(*lines)
        self._keys: dict[tuple[Line, str], int] = {}
        self._codes = [[self._code(run, number == 0) for run in side] for number, side in enumerate(sides)]
        self._shown = [dict(zip(self._old_to_new.values(), self._old_to_new, strict=True)), {}]
        self.total_is_sure = False

    def _code(self, run: Run, is_old: bool) -> Ints:
        zombies = run.zombies
        lines = [self._old_to_new.get(line, line) if is_old else line for line in zombies.lines]
        pairs, place = np.unique(zombies.line * len(zombies.causes) + zombies.cause, return_inverse=True)
        keys = [(lines[pair // len(zombies.causes)], zombies.causes[pair % len(zombies.causes)]) for pair in pairs.tolist()]
        codes = [self._keys.setdefault(key, len(self._keys)) for key in keys]
        return np.array(codes, np.int64)[place] if codes else np.empty(0, np.int64)

    def rows(self) -> list[Row]:
        """Return the rows, in no particular order."""
        sure = self._sure()
        parts = [self._parts(number) for number in (0, 1)]
        found = []
        for (line, cause), code in self._keys.items():
            old, new = parts[0][code], parts[1][code]
            old_line = self._shown[0].get(line, line) if old.processes else None
            found.append(Row(cause, old_line, line if new.processes else None, old, new, bool(sure[code])))
        return found

    def _parts(self, number: int) -> list[Side]:
        """What a side has of each row."""
        runs = self._sides[number]
        code = np.concatenate([np.empty(0, np.int64), *self._codes[number]])
        lasted = np.concatenate([np.empty(0), *(run.zombies.lasted_ms for run in runs)])
        ended = np.concatenate([np.empty(0, bool), *(run.zombies.ended for run in runs)])
        forks = sum(run.forks for run in runs)
        order = np.argsort(code, kind="stable")
        edges = np.searchsorted(code[order], np.arange(len(self._keys) + 1))
        return [
            _side(lasted[order[begin:end]], ended[order[begin:end]], forks) for begin, end in itertools.pairwise(edges.tolist())
        ]

    def _sure(self) -> npt.NDArray[np.bool_]:
        """Of which rows chance does not explain the difference."""
        if max(map(len, self._sides)) > 1:
            return self._sure_of_runs()
        count = len(self._keys)
        rates, errors, calls = zip(*(self._one_run(number, count) for number in (0, 1)), strict=True)
        beyond = student_t(degrees(errors, calls)) * np.hypot(*errors)
        sure: npt.NDArray[np.bool_] = np.abs(rates[1] - rates[0]) > beyond
        self.total_is_sure = bool(sure[count])
        return sure[:count]

    def _one_run(self, number: int, count: int) -> tuple[Floats, Floats, Ints]:
        """Zombie time per process of each row of a run, and last of all rows; its standard error; from how many calls."""
        run, code = self._sides[number][0], self._codes[number][0]
        zombies = run.zombies
        call, lasted = np.tile(zombies.call, 2), np.tile(zombies.lasted_ms, 2)
        row = np.concatenate([code, np.full(len(code), count)])
        processes = np.bincount(zombies.call) if len(zombies.call) else np.empty(0, np.int64)
        rates = np.bincount(row, lasted, minlength=count + 1) / max(len(code), 1)
        errors = bootstrap_errors(call, row, lasted, processes, count + 1, self._rng) if len(code) else np.zeros(count + 1)
        pairs = np.unique(row * (len(processes) + 1) + call) // (len(processes) + 1)
        calls = np.bincount(pairs, minlength=count + 1)
        scale = len(code) / run.forks if run.forks else 1.0
        return rates * scale, np.where(calls > 0, errors, 0) * scale, calls

    def _sure_of_runs(self) -> npt.NDArray[np.bool_]:
        if min(map(len, self._sides)) < FEW_RUNS:
            return np.zeros(len(self._keys), bool)
        old, new = (
            np.array([self._rates(run, code) for run, code in zip(runs, codes, strict=True)])
            for runs, codes in zip(self._sides, self._codes, strict=True)
        )
        return np.array([u_test(old[:, one], new[:, one], self._rng) < CHANCE for one in range(len(self._keys))], bool)

    def _rates(self, run: Run, code: Ints) -> Floats:
        return np.asarray(np.bincount(code, run.zombies.lasted_ms, minlength=len(self._keys)) / max(run.forks, 1))


def _used(run: Run) -> Iterable[Line]:
    return (run.zombies.lines[one] for one in np.unique(run.zombies.line).tolist())


def _side(lasted: Floats, ended: npt.NDArray[np.bool_], forks: int) -> Side:
    if not len(lasted):
        return Side(0, 0.0, np.nan, np.nan, 0.0, 0)
    rate = float(lasted.sum()) / forks if forks else 0.0
    middle, most = (quantile(lasted, ended, share) for share in (0.5, 0.9))
    return Side(len(lasted), rate, middle, most, float(lasted.max()), int((~ended).sum()))


def match(old: Iterable[Line], new: Iterable[Line]) -> dict[Line, Line]:
    """Return which line of the new side each old one is: of the same function, the same number, else in the same order."""
    by_function: tuple[dict[tuple[str, str], list[Line]], ...] = (defaultdict(list), defaultdict(list))
    for side, lines in zip(by_function, (old, new), strict=True):
        for line in lines:
            side[line.path, line.function].append(line)
    found: dict[Line, Line] = {}
    for function, lines in by_function[0].items():
        there = by_function[1].get(function, [])
        same = set(lines) & set(there)
        found.update((line, line) for line in same)
        rest, moved = (sorted(set(each) - same) for each in (lines, there))
        if len(rest) == len(moved):
            found.update(zip(rest, moved, strict=True))
    return found


class RiseLimit(NamedTuple):
    """What `--fail-if` says: by how much a figure may rise, in percent or in its own unit."""

    name: str
    rise: float
    percent: bool
    text: str

    def met(self, one: Change) -> bool:
        """Whether the figure has risen by more; from 0 a rise in percent is any."""
        return one.new > (one.old * (1 + self.rise / 100) if self.percent else one.old + self.rise) + 1e-12


def parse_rise_limit(text: str) -> RiseLimit:
    """Return what `zombie-seconds+10%` or `unreaped+3` says.

    Raises:
        UsageError: there is no such figure, or it is not a rise.
    """
    found = _RISE.fullmatch(text)
    if not found or found["name"] not in RISING:
        raise UsageError(
            f"--fail-if {text}: not a figure and a rise", f"one of {', '.join(RISING)}, as in zombie-seconds+10%, unreaped+0"
        )
    size, unit = found["size"], found["unit"]
    ns = span_ns(f"{size}{'s' if unit in (None, '%') else unit}")
    if ns is None or (unit not in (None, "%") and found["name"] not in ("max-zombie", "zombie-seconds")):
        raise UsageError(
            f"--fail-if {text}: {size}{unit or ''} is not a rise of {found['name']}", "as in +10%, +3, max-zombie+500ms"
        )
    return RiseLimit(found["name"], ns / 1e9, unit == "%", text)
