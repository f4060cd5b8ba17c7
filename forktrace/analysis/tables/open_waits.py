"""Waits for a child that brought nothing: the recording ended, the process that waited did, or a signal such as Ctrl-C came."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.rules import each
from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE, Flags, Ints, Latest, category, first_of_each, nullable, pick
from forktrace.analysis.requests import made_by_server, start_rows
from forktrace.analysis.tables.waits import wait_calls
from forktrace.trace import events

SINCE: Final = ("about", "earliest")
UNTIL: Final = ("recording", "killed", "interrupted")
_SERVER: Final = "popen_forkserver.py"  # which waits for a child of the fork server, by a pipe


def open_waits(history: History) -> pd.DataFrame:
    """Return one row per wait that had brought nothing when it ended, in time order; of one that a signal broke off the last.

    Columns:
        time_ns             int64, ns  when that was
        id                  int64      the process that waited
        child_id, child_pid Int64      the child that it waited for; `<NA>`: for any, or not known
        tid                 Int64      the thread that waited
        since_ns            Int64, ns  since when; `<NA>`: not known
        since               category   `about`: since when its thread has slept; or `earliest`: it began then or later
        until               category   `recording` (it ended meanwhile) `killed` (the process that waited) `interrupted`
        call, target        category   as in `waits`; `<NA>`: it watched a pipe
        site, stack         string     line that waited; `<NA>`: no stack
    """
    log = history.log
    rows = log.rows("wait")
    rows = rows[(log.at("result", rows) == events.EINTR) & (log.by_id[rows] != NONE)]
    child = _children(history, rows)
    until = _until(history, rows)
    keep = _goes_nowhere(history, rows, child, until)
    rows, child, until = rows[keep], child[keep], until[keep]
    slept_ns = np.where(_goes_on(history, rows), log.at("count", rows), NONE)
    began_ns = np.where(slept_ns == NONE, NONE, log.time_ns[rows] - slept_ns)
    return pd.DataFrame(
        {
            "time_ns": log.time_ns[rows],
            "id": log.by_id[rows],
            "child_id": nullable(child),
            "child_pid": nullable(pick(log.pid, child)),
            "tid": nullable(log.at("by_tid", rows)),
            "since_ns": nullable(np.maximum(_earliest_ns(history, rows, child), began_ns)),
            "since": category((slept_ns == NONE).astype(np.int64), SINCE),
            "until": category(until, UNTIL),
            "call": wait_calls(log.at("call", rows)),
            "target": category(log.at("target", rows), events.TARGETS),
            "site": history.sites.sites(rows, log.by_id[rows]),
            "stack": history.sites.stack_texts(rows),
        }
    )


def _goes_on(history: History, rows: Ints) -> Flags:
    """Which waits had not come back when the recording ended: the trace says so of each."""
    return np.asarray(history.log.texts("detail", rows).eq(events.GOES_ON).fillna(False), bool)


def _until(history: History, rows: Ints) -> Ints:
    """What ended each wait, an index into UNTIL."""
    log = history.log
    killing = log.rows("signal")
    number = log.at("status", pick(log.exit_row, log.id[killing])) & 0x7F
    killing = killing[(log.at("signal", killing) == number) & (log.id[killing] != NONE)]
    killed_ns = np.full(log.count + 1, NEVER)
    killed_ns[log.id[killing]] = log.time_ns[killing]  # the last of each
    killed = killed_ns[log.by_id[rows]] <= log.time_ns[rows]
    return np.where(_goes_on(history, rows), 0, np.where(killed, 1, 2))


def _children(history: History, rows: Ints) -> Ints:
    """The child that each wait is for; where it watched a pipe, the only one that it can be."""
    log, found = history.log, history.log.id[rows].copy()
    watching = np.flatnonzero(log.at("target", rows) == NONE)
    if len(watching):
        served = each(lambda one: int(_SERVER in history.sites.texts[one]), history.sites.code[rows]) == 1
        asker = np.where(made_by_server(history), pick(log.by_id, start_rows(history)), NONE)
        of_server, own = (_only_child(history, whose) for whose in (asker, history.parents.id))
        found[watching] = np.where(served, of_server[log.by_id[rows]], own[log.by_id[rows]])[watching]
    return found


def _only_child(history: History, whose: Ints) -> Ints:
    """Of each process the only one of `whose` that is still there at the end; NONE: there are none or several."""
    there = np.flatnonzero((whose != NONE) & (history.gone_ns == NEVER))
    many = np.bincount(whose[there], minlength=history.log.count)
    found = np.full(history.log.count, NONE)
    found[whose[there]] = there
    return np.where(many == 1, found, NONE)


def _goes_nowhere(history: History, rows: Ints, child: Ints, until: Ints) -> Flags:
    """Which are the last of a thread for that child, and brought nothing later: a signal does not end a wait that goes on."""
    log = history.log
    last = np.zeros(len(rows), bool)
    backwards = rows[::-1]
    once = first_of_each(log.by_id[backwards], log.at("by_tid", backwards), log.at("target_pid", backwards), child[::-1])
    last[len(rows) - 1 - once] = True
    alive = (child != NONE) & (pick(history.exit_ns, child) == NONE) | (pick(history.exit_ns, child) > log.time_ns[rows])
    same = history.sites.code[pick(history.release_row, child, 0)] == history.sites.code[rows]
    brought = (child != NONE) & (pick(history.release_row, child) != NONE) & same & (until == UNTIL.index("interrupted"))
    good: Flags = last & ~brought & ((until != UNTIL.index("interrupted")) | ((child != NONE) & alive))
    return good


def _earliest_ns(history: History, rows: Ints, child: Ints) -> Ints:
    """Before when each wait cannot have begun: its child was made then, or its thread did something else."""
    log = history.log
    tid = log.numbers("by_tid")
    acts = np.flatnonzero((log.by_id != NONE) & (tid != NONE))
    latest = Latest(_thread(log.by_id[acts], tid[acts]), log.time_ns[acts])
    before = latest.until(_thread(log.by_id[rows], tid[rows]), log.time_ns[rows] - 1)
    return np.maximum(pick(log.fork_ns, child), pick(log.time_ns[acts], before))


def _thread(process: Ints, tid: Ints) -> Ints:
    return process << 23 | tid  # more than PID_MAX_LIMIT
