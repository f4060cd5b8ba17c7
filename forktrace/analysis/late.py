"""Waits that came too late: of a parent for one child that was already gone (ECHILD)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE, Ints, Latest, pick
from forktrace.analysis.once import once
from forktrace.trace import events


@once
def late(history: History) -> tuple[Ints, Ints]:
    """Return the rows of the waits that came too late, and the child of each, in time order.

    Repeated waits at one place of a process are one event (probes/wait.bpf.c).
    """
    log = history.log
    named = np.isin(log.numbers("target"), [events.TARGETS.index("pid"), events.TARGETS.index("pidfd")])
    rows = np.flatnonzero(log.is_kind("wait") & named & (log.numbers("result") == events.ECHILD) & (log.by_id != NONE))
    if not len(rows):
        return rows, rows
    owner = _owners(history)
    dead = np.flatnonzero((owner != NONE) & (history.gone_ns < NEVER))
    ns_pid = log.at("ns_pid", log.fork_row[dead])
    children = np.concatenate([dead, dead])
    numbers = np.concatenate([log.pid[dead], np.where(ns_pid == NONE, log.pid[dead], ns_pid)])
    keys = pd.MultiIndex.from_arrays(
        [np.append(owner[children], log.by_id[rows]), np.append(numbers, log.at("target_pid", rows))]
    )
    key = keys.factorize()[0].astype(np.int64)
    ended_ns = np.where(history.zombie_ns == NONE, history.exit_ns, history.zombie_ns)
    ended_ns = np.where(ended_ns == NONE, NEVER, ended_ns)[children]
    found = Latest(key[: len(children)], ended_ns).until(key[len(children) :], log.time_ns[rows])
    child = np.where(log.id[rows] == NONE, pick(children, found), log.id[rows])
    good = (child != NONE) & (pick(owner, child) == log.by_id[rows])
    return rows[good], child[good]


def _owners(history: History) -> Ints:
    """The parent of each process at its end: its reaper, else its last parent."""
    reaper = pick(history.log.by_id, history.release_row)
    return np.where(history.waited, reaper, history.parents.last_id)
