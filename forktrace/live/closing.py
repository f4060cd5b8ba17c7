"""The worst zombie of a recording, in the sentence with which it closes."""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from forktrace.trace.events import CALLS
from forktrace.trace.words import zombie_headline

if TYPE_CHECKING:  # the launcher, which has no use for this, stays without numpy
    from forktrace.live.maps import Records


class Closing:
    """Keeps the longest zombie that was met. Since when those in `estimated`, (pid, start), were zombies is an estimate."""

    def __init__(self, estimated: Container[tuple[int, int]] = ()) -> None:
        self._estimated = estimated
        self._worst: tuple[int, tuple[int, int], int, str] | None = None  # zombie ns, (pid, start), reaper, call

    def note(self, reaps: Records) -> None:
        """Look at reaps (`struct wait_record`)."""
        seen = reaps[reaps["zombie_ns"] != 0]
        if not len(seen):
            return
        lasted = seen["head"]["time_ns"] - seen["zombie_ns"]
        index = int(lasted.argmax())
        head = seen[index]["head"]
        who = (int(head["process"]["pid"]), int(head["process"]["start_ns"]))
        self._note(int(lasted[index]), who, int(head["by"]["pid"]), CALLS[seen[index]["call"]])

    def note_open(self, still: Records, until_ns: int) -> None:
        """Look at processes (`struct process`) that nobody has reaped before the recording ended."""
        for one in still:
            if 0 < one["zombie_ns"] < until_ns:
                self._note(until_ns - int(one["zombie_ns"]), (int(one["pid"]), int(one["start_ns"])), 0, "")

    def _note(self, lasted_ns: int, who: tuple[int, int], by: int, call: str) -> None:
        if self._worst is None or lasted_ns > self._worst[0]:
            self._worst = (lasted_ns, who, by, call)

    def worst(self) -> str | None:
        """Return the sentence; None: there was no zombie."""
        if self._worst is None:
            return None
        lasted_ns, who, by, call = self._worst
        bound = "about" if who in self._estimated else ""
        return f"{zombie_headline(str(who[0]), lasted_ns / 1e6, bound=bound)}, {ending_of_zombie(by, call)}"


def ending_of_zombie(by: int, call: str) -> str:
    """Return in words how a zombie was released by the call (`reap_call`) of the process `by`; no call: it was not."""
    if not call:
        return "and still is: nobody reaped it"
    if call == "kernel":
        return "until the kernel released it: its PID namespace died"
    how = "; that was not seen and may have been earlier" if call == "unseen" else f" with {call}"
    return f"until {by or 'another process'} reaped it{how}"
