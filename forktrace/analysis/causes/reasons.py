"""What made each process, and why it was reaped: what the rules say of its stacks, and what needs no stack."""

from __future__ import annotations

from typing import Final

import numpy as np

from forktrace.analysis.causes.endings import removed
from forktrace.analysis.causes.rules import CAUSES, CREATORS, each
from forktrace.analysis.causes.sites import Sites
from forktrace.analysis.history import History
from forktrace.analysis.late import late
from forktrace.analysis.log import NEVER, NONE, Flags, Ints, Log, first_rows, pick
from forktrace.analysis.once import once
from forktrace.trace import events

_VFORKED: Final = 0x4100  # CLONE_VFORK|CLONE_VM (linux/sched.h): posix_spawn, vfork, and what libc builds on them
_HAS_POSIX_SPAWN: Final = (3, 8)  # the first Python with os.posix_spawn


@once
def creators(history: History) -> Ints:
    """Return what made each process, an index into `CREATORS` and what users' rules add; NONE: a fork outside the recording.

    Where no rule fits the stack of the forker, its own code forked. A child that shares its parent's memory until it calls exec
    (vfork) comes from os.posix_spawn, if this Python has it, or else from C code; os.system is told by `_by_libc`.
    """
    log, sites, readings = history.log, history.sites, history.readings
    row = log.fork_row
    stack = pick(sites.code, row)
    by_rule = readings.of_stacks("created_by", stack)
    vforked = (log.at("flags", row) & _VFORKED == _VFORKED) & (row != NONE)
    too_old = each(lambda one: int(() < readings.version(one) < _HAS_POSIX_SPAWN), stack) == 1
    told: list[tuple[Flags, str]] = [
        (np.isin(log.at("origin", row), _origins("target", "attached", "adopted")), ""),
        (_without_python(history, row) | _by_libc(history) | ((stack != NONE) & vforked & too_old), "native"),
        ((stack != NONE) & vforked, "posix-spawn"),
        (stack != NONE, "os-fork"),
        (np.ones(log.count, bool), "unknown"),
    ]
    return np.where(by_rule != NONE, by_rule, _select(told, CREATORS))


def _origins(*names: str) -> list[int]:
    return [events.ORIGINS.index(name) for name in names]


def _select(told: list[tuple[Flags, str]], names: tuple[str, ...]) -> Ints:
    """The name of the first condition that holds, as an index into `names`; NONE for an empty name."""
    return np.select([so for so, _ in told], [names.index(name) if name else NONE for _, name in told])


def _without_python(history: History, row: Ints) -> Flags:
    """Whether the acting thread of a row runs no Python: not a Python program, or a thread without a thread state."""
    statuses = [events.STACK_STATUSES.index(one) for one in ("not-python", "no-thread-state")]
    without: Flags = np.isin(history.log.at("stack_status", row), statuses)
    return without


def _by_libc(history: History) -> Flags:
    """Which processes libc forked and waited for in one call, as os.system does.

    The child runs `sh -c`, and the same thread forked it and waited for it with the same stack, down to the line (in vain where
    SIGCHLD is ignored). In Python 2 os.popen is C code, too, and waits on another line; there every vfork is made by C code.
    """
    log, sites, readings = history.log, history.sites, history.readings
    row = log.fork_row
    stack = pick(sites.code, row)
    wait, child = late(history)
    ended = np.where(history.waited, history.release_row, first_rows(_about(log, wait, child), wait, log.count))
    same = (pick(sites.code, ended) == stack) & (log.at("by_tid", ended) == log.at("by_tid", row))
    same &= pick(log.by_id, ended) == pick(log.by_id, row)
    second = each(lambda one: int(readings.version(one)[:1] == (2,)), stack) == 1
    second &= log.at("flags", row) & _VFORKED == _VFORKED
    likely = np.flatnonzero((stack != NONE) & (same | second) & (readings.of_stacks("created_by", stack) == NONE))
    execs = log.rows("exec")
    first = first_rows(log.id, execs[log.id[execs] != NONE], log.count)[likely]
    found = np.zeros(log.count, bool)
    found[likely] = log.texts("argv", first).str.startswith("sh\0-c\0").to_numpy(bool, na_value=False)
    return found


