"""What a recording closes with: zombies that nobody saw go, and the worst one, in a sentence."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any, Final

import numpy as np

from forktrace.kernel.bpf_maps import Records
from forktrace.system.procfs import Proc
from forktrace.trace import events
from forktrace.trace.events import CALLS, DISPOSITIONS
from forktrace.trace.words import duration, zombie_headline

IGNORING: Final = (DISPOSITIONS.index("ignored"), DISPOSITIONS.index("nocldwait"))


class Closing:
    """Keeps the longest zombie that was met. Since when those in `estimated`, (pid, start), were zombies is an estimate."""

    def __init__(self, estimated: Container[tuple[int, int]] = ()) -> None:
        self._estimated = estimated
        self._gone: set[tuple[int, int]] = set()
        self._worst: tuple[int, tuple[int, int], int, str] | None = None  # zombie ns, (pid, start), reaper, call

    def note(self, reaps: Records) -> None:
        """Look at reaps (`struct wait_record`)."""
        seen = reaps[reaps["zombie_ns"] != 0]
        if not len(seen):
            return
        lasted = seen["head"]["time_ns"] - seen["zombie_ns"]
        index = int(lasted.argmax())
        head = seen[index]["head"]
        self._note(int(lasted[index]), identity(head["process"]), int(head["by"]["pid"]), CALLS[seen[index]["call"]])

    def note_open(self, still: Records, until_ns: int) -> None:
        """Look at processes (`struct process`) that nobody has reaped before the recording ended."""
        for one in still:
            if 0 < one["zombie_ns"] < until_ns and identity(one) not in self._gone:
                self._note(until_ns - int(one["zombie_ns"]), identity(one), 0, "")

    def forget(self, gone: Iterable[tuple[int, int]]) -> None:
        """Take these for none that is still a zombie."""
        self._gone |= set(gone)

    def _note(self, lasted_ns: int, who: tuple[int, int], by: int, call: str) -> None:
        if self._worst is None or lasted_ns > self._worst[0]:
            self._worst = (lasted_ns, who, by, call)

    def worst(self) -> str | None:
        """Return the sentence; None: there was no zombie."""
        if self._worst is None:
            return None
        lasted_ns, who, by, call = self._worst
        bound = "about" if who in self._estimated else ""
        return f"{zombie_headline(str(who[0]), duration(lasted_ns / 1e6), bound=bound)}, {ending_of_zombie(by, call)}"


def identity(one: Any) -> tuple[int, int]:
    """Return what names a process for ever: its number and its start, of a `struct process` or a `struct who`."""
    return int(one["pid"]), int(one["start_ns"])


def unseen_reap(one: Records, by_ns: int) -> events.Row:
    """Return the row that says of a `struct process` that it was released by somebody at `by_ns` or before."""
    pid, start_ns = identity(one)
    parent_pid, parent_start_ns = identity(one["parent_name"])
    row = events.reap(by_ns, pid, start_ns=start_ns, call="unseen", target=None, empty=int(one["empty_waits"]))
    row |= events.acting(parent_pid or None, by_start_ns=parent_start_ns or None)
    return row | {"by_tid": None, "flags": None, "target_pid": None}


def vanished(still: Records, proc: Proc) -> list[Records]:
    """Return those zombies of `still` (`struct process`) that are not there any more, by /proc.

    On some machines no probe runs while certain processes do (docs/limits.md), so a release may be seen by none. Not those
    whose parent ignores SIGCHLD: what comes of them is known without that.
    """
    zombies = still[(still["exit_ns"] != 0) & (still["pid"] != 0) & ~np.isin(still["disposition"], IGNORING)]
    return [one for one in zombies if not _is_there(one, proc)]


def _is_there(one: Records, proc: Proc) -> bool:
    try:
        return proc.one(*identity(one)) is not None
    except PermissionError:  # it may be: /proc hides it
        return True


def ending_of_zombie(by: int, call: str) -> str:
    """Return in words how a zombie was released by the call (`reap_call`) of the process `by`; no call: it was not."""
    if not call:
        return "and still is: nobody reaped it"
    if call == "kernel":
        return "until the kernel released it: its PID namespace died"
    how = "; that was not seen and may have been earlier" if call == "unseen" else f" with {call}"
    return f"until {by or 'another process'} reaped it{how}"
