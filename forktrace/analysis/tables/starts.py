"""Which start of a process cleared which zombies, and the forks that failed."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.rules import CAUSES, each
from forktrace.analysis.history import History
from forktrace.analysis.log import NONE, Flags, Ints, Log, category, nullable, pick
from forktrace.analysis.once import once
from forktrace.analysis.options import WNOHANG
from forktrace.analysis.requests import is_server, start_rows
from forktrace.trace import events

# A sweep and the fork after it are neighbouring lines of one function: microseconds apart on an idle machine. 100 ms leaves
# room for a loaded one and tells them from a poll that happens to come before a start.
SWEEP_GAP_NS: Final = 100_000_000

METHODS: Final = ("fork", "spawn", "forkserver")
PASSES: Final = ("next-start", "active-children", "exit-handler")  # that go through the children of multiprocessing's set

_POPENS: Final = {"popen_fork.py": "fork", "forking.py": "fork", "popen_spawn_posix.py": "spawn"}


@once
def cleared_by(history: History) -> tuple[Ints, Flags]:
    """Return for each process the one whose start swept it away, NONE where none did; and where this is inferred.

    With the stacks of both, the reap is a sweep of the very call that then forks: the frames outside of `Process.start` are the
    same, down to the line, and the fork is the thread's next. Where a stack is missing it is inferred: one thread reaps named
    children with WNOHANG, one or several in a row, and then forks, with no other fork or wait of that thread between, each step
    within `SWEEP_GAP_NS` of the one before.
    """
    exact, inferred = _seen(history), _inferred(history)
    return np.where(exact == NONE, inferred, exact), (exact == NONE) & (inferred != NONE)


def _seen(history: History) -> Ints:
    """The start that swept each process, where the stacks say so: the thread's next fork is in the same call of `start`."""
    log = history.log
    reaps = _is_sweep(history) & (history.wait_rules == CAUSES.index("next-start"))
    rows = _by_thread(log, np.flatnonzero(reaps | log.is_kind("fork", "fork-failed")))
    start = _start_calls(history, rows)
    helper = ~reaps[rows] & (start != NONE) & ~_is_start(history, history.sites.code[rows])
    rows, start = rows[~helper], start[~helper]
    following = _next_other(reaps[rows])
    swept = np.flatnonzero(reaps[rows] & (start != NONE) & (following < len(rows)))
    fork = following[swept]
    same = (start[fork] == start[swept]) & log.is_kind("fork")[rows[fork]] & _is_same_thread(log, rows[fork], rows[swept])
    return _cleared(log, rows[swept[same]], rows[fork[same]])


def _start_calls(history: History, rows: Ints) -> Ints:
    """A number for the call of `Process.start` that each row is in, the same for the same call; NONE: in none, or not known."""
    stack = np.where(_is_whole(history.log)[rows], history.sites.code[rows], NONE)
    calls: dict[str, int] = {"": NONE}
    return each(lambda one: calls.setdefault(history.readings.start_of(one), len(calls)), stack)


def _is_start(history: History, stacks: Ints) -> Flags:
    """Which forks with these stacks make the process that is started, not a helper such as the resource tracker."""
    starts: Flags = each(lambda one: int(history.readings.starts_process(one)), stacks) == 1
    return starts


def _by_thread(log: Log, rows: Ints) -> Ints:
    """Rows in the order of their processes and threads, those of a thread in time order."""
    return rows[np.lexsort((rows, log.at("by_tid", rows), log.by_id[rows]))]


def _is_same_thread(log: Log, rows: Ints, others: Ints) -> Flags:
    """Whether each row is by the thread of the other."""
    tid = log.numbers("by_tid")
    same: Flags = (log.by_id[rows] == log.by_id[others]) & (tid[rows] == tid[others])
    return same


def _next_other(those: Flags) -> Ints:
    """For each place the next one, from it on, that is not one of `those`; their number where there is none."""
    place = np.where(those, len(those), np.arange(len(those)))
    return np.minimum.accumulate(place[::-1])[::-1]


def _cleared(log: Log, swept: Ints, forks: Ints) -> Ints:
    """The process that each one was cleared by, from the rows of reaps and of the forks of these starts."""
    cleared = np.full(log.count, NONE)
    cleared[log.id[swept]] = log.id[forks]
    return cleared


def _is_whole(log: Log) -> Flags:
    """Which rows have a stack with all its frames."""
    whole: Flags = log.numbers("stack_status") == events.STACK_STATUSES.index("ok")
    return whole


