"""What chance explains: a bootstrap over clearing calls, a U test over runs; and quantiles of times that have not all ended."""

from __future__ import annotations

import itertools
import math
from typing import Final

import numpy as np
import numpy.typing as npt

from forktrace.analysis.log import Ints

Floats = npt.NDArray[np.float64]

BOOTSTRAPS: Final = 500
MOST_PERMUTATIONS: Final = 20_000  # of more, so many are drawn at random
FEW_RUNS: Final = 4  # a side: with fewer no difference can be told from chance
_T95: Final = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.18, 2.13, 2.09)  # Student's t, by degrees
_T_DEGREES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20)


def student_t(degrees: Floats) -> Floats:
    """Return the two-sided 95 % points of Student's t: 1.96 for many degrees of freedom."""
    points = np.interp(np.maximum(degrees, 1), (*_T_DEGREES, 30), (*_T95, 2.04))
    return np.where(degrees > 30, 1.96, points)


def degrees(errors: tuple[Floats, Floats], calls: tuple[Ints, Ints]) -> Floats:
    """Return the degrees of freedom of differences whose two sides have such errors, from so many calls (Welch)."""
    squares = [error**2 for error in errors]
    parts = sum(square**2 / np.maximum(number - 1, 1) for square, number in zip(squares, calls, strict=True))
    whole = (squares[0] + squares[1]) ** 2
    return np.divide(whole, parts, out=np.ones(len(whole)), where=np.asarray(parts) > 0)


def bootstrap_errors(call: Ints, row: Ints, size: Floats, processes: Ints, rows: int, rng: np.random.Generator) -> Floats:
    """Return the standard error of each row's sum of sizes per process, when whole clearing calls are drawn again and again.

    `call`, `row` and `size` are of single zombies; `processes` says how many each call cleared.
    """
    calls = len(processes)
    if calls < 2:  # of a single call the size is certain, only that it came is not
        return np.asarray(np.bincount(row, size, minlength=rows) / max(int(processes.sum()), 1))
    pair, place = np.unique(call * rows + row, return_inverse=True)
    summed = np.bincount(place, size)
    rates = np.empty((BOOTSTRAPS, rows))
    for one in range(BOOTSTRAPS):
        drawn = np.bincount(rng.integers(0, calls, calls), minlength=calls)
        sums = np.bincount(pair % rows, summed * drawn[pair // rows], minlength=rows)
        rates[one] = sums / max(int((drawn * processes).sum()), 1)
    return np.asarray(rates.std(axis=0) * math.sqrt(calls / (calls - 1)))


def u_test(old: Floats, new: Floats, rng: np.random.Generator) -> float:
    """Return the two-sided p-value of a U test, exact for few runs."""
    ranks = _ranks(np.concatenate([old, new]))
    first, size, every = ranks[: len(old)].sum(), len(old), len(ranks)
    middle = size * (every + 1) / 2
    if math.comb(every, size) <= MOST_PERMUTATIONS:
        chosen = np.array(list(itertools.combinations(range(every), size)))
    else:
        chosen = np.argsort(rng.random((MOST_PERMUTATIONS, every)), axis=1)[:, :size]
    far = np.abs(ranks[chosen].sum(axis=1) - middle) >= abs(first - middle) - 1e-9
    return float(far.mean())


def _ranks(values: Floats) -> Floats:
    """The rank of each value; equal ones share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], np.float64)


def quantile(lasted: Floats, ended: npt.NDArray[np.bool_], share: float) -> float:
    """Return the time within which `share` of the zombies were gone, some of which were not `ended` yet (Kaplan and Meier).

    NaN: too few were gone by the end to tell.
    """
    order = np.lexsort((~ended, lasted))
    lasted, ended = lasted[order], ended[order]
    there = np.arange(len(lasted), 0, -1)
    left = np.cumprod(1 - ended / there)
    reached = np.flatnonzero(left <= 1 - share + 1e-12)
    return float(lasted[reached[0]]) if len(reached) else math.nan
