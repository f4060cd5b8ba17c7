"""The line that started each process: for a child of a fork server the line that asked for it, in another process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.rules import each
from forktrace.analysis.history import History
from forktrace.analysis.log import NONE, Flags, Ints, Latest, pick
from forktrace.analysis.losses import lost_until
from forktrace.analysis.once import once

_MODULES: Final = ("multiprocessing/forkserver.py", "multiprocess/forkserver.py")

Thread = tuple[int, int]  # the id of its process, its number


def start_sites(table: pd.DataFrame) -> pd.Series:
    """Return the `start_site` of the rows of lifecycles; where it is in doubt the line of the fork."""
    sites: pd.Series = table["start_site"].fillna(table["fork_site"])
    return sites


def is_server(history: History, stack: int) -> bool:
    """Whether a fork with this stack is one of a fork server's, for another process."""
    innermost = history.sites.inner(stack)[:1]
    return any(place.module in _MODULES and frame.name == "main" for frame, place in innermost)


def _asks(history: History, stack: int) -> bool:
    """Whether a connect with this stack asks a fork server for a child."""
    inner = history.sites.inner(stack)
    return any(place.module in _MODULES and frame.name == "connect_to_new_process" for frame, place in inner)


@once
def made_by_server(history: History) -> Flags:
    """Return which processes a fork server made for another process."""
    stacks = pick(history.sites.code, history.log.fork_row)
    made: Flags = each(lambda one: int(is_server(history, one)), stacks) == 1
    return made


@once
def start_rows(history: History) -> Ints:
    """Return the row with the stack of the start of each process: its fork, or the request to the fork server.

    NONE: the fork is not known; of a child of a fork server, who asked for it is in doubt (docs/tables.md says when).
    """
    log, made = history.log, made_by_server(history)
    found = np.where(made, NONE, log.fork_row)
    server = pick(log.by_id, log.fork_row)
    certain = np.flatnonzero(made & (log.time_ns[log.fork_row] > lost_until(log, "request")))
    requests, asked = _requests(history, np.unique(server[made & (server != NONE)]))
    steps: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for one, row in zip(asked.tolist(), requests.tolist(), strict=True):
        steps[one].append((row, NONE))
    for one, process in zip(server[certain].tolist(), certain.tolist(), strict=True):
        steps[one].append((int(log.fork_row[process]), process))
    for of_server in steps.values():
        for process, row in _answers(history, sorted(of_server)):
            found[process] = row
    return found


def _requests(history: History, servers: Ints) -> tuple[Ints, Ints]:
    """Return the requests to these fork servers, and the server of each: the last one that the process had made by then."""
    log = history.log
    rows = log.rows("request")
    rows = rows[each(lambda one: int(_asks(history, one)), history.sites.code[rows]) == 1]
    made = Latest(history.parents.id[servers], log.fork_ns[servers])
    asked = pick(servers, made.until(log.id[rows], log.time_ns[rows]))
    return rows[asked != NONE], asked[asked != NONE]


def _answers(history: History, steps: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield each process that one server made with the row of the request for it, NONE in doubt.

    `steps` are pairs in time order: (request, NONE), or (fork, process). A thread that asks waits for the answer, so its
    earlier requests are over. While several threads wait, the fork can answer any of them: unless all are on one line, it is
    in doubt.
    """
    log, stack = history.log, history.sites.code
    tid = log.numbers("by_tid")
    waiting: dict[Thread, int] = {}
    answered = 0  # of those
    for row, process in steps:
        if process == NONE:
            thread = int(log.id[row]), int(tid[row])
            answered = max(answered - (thread in waiting), 0)
            waiting[thread] = row
            continue
        rows = list(waiting.values())
        yield process, rows[0] if len({int(stack[one]) for one in rows}) == 1 else NONE
        answered += 1
        if answered >= len(waiting):
            waiting.clear()
            answered = 0