def _inferred(history: History) -> Ints:
    """The start that swept each process, by the order of one thread's calls, where a stack is missing and the other fits."""
    log, code = history.log, history.sites.code
    rows = log.rows("fork", "fork-failed", "reap", "wait")
    rows = _by_thread(log, rows[log.numbers("by_tid")[rows] != NONE])
    if not len(rows):
        return np.full(log.count, NONE)
    fits = (code == NONE) | (history.wait_rules == CAUSES.index("next-start"))
    sweeps, fork = _chains(log, rows, (_is_sweep(history) & fits)[rows])
    swept, start = rows[sweeps], rows[fork]
    missing = ~(_is_whole(log)[swept] & _is_whole(log)[start])
    missing &= (code[start] == NONE) | _is_start(history, code[start])
    return _cleared(log, swept[missing], start[missing])


def _chains(log: Log, rows: Ints, sweeps: Flags) -> tuple[Ints, Ints]:
    """The places in `rows` of the sweeps that lead to a fork, with nothing else and no long gap between, and of these forks."""
    goes_on = sweeps | np.isin(rows, log.fork_row)
    linked = sweeps & np.append(_follows(log, rows)[:-1] & goes_on[1:], False)
    broken = np.cumsum(~linked)  # a chain from one row to a later one is whole if this does not grow between
    last = _next_other(sweeps)
    whole = linked & (last < len(rows))
    whole &= broken[np.minimum(last, len(rows)) - 1] == broken
    return np.flatnonzero(whole), last[whole]


def _is_sweep(history: History) -> Flags:
    """Reaps of a named child with WNOHANG that are the reap of that child."""
    log = history.log
    real = np.zeros(len(log.time_ns), bool)
    real[history.release_row[history.waited]] = True
    named = log.numbers("target") == events.TARGETS.index("pid")
    sweeps: Flags = real & log.is_kind("reap") & named & (log.numbers("flags") & WNOHANG != 0)
    return sweeps


def _follows(log: Log, rows: Ints) -> Flags:
    """Whether the next row is by the same thread and soon enough."""
    soon = np.diff(log.time_ns[rows]) <= SWEEP_GAP_NS
    return np.append(soon & _is_same_thread(log, rows[1:], rows[:-1]), False)


def starts(history: History) -> pd.DataFrame:
    """Return one row per start and process that it cleared, one with `<NA>` for a start that cleared none, in time order.

    A start of multiprocessing does three things: it polls the children in the set of its process and reaps the dead
    (`_cleanup`), a Popen forks, and the child joins the set. Only the fork is known of starts that are not multiprocessing's.

    Columns:
        time_ns               int64, ns  the fork of the start
        start_id, parent_id   int64, Int64  the process that was started; its parent
        site                  string     line that started it
        cleared_id            Int64      the zombie that was cleared, in the order of their forks
        zombie_ms             float64    how long it had been a zombie
        cleared_ns            Int64, ns  when it was
        polled                Int64      how many children the start polled, dead or alive: those in the set
        method                category   `fork` `spawn` `forkserver`: whose Popen forked; `<NA>`: not multiprocessing's
        children              Int64      how many are in the set once the started one is
        found_by              category   `next-start` `active-children` `exit-handler`: found it dead in the set and reaped it
    """
    log = history.log
    started = np.flatnonzero(log.has_origin("forked"))
    by, _ = cleared_by(history)
    cleared = np.flatnonzero(by != NONE)
    idle = np.setdiff1d(started, by[cleared])
    start, swept = np.concatenate([by[cleared], idle]), np.concatenate([cleared, np.full(len(idle), NONE)])
    order = np.lexsort((swept, start))
    start, swept = start[order], swept[order]
    gone_ns = pick(history.gone_ns, swept)
    zombie_ns = gone_ns - pick(history.zombie_ns, swept)
    children = _child_sets(history)[start]
    row = start_rows(history)[start]
    polled = children - 1 + np.bincount(by[cleared], minlength=log.count)[start]
    return pd.DataFrame(
        {
            "time_ns": log.fork_ns[start],
            "start_id": start,
            "parent_id": nullable(history.parents.id[start]),
            "site": history.sites.sites(row, pick(log.by_id, row)),
            "cleared_id": nullable(swept),
            "zombie_ms": np.where(swept == NONE, np.nan, np.maximum(zombie_ns, 0) / 1e6),
            "cleared_ns": nullable(gone_ns),
            "polled": nullable(np.where(children == NONE, NONE, polled)),
            "method": category(each(lambda one: _method(history, one), _fork_stacks(history)[start]), METHODS),
            "children": nullable(children),
            "found_by": category(_found_by(history)[start], PASSES),
        }
    )


