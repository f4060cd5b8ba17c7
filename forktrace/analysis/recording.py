"""What `forktrace.read` returns: a trace, and the tables that follow from it."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from typing import Any, Final, NamedTuple, Self

import numpy as np
import pandas as pd

from forktrace.analysis import selection
from forktrace.analysis.causes import rules
from forktrace.analysis.history import History
from forktrace.analysis.log import NONE, Ints, Log, category
from forktrace.analysis.selection import Selection
from forktrace.analysis.tables import (
    events,
    late_waits,
    lifecycles,
    moments,
    open_waits,
    orphans,
    signals,
    starts,
    stolen,
    waits,
    zombies,
)
from forktrace.analysis.tables.balance import Balance, balance
from forktrace.errors import UsageError
from forktrace.trace import rotation, stream
from forktrace.trace.events import DISPOSITIONS
from forktrace.trace.stacks import Frame, unfold


def read(path: str | os.PathLike[str], causes: str | os.PathLike[str] | None = None) -> Recording:
    """Return the recording in the trace `path`, a file or the directory of a rotation; `.cut` says when it was cut off.

    `causes` is a file of rules that come before the built-in ones (docs/causes.md).

    Raises:
        TraceError: empty, damaged, not a trace, or from a newer forktrace.
        UsageError: the file of rules is none.
    """
    return Recording(rotation.read_trace(path), causes=causes)


_CLOCK_STEP_NS: Final = 1_000_000_000  # less may be a recorder that had to wait between two looks at a clock


class Call(NamedTuple):
    """A frame of a stack, its function as people know it (`Process.start`), and whose code it is, by `sites.Place`."""

    frame: Frame
    name: str
    home: str
    module: str = ""


class Recording:
    """The tables of one trace, or of a part of it. Each is made once, when it is first asked for.

    The methods raise TraceError when the events of the trace contradict each other.
    """

    def __init__(
        self,
        trace: stream.Trace,
        whole: Recording | None = None,
        selected: Selection | None = None,
        causes: str | os.PathLike[str] | None = None,
    ) -> None:
        self.trace = trace
        self._rules: rules.Rules = whole._rules if whole else rules.load(causes)
        self.whole = whole or self
        self.selected = selected or Selection()

    @property
    def header(self) -> dict[str, Any]:
        """What was known when the recording started: command, user, host, times (docs/trace-format.md)."""
        return self.trace.header

    @property
    def cut(self) -> str | None:
        """Why the trace was cut off or not closed; None: it is whole."""
        return self.trace.cut

    @property
    def full(self) -> int | None:
        """The --max-size in bytes at which the recording ended; None: it ended otherwise."""
        size = self._history.log.totals.get("full")
        return size if type(size) is int else None

    @property
    def clock_step_ns(self) -> int:
        """By how much the wall clock was set during the recording, in ns; times of day go on as at its start. 0: it was not."""
        offset = self._history.log.totals.get("clock_offset_ns")
        step = offset - self.header["clock_offset_ns"] if type(offset) is int else 0
        return step if abs(step) > _CLOCK_STEP_NS else 0

    @property
    def not_walked(self) -> list[tuple[str, str]]:
        """The interpreters that were met and whose stacks are not walked: file, and why; sorted."""
        return events.not_walked(self._history.log)

    @property
    def start_ns(self) -> int:
        """When the target started, or else the recording (CLOCK_BOOTTIME ns): the 0 of every relative time."""
        if (target := self._target) != NONE:
            return int(self._history.log.fork_ns[target])
        known = self.header.get("target_start_ns")
        return int(self.header.get("rotation", self.header["start_ns"]) if known is None else known)

    @property
    def continues(self) -> bool:
        """Whether it goes on in the next file of a rotation, which holds what has not been reaped by now again."""
        return self._history.log.continues

    @property
    def end_ns(self) -> int:
        """The last moment of the trace, CLOCK_BOOTTIME ns: up to it open zombies age."""
        return self._history.log.end_ns

    def seconds(self, times_ns: pd.Series) -> pd.Series:
        """Return a column of CLOCK_BOOTTIME ns in s since the target's start, the x of every picture; NaN for `<NA>`."""
        since_ns = times_ns.astype("Int64") - self.start_ns  # exact before it becomes a float
        return since_ns.astype("Float64").astype("float64") / 1e9

    def between(self, since_ns: int | None = None, until_ns: int | None = None) -> Self:
        """Return the part of the recording in a stretch of time, CLOCK_BOOTTIME ns, its ends included; None: open.

        Processes that lived or were zombies at any moment of it keep their whole rows; of events only those within count.
        """
        return type(self)(self.trace, self.whole, replace(self.selected, since_ns=since_ns, until_ns=until_ns))

    def of(self, process: int) -> Self:
        """Return the part of the recording about the process with id `process` and its descendants."""
        return self.part(selection.descendants(self.whole.lifecycles(), process))

    def part(self, ids: Ints) -> Self:
        """Return the part of the recording about the processes with these ids."""
        return type(self)(self.trace, self.whole, replace(self.selected, ids=ids))

    def find_process(self, text: str) -> int:
        """Return the id of the process that `4711` or `#12` names; UsageError lists the candidates when there are several."""
        return selection.find_process(self.whole.lifecycles(), text)

    def parse_time(self, text: str) -> int:
        """Return the CLOCK_BOOTTIME ns of `0.9s` after the target's start, or of a wall clock; UsageError: it is neither."""
        return selection.parse_time(text, origin_ns=self.start_ns, clock_offset_ns=self.header["clock_offset_ns"])

    def lifecycles(self) -> pd.DataFrame:
        """Return one row per process, in fork order, with `id` as index too: `analysis.lifecycles.lifecycles`."""
        return self._lifecycles

    def events(self) -> pd.DataFrame:
        """Return one row per event, in time order: `analysis.events.event_table`."""
        return self._events

    def starts(self) -> pd.DataFrame:
        """Return one row per start and zombie that it cleared: `analysis.starts.starts`."""
        return self._starts

    def waits(self) -> pd.DataFrame:
        """Return one row per place that waits, over the whole time: `analysis.waits.waits`."""
        return self._waits

    def zombie_count(self) -> pd.DataFrame:
        """Return one row per change of a parent's number of zombies: `analysis.zombies.zombie_count`."""
        return self._zombie_count

    def branches(self, process: int | None = None) -> pd.DataFrame:
        """Return one row per child of `process`, about all that descends from it: `analysis.zombies.branches`.

        It is over the whole time. None: of the process that `of` selected, else of the target.
        """
        return zombies.branches(self.whole.lifecycles(), self._root if process is None else process)

    def signals(self) -> pd.DataFrame:
        """Return one row per signal that kills or stops: `analysis.signals.signals`."""
        return self._signals

    def failed_forks(self) -> pd.DataFrame:
        """Return one row per fork that failed: `analysis.starts.failed_forks`."""
        return self._failed_forks

    def stolen(self) -> pd.DataFrame:
        """Return one row per stolen reap: `analysis.stolen.stolen`."""
        return self._stolen

    def late_waits(self) -> pd.DataFrame:
        """Return one row per wait for a child that was gone already: `analysis.late_waits.late_waits`."""
        return self._late_waits

    def open_waits(self) -> pd.DataFrame:
        """Return one row per wait for a child that only the end ended: `analysis.open_waits.open_waits`."""
        return self._open_waits

    def perhaps_stolen(self) -> pd.DataFrame:
        """Return the rows of lifecycles of children of which missing stacks leave open whether their reap was stolen."""
        table = self.lifecycles()
        return table[table["id"].isin(stolen.undecided(self._history))]

    def orphans(self) -> pd.DataFrame:
        """Return one row per orphan and process that inherited it: `analysis.orphans.orphans`."""
        return self._orphans

    def sigchld(self) -> pd.Series:
        """Return by id what the parent of each process did about SIGCHLD as it ended: `handler`, ...; `<NA>`: not known."""
        log = self._history.log
        found = category(log.at("disposition", log.exit_row), DISPOSITIONS)
        return pd.Series(found, name="sigchld")

    def processes_at(self, time_ns: int) -> pd.DataFrame:
        """Return one row per process that was there at a moment, CLOCK_BOOTTIME ns: `analysis.moments.processes_at`.

        Raises:
            UsageError: the moment is not in the recording.
        """
        begin_ns, end_ns = min(self.header["start_ns"], self.start_ns), self.end_ns
        if not begin_ns <= time_ns <= end_ns:
            where = f"it goes from {_at(begin_ns - self.start_ns)} to {_at(end_ns - self.start_ns)} after the target's start"
            raise UsageError(f"the recording has no moment {_at(time_ns - self.start_ns)} after the target's start", where)
        table = moments.processes_at(self._history, self.whole.lifecycles(), time_ns)
        return table[self.selected.of_ids(table["id"])]

    def file_of(self, shown: str) -> str | None:
        """Return the path of a file that a site shows the end of, as its program named it; None: no site shows that file."""
        return self._history.sites.file_of(shown)

    def calls(self, stack: str) -> list[Call]:
        """Return the frames of a folded stack that are this process's and thread's own, the outermost first."""
        history, frames = self._history, unfold(stack)
        inner = history.rules.inner(frames, [history.sites.libraries.place(frame.file) for frame in frames])
        return [Call(frame, history.rules.name_of(frame, place), *place[:2]) for frame, place in reversed(inner)]

    def lost(self, before_ns: int | None = None) -> dict[str, int]:
        """Return how many events of which kind could not be delivered; empty: nothing was lost.

        Over the whole time, or those that may have been lost before `before_ns`: a loss is known to lie between its row and
        the one before of its kind.
        """
        log = self._history.log
        rows = log.rows("lost")
        counts: dict[str, int] = {}
        since_ns: dict[str, int] = {}
        columns = (log.time_ns[rows].tolist(), log.texts("detail", rows), log.at("count", rows).tolist())
        for time_ns, what, number in zip(*columns, strict=True):
            kind = "events" if what is pd.NA else str(what)
            if number > 0 and (before_ns is None or since_ns.get(kind, 0) < before_ns):
                counts[kind] = counts.get(kind, 0) + number
            since_ns[kind] = time_ns
        return counts

    def balance(self) -> Balance:
        """Return where all processes of the recording have gone: `analysis.balance.balance`."""
        return balance(self._history, self.lost())

    @cached_property
    def _history(self) -> History:
        return History(Log(self.trace), self._rules) if self.whole is self else self.whole._history

    @cached_property
    def _lifecycles(self) -> pd.DataFrame:
        if self.whole is self:
            return lifecycles.lifecycles(self._history)
        table, history = self.whole.lifecycles(), self._history
        return table[self.selected.of_ids(table["id"]) & self.selected.overlaps(history.log.fork_ns, history.gone_ns)]

    @cached_property
    def _events(self) -> pd.DataFrame:
        if self.whole is self:
            return events.event_table(self._history)
        table = self.whole.events()
        return self._part(table, table["id"], table["by_id"])

    @cached_property
    def _starts(self) -> pd.DataFrame:
        if self.whole is self:
            return starts.starts(self._history)
        table = self.whole.starts()
        return self._part(table, table["start_id"], table["cleared_id"])

    @cached_property
    def _waits(self) -> pd.DataFrame:
        table = waits.waits(self._history)
        return table[self.selected.of_ids(table["id"])].reset_index(drop=True)

    @cached_property
    def _zombie_count(self) -> pd.DataFrame:
        return zombies.zombie_count(self._history, self.selected)

    @property
    def _root(self) -> int:
        """The process that all selected ones descend from."""
        return self._target if self.selected.ids is None else int(self.selected.ids[0])

    @property
    def _target(self) -> int:
        """The command's own process; NONE: its fork was lost."""
        targets = np.flatnonzero((self.whole.lifecycles()["origin"] == "target").to_numpy())
        return int(targets[0]) if len(targets) else NONE

    @cached_property
    def _signals(self) -> pd.DataFrame:
        table = signals.signals(self._history)
        return self._part(table, table["id"], table["sender_id"])

    @cached_property
    def _failed_forks(self) -> pd.DataFrame:
        table = starts.failed_forks(self._history)
        return self._part(table, table["id"])

    @cached_property
    def _stolen(self) -> pd.DataFrame:
        table = stolen.stolen(self._history)
        return self._part(table, table["id"], table["thief_id"])

    @cached_property
    def _late_waits(self) -> pd.DataFrame:
        table = late_waits.late_waits(self._history)
        return self._part(table, table["id"], table["child_id"])

    @cached_property
    def _open_waits(self) -> pd.DataFrame:
        table = open_waits.open_waits(self._history)
        return self._part(table, table["id"], table["child_id"])

    @cached_property
    def _orphans(self) -> pd.DataFrame:
        table = orphans.orphans(self._history)
        return self._part(table, table["id"], table["adopter_id"])

    def _part(self, table: pd.DataFrame, *columns: pd.Series) -> pd.DataFrame:
        """The rows of a table with `time_ns` that are selected."""
        wanted = self.selected.in_time(table["time_ns"].to_numpy()) & self.selected.of_ids(*columns)
        return table[wanted].reset_index(drop=True)


def _at(ns: int) -> str:
    """A moment as `parse_time` reads it; rounded to a microsecond."""
    return f"{ns / 10**9:.6f}s"
