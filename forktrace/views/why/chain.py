"""The chain of a process from its fork to its reap, and what would help: sentences, made once for processes that are groups."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd

from forktrace.analysis.recording import Recording
from forktrace.views.why.chain_columns import MOMENTS, VALUES, Lookups, Section, chain_columns
from forktrace.views.why.happened import EVENTS, HEAD, Happened
from forktrace.views.why.meaning import REMARKS, Meaning
from forktrace.views.why.sentences import ChainLine, Event, Line, at_s

# Who tells which sections, each with the columns that its lines depend on. A line that needs another one fails, so that no two
# processes that differ in it are told the same.
_TELLERS: Final[Mapping[type[Section], Mapping[str, Sequence[str]]]] = {Happened: {**HEAD, **EVENTS}, Meaning: REMARKS}


class Chains:
    """What is said of the processes of `table`, rows of lifecycles.

    Attributes:
        said: the lines with their blanks, by section; those of EVENTS come by their moments
        values: what goes into the blanks, but for moments (`fork_at`), numbers (`pid`) and names (`name`, `name+3`)
        moments_ns: MOMENTS, since the target's start; NaN where there was none
    """

    def __init__(self, recording: Recording, table: pd.DataFrame) -> None:
        lookups = Lookups(recording)
        groups = chain_columns(lookups, table)
        self._names, self._ids, self._pids = lookups.names, table["id"].tolist(), table["pid"].tolist()
        self.moments_ns = {
            name: (groups.table[f"{name}_ns"] - recording.start_ns).to_numpy(float, na_value=np.nan) for name in MOMENTS
        }
        self.values = {name: groups.each(columns, partial(of, lookups)) for name, (columns, of) in VALUES.items()}
        self.said = {
            name: groups.each(columns, _teller(lookups, kind, name))
            for kind, sections in _TELLERS.items()
            for name, columns in sections.items()
        }

    def lines(self, row: int) -> list[Line]:
        """Return the lines about the process in a row of the table, the headline first."""
        return [one.line for one in self.lines_by_section(row)]

    def lines_by_section(self, row: int) -> list[ChainLine]:
        """Return these lines with what each is about."""
        head, events, remarks = (
            [ChainLine(name, self._since_ns(row, when), line) for name in part for when, line in self.said[name].of(row)]
            for part in (HEAD, EVENTS, REMARKS)
        )
        events.sort(key=lambda event: event.since_ns)
        value = partial(self._value, row)
        return [one.filled(value) for one in (*head, *_once(events), *remarks)]

    def _since_ns(self, row: int, when: str | int) -> float:
        return when if isinstance(when, int) else self.moments_ns[when][row] if when else math.nan

    def _value(self, row: int, name: str) -> str:
        """What goes into a blank: a value, a moment, the number of the process, or its name, or that of another."""
        if name in self.values:
            return self.values[name].of(row)
        if moment := re.fullmatch("([a-z]+)_at", name):
            return at_s(self.moments_ns[moment[1]][row])
        if name == "pid":
            return str(self._pids[row])
        return self._names.pid(self._ids[row] + int(name.removeprefix("name") or 0))


def chain(recording: Recording, process: int) -> list[Line]:
    """Return what became of a process, line by line, the headline first. Nothing in it can steer a terminal."""
    return Chains(recording, recording.whole.lifecycles().loc[[process]]).lines(0)


def _once(events: list[ChainLine]) -> Iterator[ChainLine]:
    """Leave out a source line that stands above already."""
    shown: set[str] = set()
    for one in events:
        line = one.line
        yield one._replace(line=line._replace(source=None if line.source in shown else line.source))
        shown.add(line.source or "")


def _teller(lookups: Lookups, kind: type[Section], name: str) -> Callable[[Any], list[Event]]:
    return lambda row: list(getattr(kind(lookups, row), name)())
