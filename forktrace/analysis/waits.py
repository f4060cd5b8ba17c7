"""The places that wait: how often each was called and what came of it."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from forktrace.analysis.history import History
from forktrace.analysis.lifecycles import option_names
from forktrace.analysis.log import NONE, Ints, Log, category, empty_texts, first_of_each, nullable
from forktrace.trace import events

EINTR: Final = 4
ECHILD: Final = 10
CALLS: Final = ("wait4", "waitid", "io_uring")
_KEY: Final = ["id", "call", "target", "flags"]
_COUNTS: Final = ["calls", "reaps", "empty", "interrupted", "no_child"]


def waits(history: History) -> pd.DataFrame:
    """Return one row per process, call, target and options, by process.

    The empty calls for one very child are part of its parent's place; `empty_waits` of the child says how many they were.

    Columns:
        id                     Int64     the process that waits, of the recording
        site                   string    empty: traces carry no stacks yet
        call, target           category  `wait4` `waitid` `io_uring`; `pid` `any` `pgid` `pidfd`
        options                string    `WNOHANG|WEXITED`; "" for none
        calls                  int64     how often it was called
        reaps                  int64     of these: brought a child that was released by it
        empty                  int64     no child had changed (WNOHANG)
        interrupted, no_child  int64     failed with EINTR; with ECHILD
    """
    log = history.log
    parts = [_reaps(history), _others(log), _totals(log)]
    calls = pd.concat(parts, ignore_index=True)
    calls = calls[calls["id"] != NONE]
    table = calls.groupby(_KEY, as_index=False)[_COUNTS].sum()
    names = [events.CALLS.index(call) for call in CALLS]
    code = np.array([names.index(call) if call in names else NONE for call in table["call"].tolist()], np.int64)
    return pd.DataFrame(
        {
            "id": nullable(table["id"].to_numpy()),
            "site": empty_texts(len(table)),
            "call": category(code, CALLS),
            "target": category(table["target"].to_numpy(), events.TARGETS),
            "options": option_names(table["flags"].to_numpy(), table["call"].to_numpy()),
            **{name: table[name].to_numpy() for name in _COUNTS},
        }
    )


def _counted(log: Log, rows: Ints, ids: Ints, calls: Ints, **counts: Ints) -> pd.DataFrame:
    """One line per row of the trace: whose place it is, how many calls it stands for and what came of them."""
    place = {"id": ids, "call": log.codes("call")[rows], "target": log.codes("target")[rows], "flags": log.at("flags", rows)}
    return pd.DataFrame(place | dict.fromkeys(_COUNTS, np.zeros(len(rows), np.int64)) | {"calls": calls} | counts)


def _reaps(history: History) -> pd.DataFrame:
    log = history.log
    rows = log.rows("reap")
    rows = rows[np.isin(log.codes("call")[rows], [events.CALLS.index(call) for call in CALLS])]
    ones = np.ones(len(rows), np.int64)
    return _counted(log, rows, log.by_id[rows], ones, reaps=ones)


def _others(log: Log) -> pd.DataFrame:
    """Calls that are rows of their own: a stop, a peek, a failure, a child that was not named."""
    rows = log.rows("wait")
    return _counted(log, rows, log.by_id[rows], np.ones(len(rows), np.int64), **_results(log, rows, 1))


def _results(log: Log, rows: Ints, count: Ints | int) -> dict[str, Ints]:
    result = log.numbers("result")[rows]
    return {"interrupted": (result == EINTR) * count, "no_child": (result == ECHILD) * count}


def _totals(log: Log) -> pd.DataFrame:
    """The last running total of each place."""
    rows = log.rows("waits")[::-1]
    rows = rows[log.by_id[rows] != NONE]
    place = ("by_tid", "target_pid", "flags", "result")
    once = first_of_each(log.by_id[rows], log.codes("call")[rows], log.codes("target")[rows], *(log.at(c, rows) for c in place))
    rows = rows[once]
    count = log.at("count", rows)
    empty = (log.numbers("result")[rows] == 0) * count
    return _counted(log, rows, log.by_id[rows], count, empty=empty, **_results(log, rows, count))
