"""The signals that kill or stop, and the one that ended each process."""

from __future__ import annotations

import numpy as np
import pandas as pd

from forktrace.analysis.causes.endings import killing_rows
from forktrace.analysis.history import History
from forktrace.analysis.log import NONE, category, nullable
from forktrace.analysis.tables.lifecycles import SIGNALS
from forktrace.trace import events


def signals(history: History) -> pd.DataFrame:
    """Return one row per signal that kills or stops and reached a followed process, in time order.

    Columns:
        time_ns                  int64, ns  when it was generated
        id                       Int64      whom it reached
        signal                   category   `SIGTERM`
        fatal                    bool       it is the one that ended the process
        kind                     category   `process` `kernel` `oom` `pdeathsig` `pidns`
        sender_id, sender_pid, sender_tid   Int64  `<NA>`: no process sent it, or it cannot be told
        sender_site              string     line that sent it
        sender_stack             string     the folded stack of the thread that sent it
        disposition              category   its disposition of this signal then: `default` `handler` `ignored`
    """
    log = history.log
    rows = log.rows("signal")
    number = log.at("signal", rows)
    named = log.at("by_pid", rows) != NONE
    return pd.DataFrame(
        {
            "time_ns": log.time_ns[rows],
            "id": nullable(log.id[rows]),
            "signal": category(np.where((number > 0) & (number <= len(SIGNALS)), number - 1, NONE), SIGNALS),
            "fatal": np.isin(rows, killing_rows(history)),
            "kind": category(log.at("sent_by", rows), events.SENDERS),
            "sender_id": nullable(log.by_id[rows]),
            "sender_pid": nullable(log.at("by_pid", rows)),
            "sender_tid": nullable(np.where(named, log.at("by_tid", rows), NONE)),
            "sender_site": history.sites.sites(rows, log.by_id[rows]),
            "sender_stack": history.sites.stack_texts(rows),
            "disposition": category(log.at("disposition", rows), events.DISPOSITIONS),
        }
    )
