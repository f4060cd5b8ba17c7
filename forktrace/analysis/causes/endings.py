"""How each process ended: its wait status, the signal that ended it, and the way it left Python."""

from __future__ import annotations

from typing import Final

import numpy as np

from forktrace.analysis.causes.rules import EXIT_PATHS
from forktrace.analysis.history import History
from forktrace.analysis.log import NONE, Flags, Ints, Log, distinct_of, last_rows, pick
from forktrace.analysis.once import once
from forktrace.trace import events
from forktrace.trace.waitstatus import Ending, decode

_SIGABRT: Final = 6


@once
def decoded(log: Log) -> tuple[Ints, Ints, Flags]:
    """The exit code and the killing signal of each process, NONE where there is none, and whether it dumped core."""
    distinct, which = distinct_of(log.at("status", log.exit_row))
    endings = [Ending(None, None, False) if status == NONE else decode(status) for status in distinct.tolist()]
    code = np.array([NONE if one.exit_code is None else one.exit_code for one in endings], np.int64)
    number = np.array([NONE if one.term_signal is None else one.term_signal for one in endings], np.int64)
    return code[which], number[which], np.array([one.core_dumped for one in endings], bool)[which]


@once
def killing_rows(history: History) -> Ints:
    """Return for each process the row of the signal that ended it: the last of that number up to its exit; NONE if none."""
    log = history.log
    rows = log.rows("signal")
    who = log.id[rows]
    fatal = log.at("signal", rows) == pick(decoded(log)[1], who)
    fatal &= (who != NONE) & (log.time_ns[rows] <= pick(history.exit_ns, who))
    return last_rows(log.id, rows[fatal], log.count)


def removed(history: History) -> Flags:
    """Which processes the kernel removed with their PID namespace.

    A dying init ignores SIGCHLD, so what it kills is autoreaped.
    """
    senders = history.log.at("sent_by", killing_rows(history))
    killed = (history.autoreaped | history.silent) & (senders == events.SENDERS.index("pidns"))
    gone: Flags = history.called("kernel") | killed
    return gone


def exit_paths(history: History) -> Ints:
    """Return how each process left, an index into `EXIT_PATHS` and what users' rules add; NONE: it runs, or its exit was lost.

    A Python frame at the exit means that os._exit was called: `os-exit`, or `bootstrap` where multiprocessing did. Without one
    the interpreter was finalised. Then SystemExit passes Py_Exit (`sys-exit`; the workers of the start method spawn and of
    loky end that way by themselves: `bootstrap`), and main returns 0 (`main-return`), or 1 after an exception that nobody
    caught. From 3.8 on `python -m` never passes Py_Exit, from 3.13.15 and 3.14.7 on nothing does (`returned`): there 0 and 1
    say nothing, while another code can only come from sys.exit.
    """
    log, sites = history.log, history.sites
    row = log.exit_row
    code, number, _ = decoded(log)
    stack, status = pick(sites.code, row), log.at("stack_status", row)
    by_rule = history.readings.of_stacks("exit_path", stack)
    came = log.at("exit_from", row)
    from_interpreter, from_py_exit, from_other, returned = (came == place for place in range(len(events.EXITS)))
    finalised = (from_other | returned) & (status == events.STACK_STATUSES.index("no-thread-state"))
    module, spawned = sites.command_lines(np.arange(log.count), pick(log.time_ns, row))
    either = module | returned
    told: list[tuple[Flags, str]] = [
        (row == NONE, ""),
        ((number == _SIGABRT) & _by_itself(history), "abort"),
        (number != NONE, "signal"),
        (status == events.STACK_STATUSES.index("not-python"), "not-python"),
        (from_interpreter & (stack != NONE), "os-exit"),
        (from_py_exit & spawned, "bootstrap"),
        (from_py_exit, "sys-exit"),
        (finalised & either & spawned & (code != 1), "bootstrap"),
        (finalised & either & (code > 1), "sys-exit"),
        (finalised & ~either & (code == 0), "main-return"),
        (finalised & ~either & (code == 1), "exception"),
        (np.ones(log.count, bool), "unknown"),
    ]
    path = np.select([so for so, _ in told], [EXIT_PATHS.index(name) if name else NONE for _, name in told])
    return np.where(from_interpreter & (by_rule != NONE), by_rule, path)


def _by_itself(history: History) -> Flags:
    """Which processes sent the fatal signal to themselves, as abort() does."""
    row = killing_rows(history)
    itself: Flags = (row != NONE) & (pick(history.log.by_id, row) == np.arange(history.log.count))
    return itself
