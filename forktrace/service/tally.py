"""Adds up what happens in a recording while it is written: counters that never go back, and what there is now."""

from __future__ import annotations

import copy
import errno
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from forktrace.analysis.causes.reasons import by_recorder, causes, creators
from forktrace.analysis.causes.rules import Rules, load
from forktrace.analysis.history import History
from forktrace.analysis.log import NEVER, NONE, Flags, Ints, Log, pick
from forktrace.analysis.requests import start_rows
from forktrace.analysis.tables.starts import failed_forks
from forktrace.analysis.tables.stolen import stolen
from forktrace.service.window import Window

BUCKETS_S: Final = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0)
MOST_LINES: Final = 100  # that are called by name; all others are OTHER_LINE
OTHER_LINE: Final = "other"
UNKNOWN: Final = "unknown"

Key = tuple[int, int]  # number and start: numbers are used again


@dataclass
class Figures:
    """What a recording has come to. The command itself, which forktrace reaps, is counted nowhere.

    Attributes:
        forks: processes that were forked
        reaps: zombies and children that were released, by cause and by what had made them
        failed_forks: by the name of the error and the limit that was met, "" where that is not known
        stolen: reaps that were stolen
        lost: events that could not be delivered, by kind
        durations: how many zombies lasted no longer than each of BUCKETS_S, but longer than the one before, and how many longer
        seconds: how long they lasted, together
        zombies: those of now, by the line that started them
        oldest_ns: when the oldest of these ended (CLOCK_BOOTTIME); None: there is none
    """

    forks: int = 0
    reaps: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed_forks: Counter[tuple[str, str]] = field(default_factory=Counter)
    stolen: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    durations: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    seconds: float = 0.0
    zombies: Counter[str] = field(default_factory=Counter)
    oldest_ns: int | None = None


class Tally:
    """Figures of a recording, from its batches as they come. A process is counted once, whatever rows follow."""

    def __init__(self, rules: Rules | None = None) -> None:
        self._rules = rules or load()
        self._window = Window(self._rules)
        self._figures = Figures()
        self._known: set[Key] = set()  # of what stays in the window: who was counted as forked, as released, as stolen
        self._released: set[Key] = set()
        self._stolen: set[Key] = set()
        self._lines: set[str] = set()
        self.eldest: Key | None = None  # of the processes that live, the one that was forked first
        self.end_ns = 0  # of the last row
        self.is_settled = True  # what was counted by now is all that there is to count without new rows

    def figures(self) -> Figures:
        """Return the figures of now, which change no more."""
        return copy.deepcopy(self._figures)

    def add(self, path: str, header: Mapping[str, Any], batches: Iterable[pa.RecordBatch], before_ns: int = NEVER) -> None:
        """Take in the batches that have come, and count what is released before a moment; NEVER: no more will come.

        Raises:
            TraceError: the rows contradict each other.
        """
        history = self._window.add(path, header, batches)
        log = history.log
        keys: list[Key] = list(zip(log.pid.tolist(), log.fork_ns.tolist(), strict=True))
        own = by_recorder(history)
        self._count_forks(log, keys)
        self._count_released(history, keys, ~own & (history.gone_ns < before_ns))
        self._count_stolen(history, keys)
        self.end_ns = log.end_ns
        self.is_settled = self.end_ns < before_ns
        staying, leaving = self._window.settle(before_ns)
        self._count_events(history, leaving)
        self._look_at_zombies(history, ~own & (history.zombie_ns != NONE) & (history.gone_ns == NEVER))
        self.eldest = next((keys[one] for one in np.flatnonzero((log.exit_row == NONE) & (history.gone_ns == NEVER))), None)
        kept = {keys[one] for one in np.flatnonzero(staying)}
        for counted in (self._known, self._released, self._stolen):
            counted &= kept

    def begin_anew(self) -> None:
        """Forget the rows: those that follow repeat what is known of every living process. What was counted stays counted."""
        self._window = Window(self._rules)

    def _count_forks(self, log: Log, keys: list[Key]) -> None:
        forked = np.flatnonzero(log.has_origin("forked"))
        new = [keys[one] for one in forked if keys[one] not in self._known]
        self._figures.forks += len(new)
        self._known.update(new)

    def _count_released(self, history: History, keys: list[Key], released: Flags) -> None:
        ids = np.array([one for one in np.flatnonzero(released) if keys[one] not in self._released], np.int64)
        self._released.update(keys[one] for one in ids)
        if not len(ids):
            return
        names = [history.readings.names(kind) for kind in ("cause", "created_by")]
        columns = (found(history)[ids].tolist() for found in (causes, creators))
        words = ([_word(each, code) for code in codes] for each, codes in zip(names, columns, strict=True))
        self._figures.reaps.update(zip(*words, strict=True))
        lasted_ns = history.lasted_ns[ids]
        for seconds in (lasted_ns[lasted_ns != NONE] / 1e9).tolist():
            self._figures.durations[bisect_left(BUCKETS_S, seconds)] += 1
            self._figures.seconds += seconds

    def _count_stolen(self, history: History, keys: list[Key]) -> None:
        new = {keys[one] for one in stolen(history)["id"].tolist()} - self._stolen
        self._figures.stolen += len(new)
        self._stolen |= new

    def _count_events(self, history: History, leaving: Flags) -> None:
        """Count the forks that failed and the losses as their rows leave the window, each once."""
        log = history.log
        table = failed_forks(history)[leaving[log.rows("fork-failed")]]
        numbers = (errno.errorcode.get(one, str(one)) for one in table["errno"].fillna(0).tolist())
        self._figures.failed_forks.update(zip(numbers, table["limit"].fillna("").tolist(), strict=True))
        lost = log.rows("lost")
        lost = lost[leaving[lost]]
        for kind, number in zip(log.texts("detail", lost).fillna(UNKNOWN), log.at("count", lost).tolist(), strict=True):
            self._figures.lost[kind] += max(number, 0)

    def _look_at_zombies(self, history: History, zombie: Flags) -> None:
        ids = np.flatnonzero(zombie)
        self._figures.oldest_ns = int(history.zombie_ns[ids].min()) if len(ids) else None
        self._figures.zombies = Counter(self._line(line) for line in _lines(history, ids))

    def _line(self, line: str) -> str:
        """The line, if it is one of the first; else one name for all others, so that the number of lines is bounded."""
        if line not in self._lines and len(self._lines) >= MOST_LINES:
            return OTHER_LINE
        self._lines.add(line)
        return line


def _lines(history: History, ids: Ints) -> Iterator[str]:
    """The line that started each of these processes; where it is in doubt the one that forked it."""
    if not len(ids):
        return
    log = history.log
    start = start_rows(history)
    row = np.where(start == NONE, log.fork_row, start)[ids]
    for site in history.sites.sites(row, pick(log.by_id, row)).fillna(UNKNOWN):
        yield str(site)


def _word(names: list[str], code: int) -> str:
    """Return what a code stands for."""
    return UNKNOWN if code == NONE else names[code]
