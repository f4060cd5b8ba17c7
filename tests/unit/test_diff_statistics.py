"""What chance could have done: each method against figures that are known, and against programs that are the same."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from forktrace.analysis.comparison.changes import compare
from forktrace.analysis.comparison.statistics import bootstrap_errors, degrees, quantile, student_t, u_test

ROOT = Path(__file__).parents[2]


def dice() -> np.random.Generator:
    """Return dice that fall the same each time."""
    return np.random.default_rng(1)


@pytest.mark.parametrize(
    ("lasted", "ended", "share", "time"),
    [
        ([1, 2, 3, 4], [1, 1, 1, 1], 0.5, 2),
        ([1, 2, 3, 4, 5], [1, 1, 1, 1, 1], 0.5, 3),
        ([1, 2, 3, 4], [1, 1, 0, 0], 0.5, 2),
        ([1, 2, 3, 4], [1, 0, 0, 0], 0.5, math.nan),
        ([1, 1, 2, 3], [0, 0, 1, 1], 0.5, 2),  # those that were there for less count only until then
        ([6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35], [1] * 9 + [0] * 12, 0.5, 23),
        (list(range(1, 11)), [1] * 10, 0.9, 9),
    ],
)
def test_a_quantile_of_times_that_go_on(lasted: list[float], ended: list[int], share: float, time: float) -> None:
    """Kaplan and Meier; the long row is Freireich's trial of 1963, of which the median in textbooks is 23 weeks."""
    found = quantile(np.array(lasted, float), np.array(ended, bool), share)
    assert found == time or (math.isnan(found) and math.isnan(time))


@pytest.mark.parametrize(
    ("old", "new", "likely"),
    [
        ([1, 2, 3], [4, 5, 6], 2 / 20),
        ([1, 2, 3, 4], [5, 6, 7, 8], 2 / 70),
        ([1, 3, 5], [2, 4, 6], 14 / 20),
        ([1, 1, 1], [1, 1, 1], 1.0),
    ],
)
def test_a_u_test(old: list[float], new: list[float], likely: float) -> None:
    """Of few runs the exact share of all ways to divide them."""
    assert u_test(np.array(old, float), np.array(new, float), dice()) == pytest.approx(likely)


def test_a_u_test_of_many_runs() -> None:
    """Of many runs as many ways are drawn; what is far apart is hardly chance."""
    assert u_test(np.arange(20.0), np.arange(20.0) + 15, dice()) < 0.001
    assert u_test(np.arange(20.0), np.arange(20.0) + 0.5, dice()) > 0.5


def test_students_t() -> None:
    """The table, between its lines, and for many degrees the normal distribution."""
    assert student_t(np.array([0, 1, 3, 20, 31])).tolist() == [12.71, 12.71, 3.18, 2.09, 1.96]
    assert 2.04 < student_t(np.array([25.0]))[0] < 2.09


def test_degrees_of_freedom() -> None:
    """Of sides that are alike the sum; else those of the side whose error counts; of no error at all 1."""
    found = degrees((np.array([2.0, 2.0, 0.0]), np.array([2.0, 0.001, 0.0])), (np.array([5, 5, 5]), np.array([5, 2, 2])))
    assert found == pytest.approx([8, 4, 1], rel=0.001)


def test_an_error_of_a_mean() -> None:
    """Where each call clears one zombie, the bootstrap's is the textbook's standard error."""
    size = dice().exponential(100, 400)
    found = bootstrap_errors(np.arange(400), np.zeros(400, np.int64), size, np.ones(400, np.int64), 1, dice())
    assert found[0] == pytest.approx(size.std(ddof=1) / 20, rel=0.1)


def test_the_unit_is_the_call() -> None:
    """Ten calls that clear ten zombies each are worth ten times, not a hundred: the error is that of ten."""
    of_call = dice().exponential(100, 10)
    size, call = np.repeat(of_call, 10), np.repeat(np.arange(10), 10)
    found = bootstrap_errors(call, np.zeros(100, np.int64), size, np.full(10, 10), 1, dice())
    assert found[0] == pytest.approx(of_call.std(ddof=1) / math.sqrt(10), rel=0.15)


def test_the_same_program_is_not_called_different(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 simulated pairs at most 5 % of the rows; four times as late a wait is found in nearly all.

    benchmarks/false_alarms.py measures 200.
    """
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    simulation = importlib.import_module("false_alarms")
    _, rows, _ = simulation.called(40, 1.0, seed=7)
    assert rows <= 0.05
    made, _, _ = simulation.called(10, 4.0, seed=7)
    late = [row.sure for one in made for row in one.rows if row.new_line and row.new_line.function == "by_hand"]
    assert sum(late) >= 8


def test_the_seed_decides() -> None:
    """The same seed, the same answer."""
    from forktrace.analysis.recording import read

    kafka = read(ROOT / "tests/data/kafka.arrows")
    assert compare([kafka], [kafka], seed=3) == compare([kafka], [kafka], seed=3)
