"""Waits that came too late: the child was gone already."""

from __future__ import annotations

import pandas as pd

from forktrace.analysis.causes.reasons import creators
from forktrace.analysis.history import History
from forktrace.analysis.late import late
from forktrace.analysis.log import category, nullable
from forktrace.analysis.tables.stolen import SEEN, seen
from forktrace.analysis.tables.waits import wait_calls
from forktrace.trace import events


def late_waits(history: History) -> pd.DataFrame:
    """Return one row per wait for a child that was gone already (ECHILD), in time order; of equal ones at one place the first.

    Columns:
        time_ns               int64, ns  when the wait failed
        id                    int64      the process that waited
        child_id, child_pid   int64      the child
        tid                   Int64      the thread that waited
        call, target          category   `wait4` `waitid`; `pid` `pidfd`
        site                  string     line that waited; `<NA>`: no stack
        seen                  category   what that line got to see, as in `stolen`
    """
    log = history.log
    rows, child = late(history)
    return pd.DataFrame(
        {
            "time_ns": log.time_ns[rows],
            "id": log.by_id[rows],
            "child_id": child,
            "child_pid": log.pid[child],
            "tid": nullable(log.at("by_tid", rows)),
            "call": wait_calls(log.at("call", rows)),
            "target": category(log.at("target", rows), events.TARGETS),
            "site": history.sites.sites(rows, log.by_id[rows]),
            "seen": category(seen(history, rows, child, creators(history)), SEEN),
        }
    )
