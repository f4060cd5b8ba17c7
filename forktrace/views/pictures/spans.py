"""When each process ran and was a zombie, and whose start cleared it, as arrays by row: what every picture draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.recording import Recording
from forktrace.views.pictures.key import Rows

Floats = npt.NDArray[np.float64]


def end_s(recording: Recording) -> float:
    """Return the last moment of a recording, in s from the target's start."""
    return max((recording.end_ns - recording.start_ns) / 1e9, 1e-6)


class Spans(NamedTuple):
    """When each process ran and was a zombie, in s from the target's start; `zombie` is NaN for one that was none."""

    fork: Floats
    exit: Floats
    zombie: Floats
    gone: Floats

    def take(self, rows: Rows) -> Spans:
        """Return the spans of some rows."""
        return Spans(*(column[rows] for column in self))


def seconds(recording: Recording, column: pd.Series, missing_s: float) -> Floats:
    """Return a column of CLOCK_BOOTTIME ns in s from the target's start."""
    return recording.seconds(column).fillna(missing_s).to_numpy()


def spans_of(recording: Recording, table: pd.DataFrame) -> Spans:
    """Return the spans of the rows of lifecycles; of what is gone and when is not known, only what is known to have been."""
    fork, zombie = seconds(recording, table["fork_ns"], 0), seconds(recording, table["zombie_ns"], np.nan)
    last = np.where(table["state"] == "gone", np.fmax(fork, zombie), end_s(recording))
    gone, exit_s = seconds(recording, table["reap_ns"], np.nan), seconds(recording, table["exit_ns"], np.nan)
    exit_s = np.where(np.isnan(exit_s), last, exit_s)
    gone = np.where(np.isnan(gone), np.fmax(last, exit_s), gone)
    return Spans(fork, np.minimum(exit_s, np.maximum(gone, fork)), zombie, np.fmax(zombie, gone))


def starters_of(table: pd.DataFrame) -> Rows:
    """Return for each row the row of the process whose start cleared it; -1 where there is none."""
    return np.asarray(pd.Index(table["id"]).get_indexer(table["cleared_by_id"].to_numpy(np.int64, na_value=-1)))
