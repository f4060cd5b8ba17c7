"""Which processes were there at one moment, as `ps` would have shown them."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.programs import Programs, command_lines, comms_at
from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE, Flags, Ints, category, nullable, pick

COLUMNS: Final = tuple("id parent_id pid ppid state elapsed_ms zombie_ms comm argv complete notes".split())
STATES: Final = ("running", "zombie")


def processes_at(history: History, lifecycles: pd.DataFrame, time_ns: int) -> pd.DataFrame:
    """Return one row per process that was there at `time_ns`, in fork order, with `id` as index too.

    A process is there from its fork until its release, and a zombie from the notification of its parent on; until then,
    dying is running.

    Columns:
        id            int64        its row of lifecycles
        parent_id     Int64        the parent at that moment; `<NA>`: outside the recording, or not known
        pid           int64        its number
        ppid          Int64        the parent's number at that moment; `<NA>`: the first had died, and the next is not known
        state         category     `running` (or asleep, or stopped), `zombie`; `<NA>`: it ended, when is not known
        elapsed_ms    float64, ms  since its fork
        zombie_ms     float64, ms  since it became a zombie; NaN: it is none
        comm          string       its name at that moment
        argv          string       arguments after the last exec until then, quoted for a shell; a zombie has none any more
        complete      bool         as in lifecycles: False when it, or its place here, is not certain
        notes         string       what is inferred or missing
    """
    log = history.log
    there = np.flatnonzero((log.fork_ns <= time_ns) & (time_ns < history.gone_ns))
    moment = np.full(len(there), time_ns)
    zombie = _reached(history.zombie_ns[there], time_ns)
    unsure = (log.exit_row[there] == NONE) & (history.gone_ns[there] < NEVER) & ~zombie
    parent_id, ppid = _parents(history, there, moment, zombie)
    table = pd.DataFrame(
        {
            "id": there,
            "parent_id": nullable(parent_id),
            "pid": log.pid[there],
            "ppid": nullable(ppid),
            "state": category(np.where(unsure, NONE, zombie.astype(np.int64)), STATES),
            "elapsed_ms": (time_ns - log.fork_ns[there]) / 1e6,
            "zombie_ms": np.where(zombie, (time_ns - history.zombie_ns[there]) / 1e6, np.nan),
            "comm": comms_at(log, there, moment),
            "argv": command_lines(log, Programs(log).at(there, moment)),
        }
    )
    table[["complete", "notes"]] = lifecycles[["complete", "notes"]].take(there).reset_index(drop=True)
    return table[list(COLUMNS)].set_index(there)


def _reached(moments_ns: Ints, time_ns: int) -> Flags:
    reached: Flags = (moments_ns != NONE) & (moments_ns <= time_ns)
    return reached


def _parents(history: History, process: Ints, time_ns: Ints, zombie: Flags) -> tuple[Ints, Ints]:
    """The parents' ids and numbers: by the reparentings up to then, and by the zombie rows, which name the parent.

    If that parent was dead by then, the trace does not name the adopter. Of a reparenting outside the recording only the
    result is known, from the child's end.
    """
    known = history.parents
    ident, number = known.at(process, time_ns), known.number_at(process, time_ns)
    last = np.full(len(process), NEVER)
    moved_unseen = known.number_at(process, last) != known.last_pid[process]
    ident = np.where(moved_unseen & zombie, known.last_id[process], ident)
    number = np.where(moved_unseen & zombie, known.last_pid[process], number)
    dead_ns = pick(np.where(history.zombie_ns == NONE, NEVER, history.zombie_ns), ident, NEVER)
    unknown = (moved_unseen & ~zombie) | (dead_ns < time_ns) | (pick(history.gone_ns, ident, NEVER) < time_ns)
    return np.where(unknown, NONE, ident), np.where(unknown, NONE, number)
