"""The lifecycle table: one row per process, from its fork to its release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.causes.endings import decoded, exit_paths, killing_rows, removed
from forktrace.analysis.causes.programs import Programs, comm_rows, command_lines, comms_at
from forktrace.analysis.causes.reasons import causes, creators
from forktrace.analysis.causes.rules import CAUSES, CREATORS, EXIT_PATHS
from forktrace.analysis.causes.sites import Sites
from forktrace.analysis.history import History
from forktrace.analysis.log import (
    NEVER,
    NONE,
    REAP_CALLS,
    Flags,
    Ints,
    Log,
    category,
    chosen,
    last_rows,
    nullable,
    pick,
)
from forktrace.analysis.options import option_names
from forktrace.analysis.requests import start_rows
from forktrace.analysis.tables.remarks import remarks
from forktrace.analysis.tables.starts import cleared_by
from forktrace.trace import events
from forktrace.trace.waitstatus import signal_name

SIGNALS: Final = tuple(signal_name(number) for number in range(1, 0x7F))
_SIGKILL: Final = 9
STATES: Final = ("gone", "zombie", "running", "continued")
LIVING: Final = ("running", "continued")

# Column -> dtype, in the order of the table. An enumeration is given by its values.
COLUMNS: Final[Mapping[str, str | tuple[str, ...]]] = {
    "id": "int64",
    "parent_id": "Int64",
    "pid": "int64",
    "ns_pid": "Int64",
    "ppid": "int64",
    "forker_pid": "int64",
    "forker_tid": "int64",
    "fork_comm": "string",
    "comm": "string",
    "argv": "string",
    "cgroup": "string",
    "origin": events.ORIGINS,
    "fork_time": "datetime64[ns, UTC]",
    "fork_ns": "Int64",
    "exec_ns": "Int64",
    "exit_ns": "Int64",
    "zombie_ns": "Int64",
    "reap_ns": "Int64",
    "run_ms": "float64",
    "zombie_ms": "float64",
    "own_zombie_ms": "float64",
    "zombie_open": "bool",
    "awaited": "boolean",
    "cleared_by_id": "Int64",
    "fork_call": ("fork", "vfork", "clone", "clone3"),
    "created_by": CREATORS,
    "fork_site": "string",
    "fork_stack": "string",
    "fork_stack_status": events.STACK_STATUSES,
    "fork_library": "string",
    "start_site": "string",
    "start_stack": "string",
    "exit_code": "Int64",
    "term_signal": SIGNALS,
    "core_dumped": "bool",
    "exit_path": EXIT_PATHS,
    "exit_site": "string",
    "killer_kind": events.SENDERS,
    "killer_pid": "Int64",
    "killer_id": "Int64",
    "killer_site": "string",
    "reaper_pid": "Int64",
    "reaper_tid": "Int64",
    "reaper_id": "Int64",
    "reap_call": REAP_CALLS,
    "reap_target": events.TARGETS,
    "reap_options": "string",
    "reap_site": "string",
    "reap_stack": "string",
    "reap_stack_status": events.STACK_STATUSES,
    "reap_library": "string",
    "reap_cause": CAUSES,
    "empty_waits": "int64",
    "adopter_pid": "Int64",
    "adopter_id": "Int64",
    "utime_ms": "float64",
    "stime_ms": "float64",
    "max_rss_kb": "Int64",
    "state": STATES,
    "carried": "bool",
    "complete": "bool",
    "notes": "string",
}


def lifecycles(history: History) -> pd.DataFrame:
    """Return one row per process, in fork order; the columns are `COLUMNS`, described in docs/tables.md.

    Times are CLOCK_BOOTTIME ns, `<NA>` where a moment did not come before the end of the trace or was lost. `id` is the
    position of the row. `zombie_ms` of a zombie that is still there is its age at the end of the trace.
    """
    columns: dict[str, object] = {}
    for part in (_identity, _start, _moments, _stacks, _ending, _killer, _release, _account, remarks):
        columns |= part(history)
    return pd.DataFrame({name: columns[name] for name in COLUMNS}, copy=False)


def what_ended(row: Any) -> str:
    """Return what ended before a process that was running then: the recording, or a file of a rotation."""
    return "this file of the rotation ended" if row.state == "continued" else "the recording ended"


def _identity(history: History) -> dict[str, object]:
    log, known = history.log, history.parents
    ns_pid = log.at("ns_pid", log.fork_row)
    adopted = log.has_origin("adopted")  # whose children these were is not known, only who inherited them
    return {
        "id": np.arange(log.count),
        "parent_id": nullable(np.where(adopted, NONE, known.id)),
        "pid": log.pid.copy(),
        "ns_pid": nullable(np.where(ns_pid == NONE, log.pid, ns_pid)),
        "ppid": _or_zero(np.where(adopted, NONE, known.pid)),
        "forker_pid": _or_zero(log.at("by_pid", log.fork_row)),
        "forker_tid": _or_zero(log.at("by_tid", log.fork_row)),
        "fork_comm": _fork_comm(log),
        "comm": log.texts("comm", last_rows(log.id, comm_rows(log), log.count)),
        "argv": _argv(log),
        "cgroup": log.texts("cgroup", _last_cgroup(log)),
        "origin": category(log.at("origin", log.fork_row), events.ORIGINS),
        "fork_call": category(log.at("call", log.fork_row), events.CALLS[:4]),
    }


def _start(history: History) -> dict[str, object]:
    """Which line forked each process, which asked for it (the same without fork servers), and whose start cleared it."""
    row, fork_row = start_rows(history), history.log.fork_row
    fork_site, fork_stack = _places(history, fork_row)
    same = np.array_equal(row, fork_row)
    start_site, start_stack = (fork_site.copy(), fork_stack.copy()) if same else _places(history, row)
    return {
        "fork_site": fork_site,
        "fork_stack": fork_stack,
        "start_site": start_site,
        "start_stack": start_stack,
        "cleared_by_id": nullable(cleared_by(history)[0]),
    }


def _places(history: History, row: Ints) -> tuple[pd.Series, pd.Series]:
    """The sites and the stacks of the threads that acted in these rows."""
    return history.sites.sites(row, pick(history.log.by_id, row)), history.sites.stack_texts(row)


def _or_zero(pid: Ints) -> Ints:
    """A number that is not known is 0, as that of a process that cannot be seen is."""
    return np.where(pid == NONE, 0, pid)


def _last_cgroup(log: Log) -> Ints:
    return last_rows(log.id, np.flatnonzero(log.is_kind("fork", "exec") & log.present("cgroup")), log.count)


def _fork_comm(log: Log) -> pd.Series:
    """What the forker was called when it forked, where it has run another program since."""
    forker, fork_ns = pick(log.by_id, log.fork_row), pick(log.time_ns, log.fork_row)
    execs = log.rows("exec")
    became = pick(pick(log.time_ns, last_rows(log.id, execs[log.id[execs] != NONE], log.count)), forker) > fork_ns
    return comms_at(log, np.where(became, forker, NONE), fork_ns)


def _argv(log: Log) -> pd.Series:
    """The arguments of the last exec, else those that the forker had at the fork, quoted for a shell."""
    return command_lines(log, Programs(log).at(np.arange(log.count), np.full(log.count, NEVER)))


def _moments(history: History) -> dict[str, object]:
    log = history.log
    execs = log.rows("exec")
    reap_ns = np.where(history.release_row == NONE, NONE, history.gone_ns)
    zombie = history.zombie_ns != NONE
    wall_ns = (log.fork_ns + log.trace.header["clock_offset_ns"]).view("datetime64[ns]")
    return {
        "fork_time": pd.DatetimeIndex(wall_ns).tz_localize("UTC"),
        "fork_ns": nullable(log.fork_ns),
        "exec_ns": nullable(pick(log.time_ns, last_rows(log.id, execs, log.count))),
        "exit_ns": nullable(history.exit_ns),
        "zombie_ns": nullable(history.zombie_ns),
        "reap_ns": nullable(reap_ns),
        "run_ms": _ms(history.exit_ns - log.fork_ns, history.exit_ns != NONE),
        "zombie_ms": _ms(history.lasted_ns, history.lasted_ns != NONE),
        "own_zombie_ms": _ms(history.own_lasted_ns, history.lasted_ns != NONE),
        "zombie_open": zombie & (history.gone_ns == NEVER),
        "awaited": _awaited(log),
    }


def _awaited(log: Log) -> pd.arrays.BooleanArray:
    """Whether a thread of the first parent to be notified was waiting for the child by then."""
    waiters = log.at("count", log.zombie_row)
    return pd.arrays.BooleanArray(waiters > 0, waiters == NONE)


def _ms(ns: Ints, known: Flags) -> npt.NDArray[np.float64]:
    return np.where(known, ns / 1e6, np.nan)


def _stacks(history: History) -> dict[str, object]:
    """Where in the program each process was made, left, was killed and reaped, and why."""
    log, sites, readings = history.log, history.sites, history.readings
    killer, reap = killing_rows(history), np.where(history.waited, history.release_row, NONE)
    path = exit_paths(history)
    by_itself = (pick(log.by_id, killer) == np.arange(log.count)) & (pick(sites.code, killer) != NONE)
    ended = np.where(by_itself, killer, log.exit_row)  # who kills himself stands at the kill, and his other threads anywhere
    ended = np.where(_from_outside(history, killer), NONE, ended)
    return {
        "fork_stack_status": sites.statuses(log.fork_row),
        "fork_library": sites.packages(log.fork_row, pick(log.by_id, log.fork_row)),
        "created_by": category(creators(history), readings.names("created_by")),
        "exit_path": category(path, readings.names("exit_path")),
        "exit_site": _exit_sites(sites, ended, path == EXIT_PATHS.index("bootstrap")),
        "killer_site": sites.sites(killer, pick(log.by_id, killer)),
        "reap_site": sites.sites(reap, pick(log.by_id, reap)),
        "reap_stack": sites.stack_texts(reap),
        "reap_stack_status": sites.statuses(reap),
        "reap_library": sites.packages(reap, pick(log.by_id, reap)),
        "reap_cause": category(causes(history), readings.names("cause")),
    }


def _exit_sites(sites: Sites, ended: Ints, inherited: Flags) -> pd.Series:
    """Where each process ended; the innermost frame where what is on its stack by then was there before the fork."""
    own, texts = sites.site_codes(ended, np.arange(len(ended)))
    last, others = sites.innermost_codes(ended)
    last = np.where(last == NONE, NONE, last + len(texts))
    return chosen(np.where(inherited, last, own), [*texts, *others])


def _from_outside(history: History, killer: Ints) -> Flags:
    """Whose death no line of their own brought about: another process or the OOM killer did, not a fault or a closed pipe."""
    log = history.log
    by_itself = pick(log.by_id, killer) == np.arange(log.count)
    fault = (log.at("sent_by", killer) == events.SENDERS.index("kernel")) & (log.at("signal", killer) != _SIGKILL)
    so: Flags = (killer != NONE) & ~by_itself & ~fault
    return so


def _ending(history: History) -> dict[str, object]:
    code, number, core = decoded(history.log)
    return {
        "exit_code": nullable(code),
        "term_signal": category(np.where(number == NONE, NONE, number - 1), SIGNALS),
        "core_dumped": core.copy(),
    }


def _killer(history: History) -> dict[str, object]:
    log = history.log
    row = killing_rows(history)
    kind = log.at("sent_by", row)
    chosen = last_rows(log.id, log.rows("oom"), log.count)
    kernel, oom = events.SENDERS.index("kernel"), events.SENDERS.index("oom")
    by_oom = (chosen != NONE) & (decoded(log)[1] == 9) & np.isin(kind, (kernel, NONE))
    return {
        "killer_kind": category(np.where(by_oom, oom, kind), events.SENDERS),
        "killer_pid": nullable(log.at("by_pid", row)),
        "killer_id": nullable(pick(log.by_id, row)),
    }


def _release(history: History) -> dict[str, object]:
    log, known, row = history.log, history.parents, history.release_row
    unseen, by_wait = history.called("unseen"), np.where(history.autoreaped, NONE, row)
    named = log.at("by_pid", by_wait) != NONE
    by_parent = unseen & ~named
    call = pick(np.array([_code(REAP_CALLS, call) for call in events.CALLS]), log.at("call", by_wait))
    call = np.where(history.autoreaped | history.silent, REAP_CALLS.index("autoreap"), call)
    call = np.where(removed(history), REAP_CALLS.index("kernel"), call)
    waited = np.where(history.waited, row, NONE)
    inherited = known.orphaned | log.has_origin("adopted")
    return {
        "reaper_pid": nullable(np.where(by_parent, known.last_pid, log.at("by_pid", by_wait))),
        "reaper_tid": nullable(np.where(unseen, NONE, log.at("by_tid", by_wait))),
        "reaper_id": nullable(np.where(by_parent, known.last_id, pick(log.by_id, by_wait))),
        "reap_call": category(call, REAP_CALLS),
        "reap_target": category(log.at("target", waited), events.TARGETS),
        "reap_options": option_names(log.at("flags", waited), log.at("call", waited)),
        "empty_waits": _empty_waits(history),
        "adopter_pid": nullable(np.where(inherited, known.last_pid, NONE)),
        "adopter_id": nullable(np.where(inherited, known.last_id, NONE)),
    }


def _code(values: tuple[str, ...], value: str) -> int:
    return values.index(value) if value in values else NONE


def _empty_waits(history: History) -> Ints:
    """The calls for this very child that came back without it: counted by its reap, or by its own running total."""
    log = history.log
    totals = log.rows("waits")
    own = last_rows(log.id, totals[(log.id[totals] != NONE) & (log.at("by_pid", totals) == NONE)], log.count)
    at_reap = log.at("count", np.where(history.autoreaped, NONE, history.release_row))
    return np.maximum(np.maximum(at_reap, log.at("count", own)), 0)


def _account(history: History) -> dict[str, object]:
    """What the kernel accounts at exit."""
    log = history.log
    utime_ns, stime_ns = log.at("utime_ns", log.exit_row), log.at("stime_ns", log.exit_row)
    living = STATES.index("continued" if log.continues else "running")
    exited = np.where(log.exit_row != NONE, STATES.index("zombie"), living)
    exited = np.where(log.zombie_row != NONE, STATES.index("zombie"), exited)
    exited[log.still[1][log.still[2]]] = STATES.index("zombie")
    return {
        "utime_ms": _ms(utime_ns, utime_ns != NONE),
        "stime_ms": _ms(stime_ns, stime_ns != NONE),
        "max_rss_kb": nullable(log.at("max_rss_kb", log.exit_row)),
        "state": category(np.where(history.gone_ns < NEVER, STATES.index("gone"), exited), STATES),
        "carried": (log.fork_row != NONE) & log.carried[log.fork_row] if len(log.carried) else np.zeros(log.count, bool),
    }
