"""Stolen reaps: one part of a program took the exit status of a child that another part was to wait for."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.reasons import creators
from forktrace.analysis.causes.rules import each
from forktrace.analysis.history import History
from forktrace.analysis.late import late
from forktrace.analysis.log import NONE, Flags, Ints, category, nullable
from forktrace.trace import events

SEEN: Final = ("exitcode None", "returncode 0", "returncode 255", "ECHILD", "not asked")

# The library that waits, by the cause of its wait. A cause that is not named here is the program's own, or of unknown code.
_MULTIPROCESSING, _SUBPROCESS, _ASYNCIO, _LOOP, _PROGRAM = 1, 2, 3, 4, 0
_LIBRARY: Final = {
    **dict.fromkeys(("next-start", "join", "active-children", "pool", "executor", "forkserver"), _MULTIPROCESSING),
    **dict.fromkeys(("exit-handler", "resource-tracker"), _MULTIPROCESSING),
    **dict.fromkeys(("subprocess-wait", "subprocess-cleanup"), _SUBPROCESS),
    "asyncio": _ASYNCIO,
    "event-loop": _LOOP,
}
_SWEEPS: Final = ("next-start", "active-children", "exit-handler", "subprocess-cleanup")  # which ask for no child in particular


def stolen(history: History) -> pd.DataFrame:
    """Return one row per stolen reap, by its time: a child that was reaped, and then waited for in vain by someone else.

    In vain is a wait for this very child, after its death, that failed with ECHILD. Someone else is another library than the
    one that reaped; any library, where the program itself reaped; or another line of the program, where the reap was a wait for
    any child or in a SIGCHLD handler. It is no theft when a library reaps the child that it asks for, nor when a handler comes
    too late.

    Columns:
        time_ns                  int64, ns  the reap
        id                       int64      the child
        created_by               category   what made it
        thief_id, thief_tid      Int64      the process and the thread that reaped it
        thief_site, owner_site   string     the line that reaped it; the line that waited in vain
        seen                     category   what that line got to see: `exitcode None` of a Process, `returncode 0` of a Popen,
                                            `returncode 255` of asyncio, `ECHILD` of a wait by the program itself; `not asked`:
                                            no line asked for it, a start or the program's end swept all children
    """
    log, sites = history.log, history.sites
    wait, child = _in_vain(history)
    made = creators(history) if len(child) else child
    theft = _is_theft(history, wait, child, made)
    wait, child = wait[theft], child[theft]
    order = np.lexsort((wait, _is_cause(history, wait, *_SWEEPS), child))  # a sweep is named only where nobody asked
    wait, child = wait[order], child[order]
    first = np.unique(child, return_index=True)[1]
    first = first[np.argsort(history.release_row[child[first]])]
    wait, child = wait[first], child[first]
    reap = history.release_row[child]
    return pd.DataFrame(
        {
            "time_ns": log.time_ns[reap],
            "id": child,
            "created_by": category(made[child], history.readings.names("created_by")),
            "thief_id": nullable(log.by_id[reap]),
            "thief_tid": nullable(log.at("by_tid", reap)),
            "thief_site": sites.sites(reap, log.by_id[reap]),
            "owner_site": sites.sites(wait, log.by_id[wait]),
            "seen": category(seen(history, wait, child, made), SEEN),
        }
    )


def undecided(history: History) -> Ints:
    """Return the ids of children that were waited for in vain where a stack is missing that would tell whether it was theft."""
    wait, child = _in_vain(history)
    unseen: Flags = (history.sites.code[history.release_row[child]] == NONE) | (history.sites.code[wait] == NONE)
    wait, child = wait[unseen], child[unseen]
    if not len(child):
        return child
    open_: Ints = np.unique(child[~_is_theft(history, wait, child, creators(history))])
    return open_


def _in_vain(history: History) -> tuple[Ints, Ints]:
    """The waits that came too late for a child that the same process had reaped, and which child it was."""
    wait, child = late(history)
    return wait[history.waited[child]], child[history.waited[child]]


def suspects(history: History) -> Flags:
    """Return which processes were reaped so that a wait in vain, which may still come, could show that they were stolen."""
    child = np.flatnonzero(history.waited)
    so = np.zeros(history.log.count, bool)
    if len(child):
        _, greedy, by_program = _manners(history, history.release_row[child], creators(history)[child])
        so[child] = greedy | by_program
    return so


def _is_theft(history: History, wait: Ints, child: Ints, made: Ints) -> Flags:
    """Whether the reap of each child was a theft from the one who waited in vain."""
    log, sites = history.log, history.sites
    reap = history.release_row[child]
    takes, greedy, by_program = _manners(history, reap, made[child])
    asks, late = _library(history, wait, made[child]), _is_cause(history, wait, "signal-handler")
    codes, _ = sites.site_codes(np.append(reap, wait), log.by_id[np.append(reap, wait)])
    elsewhere = codes[: len(reap)] != codes[len(reap) :]
    theft: Flags = np.where(asks == _PROGRAM, greedy & elsewhere, (takes != asks) & (greedy | by_program)) & ~late
    return theft


def _manners(history: History, reap: Ints, made: Ints) -> tuple[Ints, Flags, Flags]:
    """Of each reap the library that waits, whether it takes any child that comes, and whether it is the program's own."""
    log = history.log
    takes = _library(history, reap, made)
    any_child = np.isin(log.at("target", reap), [events.TARGETS.index("any"), events.TARGETS.index("pgid")])
    greedy: Flags = any_child | _is_cause(history, reap, "signal-handler")
    return takes, greedy, (takes == _PROGRAM) & (history.sites.code[reap] != NONE)


