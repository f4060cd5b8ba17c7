"""What a process is called on a screen. Names come from the trace, so nothing in them may steer a terminal."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from forktrace.trace.words import printable

LOST: Final = "lost"  # in the notes of processes of which events may have been lost

__all__ = ["LOST", "Names", "name", "printable"]


def name(comm: Any) -> str:
    """Return a process's name for the screen, `?` when it is not known."""
    return "?" if comm is pd.NA or comm is None else printable(str(comm))


class Names:
    """Names for the processes of a whole recording: the number, with `#id` where several processes had that number.

    The recorder, which is the target's parent, is not in the table but has a name too. With `marks` a process
    that may miss events has a `*` at its number.
    """

    def __init__(self, lifecycles: pd.DataFrame, recorder_pid: int | None = None, *, marks: bool = True) -> None:
        self._pids = lifecycles["pid"].to_numpy()
        self._comms = lifecycles["comm"].array
        self._recorder_pid = recorder_pid
        doubtful = lifecycles["notes"].str.contains(LOST, regex=False).fillna(False) & marks
        self._doubtful = doubtful.to_numpy()
        self._shared = lifecycles["pid"].duplicated(keep=False).to_numpy()

    def form(self, process: int) -> str:
        """Return how a process is named: `{pid}`, or `{pid}#{id}` where the number alone could mean another; `*` may follow."""
        return f"{{pid}}{'#{id}' if self._shared[process] else ''}{'*' if self._doubtful[process] else ''}"

    def pid(self, process: int) -> str:
        """Return `4711`, or `4711#12` where 4711 alone could mean another process as well; `4711*`: it may miss events."""
        return self.form(process).format(pid=self._pids[process], id=process)

    def full(self, process: int) -> str:
        """Return `4711 python`."""
        return f"{self.pid(process)} {name(self._comms[process])}"

    def program(self, process: Any, pid: Any) -> str:
        """Return the name of a process without its number; of one outside the recording, its number."""
        return self.of(process, pid) if pd.isna(process) else name(self._comms[int(process)])

    def of(self, process: Any, pid: Any, full: bool = False) -> str:
        """Return the name of the process with this id, or for one outside the recording its number; `?`: neither is known."""
        if not pd.isna(process):
            return self.full(int(process)) if full else self.pid(int(process))
        if pd.isna(pid):
            return "?"
        return f"{pid} forktrace" if full and pid == self._recorder_pid else str(int(pid))
