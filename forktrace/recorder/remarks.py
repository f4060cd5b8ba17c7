"""What the recorder has the launcher tell the user: how a recording goes, and how it ended."""

from __future__ import annotations

import os
import shlex
import time
from collections import Counter
from collections.abc import Mapping

from forktrace.recorder.drain import Drain
from forktrace.recorder.protocol.channel import Channel
from forktrace.recorder.protocol.orders import Arming
from forktrace.system.procfs import Proc
from forktrace.system.worker import Worker
from forktrace.trace.words import NO_PROCESS, count, printable, size


def without_process(helpers: Mapping[str, Worker]) -> list[str]:
    """Return what the recording lacks because the kernel made no process for its helper, in words."""
    return [f"{what} ({NO_PROCESS}: {helper.refused})" for what, helper in helpers.items() if helper.refused]


class Remarks:
    """Says to the user what happens to a recording.

    Attributes:
        helpers: by what is missing without them
    """

    def __init__(self, channel: Channel, asked: Arming, drain: Drain, helpers: Mapping[str, Worker]) -> None:
        self._channel = channel
        self._asked = asked
        self._drain = drain
        self.helpers = helpers
        self._progress = Progress()

    def say(self, text: str) -> None:
        """Say a sentence, unless the user wants none."""
        if self._asked.words:
            self._channel.send("words", text=text)

    def show_progress(self) -> None:
        """Show the line with the progress, unless the user wants none or has not read the one before."""
        if self._asked.live and self._channel.is_read():
            drain = self._drain
            lost = sum(drain.lost.values())
            self._channel.send("live", text=self._progress.text(drain.counts, lost, drain.running(), drain.zombies()))

    def attached(self) -> None:
        """The recording attached to processes that ran already."""
        zombies = f", {count(self._drain.zombies(), 'zombie')} among them" if self._drain.zombies() else ""
        self.say(f"attached to {count(self._drain.counts['fork'], 'process')}{zombies} (Ctrl-C detaches)")

    def survivors(self, running: list[int], proc: Proc) -> None:
        """The command has ended: name the followed processes that still run, if any does."""
        if running:
            names = ", ".join(f"{pid} {printable(proc.comm(pid))}" for pid in running[:5])
            more = f" and {len(running) - 5} more" if len(running) > 5 else ""
            self.say(f"ended; still following {count(len(running), 'process')}: {names}{more} (Ctrl-C stops)")

    def full(self, most: int, *, has_ended: bool) -> None:
        """The trace has reached the size `most`."""
        runs_on = "; what was recorded runs on" if self._asked.attach else "" if has_ended else "; the command runs on"
        self.say(f"the trace is full (--max-size {size(most)}), the recording ended{runs_on}")

    def totals(self, path: str) -> None:
        """The trace at `path` is closed: say how much it holds, and what it lacks."""
        counts, losses = self._drain.counts, self._drain.lost
        lost = sum(losses.values())
        self.say(f"{sum(counts.values()):,} events of {count(counts['fork'], 'process')}, {lost:,} lost: {path}")
        if lost:
            kinds = ", ".join(f"{number:,} {what}" for what, number in losses.items() if number)
            self.say(f"events were lost: {kinds}; the report marks what they may have touched")
        for missing in without_process(self.helpers):
            self.say(f"missing: {missing}")

    def closing(self, full: int | None, *, is_rotation: bool, has_ended: bool) -> None:
        """The recording is over. `full`: the size that the trace has reached; `has_ended`: the command has."""
        if not self._drain.counts:  # the command could not be started, which is said elsewhere
            return
        for sentence in self._drain.closing.words():
            self.say(sentence)
        if full:
            self.full(full, has_ended=has_ended)
        path = self._drain.output.path
        path = "standard output" if path == "-" else os.path.dirname(path) if is_rotation else path
        self.totals(path)
        if self._drain.output.is_file:
            self.say(f"next: forktrace {'why' if self._drain.closing.has_zombies else 'report'} {shlex.quote(path)}")


class Progress:
    """Puts into words how a recording goes."""

    def __init__(self) -> None:
        self._before = (time.monotonic(), 0)

    def text(self, counts: Counter[str], lost: int, running: int, zombies: int) -> str:
        """Return how many processes ran and run, zombies now, events per second since the last time, and losses."""
        now, total = time.monotonic(), sum(counts.values())
        then, before = self._before
        self._before = (now, total)
        rate = (total - before) / max(now - then, 1e-3)
        alive = f"{running} running, {count(zombies, 'zombie')}"
        return f"{count(counts['fork'], 'process')}, {alive}, {rate:,.0f} events/s, {lost} lost"