def _is_cause(history: History, rows: Ints, *causes: str) -> Flags:
    names = history.readings.names("cause")
    so: Flags = np.isin(history.wait_rules[rows], [names.index(cause) for cause in causes])
    return so


def _library(history: History, rows: Ints, made: Ints) -> Ints:
    """The library that waits in each row; for a child that asyncio made, its Popen is asyncio's too."""
    known = [_LIBRARY.get(name, _PROGRAM) for name in history.readings.names("cause")]
    library = np.array([*known, _PROGRAM])[history.wait_rules[rows]]
    polls = _is_cause(history, rows, "poll")
    library = np.where(polls, np.where(_in_subprocess(history, rows), _SUBPROCESS, _MULTIPROCESSING), library)
    by_asyncio = made == history.readings.names("created_by").index("asyncio")
    return np.where((library == _SUBPROCESS) & by_asyncio, _ASYNCIO, library)


def _in_subprocess(history: History, rows: Ints) -> Flags:
    """Whether the innermost frame is subprocess's."""
    sites = history.sites
    innermost = each(
        lambda stack: int(any(one.module == "subprocess.py" for _, one in sites.inner(stack)[:1])), sites.code[rows]
    )
    so: Flags = innermost == 1
    return so


def seen(history: History, wait: Ints, child: Ints, made: Ints) -> Ints:
    """Return what who waits in vain gets to see, an index into `SEEN`; `made` is what made each process.

    popen_fork.poll returns None and asks again the next time; subprocess takes ECHILD for status 0, and asyncio's child
    watchers for 255: so in the sources of CPython 2.7 to 3.13.
    """
    library = _library(history, wait, made[child])
    closed = _is_cause(history, wait, "asyncio") & _in_subprocess(history, wait)  # the Popen of a transport
    told = [
        (_is_cause(history, wait, *_SWEEPS) | closed, "not asked"),
        (_is_cause(history, wait, "resource-tracker"), "ECHILD"),
        (library == _MULTIPROCESSING, "exitcode None"),
        (library == _SUBPROCESS, "returncode 0"),
        (library == _ASYNCIO, "returncode 255"),
    ]
    return np.select([so for so, _ in told], [SEEN.index(name) for _, name in told], SEEN.index("ECHILD"))
