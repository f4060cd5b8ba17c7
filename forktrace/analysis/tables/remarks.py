"""What a row of lifecycles says about itself: its notes, and whether it is complete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE, Flags, Ints, chosen, distinct_of, last_rows
from forktrace.analysis.losses import lived_through_loss, touched_by_lost_exec
from forktrace.analysis.once import once
from forktrace.analysis.requests import made_by_server, start_rows
from forktrace.analysis.tables.starts import cleared_by
from forktrace.trace import events

PARENT_STOPPED: Final = "its parent was stopped when it ended"
EXIT_ESTIMATED: Final = "found as a zombie; its exit time is estimated"
EXIT_AT_THE_LATEST: Final = "found as a zombie; its exit time is an upper bound"
_LOST_EXEC: Final = "a program that was run before was lost: command line and sites may be those of an older one"
_FORMAT_OF_REQUESTS: Final = 2


class Remark(NamedTuple):
    """A note, the processes that it is true of, and whether their rows are complete all the same."""

    text: str
    applies: Callable[[History], Flags]
    complete: bool = False


def remarks(history: History) -> dict[str, object]:
    """Return the columns `complete` and `notes`; notes stand in the order of `REMARKS`."""
    count = history.log.count
    complete, codes = np.ones(count, bool), np.zeros(count, np.int64)
    for bit, one in enumerate(REMARKS):
        true_of = one.applies(history)
        complete &= ~true_of | one.complete
        codes |= true_of.astype(np.int64) << bit
    distinct, which = distinct_of(codes)
    return {"complete": complete, "notes": chosen(which, [_notes(code) or pd.NA for code in distinct.tolist()])}


def _notes(code: int) -> str:
    """The notes whose bits are set."""
    return "; ".join(one.text for bit, one in enumerate(REMARKS) if code >> bit & 1)


def _detail_is(history: History, rows: Ints, text: str) -> Flags:
    """Which processes have a row, of these, whose detail is `text`."""
    return history.log.texts("detail", rows).eq(text).to_numpy(bool, na_value=False)


@once
def _is_estimated(history: History) -> Flags:
    """Which zombies were found as such, with an exit time that is an estimate."""
    return _detail_is(history, np.where(history.found_dead, history.log.exit_row, NONE), events.FOUND_DEAD[1])


def _zombie_from_exit(history: History) -> Flags:
    """Which zombies have no row of their own: they are counted from the exit."""
    unseen: Flags = history.zombie_unseen & ~history.found_dead
    return unseen


def _is_argv_cut(history: History) -> Flags:
    log = history.log
    return _detail_is(history, last_rows(log.id, log.rows("exec"), log.count), "argv cut")


def _is_asker_unknown(history: History) -> Flags:
    """Which children of a fork server have no request, in a trace that has requests."""
    has_requests = history.log.trace.header["format"] >= _FORMAT_OF_REQUESTS
    unknown: Flags = made_by_server(history) & (start_rows(history) == NONE) & has_requests
    return unknown


REMARKS: Final = (
    Remark("fork not seen", lambda history: history.log.fork_row == NONE),
    Remark("started before the recording", lambda history: history.log.has_origin("attached")),
    Remark("forked outside the recording", lambda history: history.log.has_origin("adopted")),
    Remark("exit not seen", lambda history: (history.gone_ns < NEVER) & (history.log.exit_row == NONE)),
    Remark("gone; when is not known", lambda history: history.vanished),
    Remark(EXIT_ESTIMATED, _is_estimated),
    Remark(EXIT_AT_THE_LATEST, lambda history: history.found_dead & ~_is_estimated(history)),
    Remark("no exit signal", lambda history: _zombie_from_exit(history) & (history.exit_signal == 0), complete=True),
    Remark(
        "notification not seen; zombie counted from the exit",
        lambda history: _zombie_from_exit(history) & (history.exit_signal != 0),
    ),
    Remark("reap not seen; time is an upper bound", lambda history: history.called("unseen")),
    Remark("reap inferred: the wait did not name its child", lambda history: history.inferred),
    Remark("release not seen; inferred from the ignored SIGCHLD", lambda history: history.silent),
    Remark("events were lost while it lived", lambda history: lived_through_loss(history.log)),
    Remark(_LOST_EXEC, touched_by_lost_exec),
    Remark("argv cut", _is_argv_cut, complete=True),
    Remark("clearing start inferred", lambda history: cleared_by(history)[1], complete=True),
    Remark(PARENT_STOPPED, lambda history: _detail_is(history, history.log.zombie_row, events.PARENT_STOPPED), complete=True),
    Remark("which line asked the fork server for it is not known", _is_asker_unknown, complete=True),
)