def _about(log: Log, rows: Ints, ids: Ints) -> Ints:
    """The process of each row of the trace: `ids` for `rows`, NONE for all others."""
    about = np.full(len(log.time_ns), NONE)
    about[rows] = ids
    return about


def _by_loop_in_c(history: History, row: Ints) -> Flags:
    """Whether an event loop in C (uvloop) waited for a child of asyncio: on the line on which the loop called the forker.

    The stack of the wait is then the outer part of the stack of the fork, in the same thread.
    """
    log, sites = history.log, history.sites
    made = history.readings.of_stacks("created_by", pick(sites.code, log.fork_row)) == CREATORS.index("asyncio")
    likely = np.flatnonzero(made & (log.at("by_tid", row) == log.at("by_tid", log.fork_row)) & (row != NONE))
    fork, wait = (pick(sites.code, rows)[likely].tolist() for rows in (log.fork_row, row))
    found = np.zeros(log.count, bool)
    found[likely] = [NONE not in pair and _is_outer_part(sites, *pair) for pair in zip(wait, fork, strict=True)]
    return found


def _is_outer_part(sites: Sites, part: int, whole: int) -> bool:
    return sites.texts[whole].startswith(f"{sites.texts[part]};")


def causes(history: History) -> Ints:
    """Return why each process was reaped, an index into `CAUSES` and what users' rules add; NONE: it has not ended yet.

    A rule that fits the stack of the wait decides, but what an adopter reaps is `parent-exit`. A wait whose stack fits no rule
    was made by an installed package that the program called, or by the program itself; one without a stack by native code,
    where that is known.
    """
    log, known = history.log, history.parents
    row = np.where(history.waited, history.release_row, NONE)
    by_rule = pick(history.wait_rules, row)
    dead = (log.exit_row != NONE) | (log.zombie_row != NONE) | (history.gone_ns < NEVER)
    disposition = log.at("disposition", np.where(history.autoreaped, history.release_row, log.exit_row))
    autoreaped = history.autoreaped | history.silent
    adopter = known.orphaned & (history.called("unseen") | history.waited)
    has_stack, own = pick(history.sites.code, row) != NONE, by_recorder(history)
    by_package = history.sites.library_codes(row, pick(log.by_id, row))[0] != NONE
    told: list[tuple[Flags, str]] = [
        (~dead, ""),
        (own, "recorder"),
        (history.gone_ns == NEVER, "never"),
        (removed(history), "pidns-exit"),
        (autoreaped & (disposition == events.DISPOSITIONS.index("ignored")), "autoreap-ignored"),
        (autoreaped & (disposition == events.DISPOSITIONS.index("nocldwait")), "autoreap-nocldwait"),
        (adopter, "parent-exit"),
        (_by_libc(history) | _without_python(history, row), "other-native"),
        (_by_loop_in_c(history, row), "asyncio"),
        (by_package, "library-wait"),
        (has_stack, "os-wait"),
        (np.ones(log.count, bool), "unknown"),
    ]
    return np.where((by_rule != NONE) & ~adopter & ~own, by_rule, _select(told, CAUSES))


def by_recorder(history: History) -> Flags:
    """Return which process forktrace itself reaps or will reap: the command, while forktrace is its parent."""
    log, known, recorder_pid = history.log, history.parents, history.log.trace.header["recorder_pid"]
    target = log.has_origin("target")
    reaper = log.at("by_pid", np.where(history.waited, history.release_row, NONE))
    own: Flags = target & ~known.orphaned & ~history.autoreaped & (known.last_pid == recorder_pid)
    return own & np.isin(reaper, (recorder_pid, NONE))
