"""The places that wait: how often each was called and what came of it."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from forktrace.analysis.history import History
from forktrace.analysis.log import NONE, Ints, Log, category, chosen, first_of_each, nullable
from forktrace.analysis.options import option_names
from forktrace.trace import events

_KEY: Final = ["id", "call", "target", "flags", "site"]
_WAIT_CALLS: Final = [events.CALLS.index(call) for call in events.WAIT_CALLS]
_COUNTS: Final = ["calls", "reaps", "empty", "interrupted", "no_child"]


def waits(history: History) -> pd.DataFrame:
    """Return one row per process, line, call, target and options, by process.

    The empty calls for one very child are part of its parent's place; `empty_waits` of the child says how many they were.

    Columns:
        id                     Int64     the process that waits, of the recording
        site                   string    line that waits; `<NA>`: no stack
        call, target           category  `wait4` `waitid` `io_uring`; `pid` `any` `pgid` `pidfd`
        options                string    `WNOHANG|WEXITED`; "" for none
        calls                  int64     how often it was called
        reaps                  int64     of these: brought a child that was released by it
        empty                  int64     no child had changed (WNOHANG)
        interrupted, no_child  int64     failed with EINTR, or went on when the recording ended; with ECHILD
    """
    log = history.log
    calls = pd.concat([_reaps(history), _others(log), _totals(history)], ignore_index=True)
    calls = calls[calls["id"] != NONE]
    site, sites = history.sites.site_codes(calls["row"].to_numpy(), calls["id"].to_numpy())
    calls["site"] = site
    table = calls.groupby(_KEY, as_index=False)[_COUNTS].sum()
    return pd.DataFrame(
        {
            "id": nullable(table["id"].to_numpy()),
            "site": chosen(table["site"].to_numpy(), sites),
            "call": wait_calls(table["call"].to_numpy()),
            "target": category(table["target"].to_numpy(), events.TARGETS),
            "options": option_names(table["flags"].to_numpy(), table["call"].to_numpy()),
            **{name: table[name].to_numpy() for name in _COUNTS},
        }
    )


def wait_calls(codes: Ints) -> pd.Categorical[str]:
    """Return the wait calls that these codes of `events.CALLS` stand for; `<NA>`: another call, or none."""
    return category(np.where(np.isin(codes, _WAIT_CALLS), codes - _WAIT_CALLS[0], NONE), events.WAIT_CALLS)


def _counted(log: Log, rows: Ints, ids: Ints, calls: Ints, **counts: Ints) -> pd.DataFrame:
    """One line per row of the trace: whose place it is, how many calls it stands for and what came of them."""
    place = {
        "row": rows,
        "id": ids,
        "call": log.at("call", rows),
        "target": log.at("target", rows),
        "flags": log.at("flags", rows),
    }
    return pd.DataFrame(place | dict.fromkeys(_COUNTS, np.zeros(len(rows), np.int64)) | {"calls": calls} | counts)


def _reaps(history: History) -> pd.DataFrame:
    log = history.log
    rows = log.rows("reap")
    rows = rows[np.isin(log.at("call", rows), _WAIT_CALLS)]
    ones = np.ones(len(rows), np.int64)
    return _counted(log, rows, log.by_id[rows], ones, reaps=ones)


def _others(log: Log) -> pd.DataFrame:
    """Calls that are rows of their own: a stop, a peek, a failure, a child that was not named."""
    rows = log.rows("wait")
    rows = rows[log.at("call", rows) != NONE]  # those watch a pipe
    return _counted(log, rows, log.by_id[rows], np.ones(len(rows), np.int64), **_results(log, rows, 1))


def _results(log: Log, rows: Ints, count: Ints | int) -> dict[str, Ints]:
    result = log.at("result", rows)
    return {"interrupted": (result == events.EINTR) * count, "no_child": (result == events.ECHILD) * count}


def _totals(history: History) -> pd.DataFrame:
    """The last running total of each place."""
    log = history.log
    rows = log.rows("waits")[::-1]
    rows = rows[log.by_id[rows] != NONE]
    place = [log.at(name, rows) for name in ("by_tid", "target_pid", "flags", "result")]
    place += [log.at(name, rows) for name in ("call", "target", "stack", "stack_status")]
    once = first_of_each(log.by_id[rows], *place)
    rows = rows[once]
    count = log.at("count", rows)
    empty = (log.at("result", rows) == 0) * count
    return _counted(log, rows, log.by_id[rows], count, empty=empty, **_results(log, rows, count))