def _fork_stacks(history: History) -> Ints:
    """The stack of the fork of each process."""
    return pick(history.sites.code, history.log.fork_row)


def _method(history: History, stack: int) -> int:
    """The start method whose Popen forks on a stack, an index into `METHODS`; NONE where none does."""
    if is_server(history, stack):
        return METHODS.index("forkserver")
    inner = history.sites.inner(stack) if history.readings.starts_process(stack) else []
    files = [place.module.rpartition("/")[2] for _, place in inner]
    return next((METHODS.index(_POPENS[file]) for file in files if file in _POPENS), NONE)


def _child_sets(history: History) -> Ints:
    """How many children the set of its process held once each process was in it; NONE where that cannot be told.

    `multiprocessing.process._children`, of what a process started itself. A child leaves it when the library polls it dead. It
    stays for ever when something else takes its status, or nobody does: `poll` then gets ECHILD and takes it for alive.
    """
    log = history.log
    made = _is_start(history, _fork_stacks(history))
    started = np.flatnonzero(made)
    reap = np.where(history.waited, history.release_row, NONE)
    left = started[each(lambda one: int(_polls(history, one)), pick(history.sites.code, reap))[started] == 1]
    forker = pick(log.by_id, log.fork_row)
    steps = pd.DataFrame(
        {
            "process": np.concatenate([forker[started], forker[left]]),
            "time_ns": np.concatenate([log.time_ns[log.fork_row[started]], history.gone_ns[left]]),
            "change": np.repeat([1, -1], [len(started), len(left)]),
        }
    ).sort_values(["process", "time_ns"], kind="stable")
    counts = steps.groupby("process")["change"].cumsum().sort_index().to_numpy()
    found = np.full(log.count, NONE)
    found[started] = counts[: len(started)]
    native = log.at("stack_status", log.fork_row) == events.STACK_STATUSES.index("not-python")
    unknown = (_fork_stacks(history) == NONE) & ~native
    unknown |= made & (reap != NONE) & (pick(history.sites.code, reap) == NONE)
    found[np.isin(forker, forker[unknown]) | (forker == NONE)] = NONE
    return found


def _polls(history: History, stack: int) -> bool:
    """Whether a wait with this stack is the library's own, of a Popen for its child."""
    innermost = history.sites.inner(stack)[:1]
    return any(
        place.home in ("python", "packages")
        and frame.name == "poll"
        and place.module.rpartition("/")[2].startswith(("popen_", "forking."))
        for frame, place in innermost
    )


def _found_by(history: History) -> Ints:
    """What reaped each process on its way through the set, an index into `PASSES`; NONE: it was reaped otherwise, or not."""
    rule = pick(history.wait_rules, np.where(history.waited, history.release_row, NONE))
    return np.select([rule == CAUSES.index(name) for name in PASSES], list(range(len(PASSES))), NONE)


def failed_forks(history: History) -> pd.DataFrame:
    """Return one row per fork, vfork, clone or clone3 of a process that returned an error, in time order.

    Columns:
        time_ns   int64, ns  when the call returned
        id, tid   Int64      the process and the thread that called
        errno     Int64      the error's number
        limit     string     which limit was met; `<NA>`: cannot be told
        allowed   Int64      how many threads and processes that limit allows; `<NA>`: cannot be told
        zombies   int64      how many processes of the recording were zombies then
        site      string     line that called
    """
    log = history.log
    rows = log.rows("fork-failed")
    zombie = history.zombie_ns != NONE
    born_ns, gone_ns = np.sort(history.zombie_ns[zombie]), np.sort(history.gone_ns[zombie])
    return pd.DataFrame(
        {
            "time_ns": log.time_ns[rows],
            "id": nullable(log.id[rows]),
            "tid": nullable(log.at("by_tid", rows)),
            "errno": nullable(log.at("result", rows)),
            "limit": log.texts("detail", rows),
            "allowed": nullable(log.at("count", rows)),
            "zombies": np.searchsorted(born_ns, log.time_ns[rows], "right")
            - np.searchsorted(gone_ns, log.time_ns[rows], "right"),
            "site": history.sites.sites(rows, log.by_id[rows]),
        }
    )
