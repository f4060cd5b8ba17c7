"""Many processes in a few rows: how many ran and were zombies in each branch of the family, over time."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes

from forktrace.analysis.recording import Recording
from forktrace.trace.words import count
from forktrace.views.pictures import key
from forktrace.views.pictures.key import RUNNING, Rows, Style
from forktrace.views.pictures.rows import row_names
from forktrace.views.pictures.spans import Floats, Spans, end_s

MOST_PARENTS: Final = 15
BINS: Final = 500
FINE: Final[Style] = {"linewidth": 0.2}  # of steps as narrow as an edge
MOST_LINE: Final[Style] = {"color": "#333333", "linewidth": 0.6}
_HALF: Final = 0.42  # of the height of a row


class Branch(NamedTuple):
    """A row: what it is called, and the parents whose children it is about, rows of lifecycles; -1: outside."""

    label: str
    holders: list[int]


class ZombieSpans(NamedTuple):
    """Times in which a process was a zombie of one parent: rows of lifecycles, in s."""

    row: Rows
    holder: Rows
    begin: Floats
    end: Floats

    def take(self, some: npt.NDArray[np.bool_]) -> ZombieSpans:
        """Return some of them."""
        return ZombieSpans(self.row[some], self.holder[some], self.begin[some], self.end[some])


def branches_of(recording: Recording, table: pd.DataFrame) -> list[Branch]:
    """Return the rows of a folded picture: a parent each, or where there are too many parents a branch of the family.

    A single process whose parent is outside, as the command is, has no row of its own.
    """
    holders = _Holders(recording, table)
    groups = [[one] for one in holders.below] if len(holders.below) <= MOST_PARENTS else holders.split()
    made = [Branch(holders.label(group), group) for group in groups]
    return sorted((one for one in made if holders.weight(one.holders) > (one.holders == [-1])), key=holders.sort_key)


class _Holders:
    """The parents of a table: `below` are the parents that stand below each, by rows of lifecycles; -1: outside."""

    def __init__(self, recording: Recording, table: pd.DataFrame) -> None:
        self._parent = parents_of(table)
        self._sizes = dict(zip(*map(np.ndarray.tolist, np.unique(self._parent, return_counts=True)), strict=True))
        self._names = row_names(recording, table)
        self.below: dict[int, list[int]] = {one: [] for one in self._sizes}
        for one in self.below:
            above = -1 if one < 0 else int(self._parent[one])
            if one > above and above in self.below:  # an order that a damaged trace may not have
                self.below[above].append(one)

    def weight(self, holders: list[int]) -> int:
        """How many children they have."""
        return sum(self._sizes[one] for one in holders)

    def sort_key(self, one: Branch) -> tuple[int, int]:
        return -self.weight(one.holders), one.holders[0]

    def _family(self, top: int) -> list[int]:
        found = [top]
        for one in found:
            found += self.below[one]
        return found

    def split(self) -> list[list[int]]:
        """Cut the tree of parents into as many groups as there may be: the one with the most children again and again."""
        tops = set(self.below) - {one for many in self.below.values() for one in many}
        groups = [self._family(one) for one in sorted(tops)]
        while len(groups) < MOST_PARENTS and (wide := [one for one in groups if len(one) > 1]):
            large = max(wide, key=self.weight)
            groups.remove(large)
            parts = sorted(map(self._family, self.below[large[0]]), key=self.weight, reverse=True)
            room = MOST_PARENTS - len(groups) - 1
            rest = [one for part in parts[room:] for one in part]
            groups += [large[:1], *parts[:room], *([rest] if rest else [])]
            if rest:
                break
        return groups

    def label(self, group: list[int]) -> str:
        """`4711 consumer.py: 12 children`, `4711 consumer.py and below: 480 processes`, `6 other parents: 21 children`."""
        number = self.weight(group)
        children = f"{number:,} {'child' if number == 1 else 'children'}"
        if len(group) == 1:
            return f"{'outside' if group[0] < 0 else self._names[group[0]]}: {children}"
        if len(self._family(group[0])) == len(group):
            return f"{self._names[group[0]]} and below: {count(number, 'process')}"
        return f"{len(group):,} other parents: {children}"


def parents_of(table: pd.DataFrame) -> Rows:
    """Return for each row of lifecycles the row of its first parent; -1: it is not there."""
    return _rows_of(table, "parent_id")


def _rows_of(table: pd.DataFrame, column: str) -> Rows:
    return np.asarray(pd.Index(table["id"]).get_indexer(table[column].to_numpy(np.int64, na_value=-1)))


def zombie_spans(table: pd.DataFrame, spans: Spans) -> ZombieSpans:
    """Return whose zombie each process was and when: an orphan is its parent's until that ended, and then its adopter's."""
    row = np.flatnonzero(~np.isnan(spans.zombie))
    parent, adopter = parents_of(table)[row], _rows_of(table, "adopter_id")[row]
    orphan = table["adopter_pid"].notna().to_numpy()[row]
    ended = np.append(np.fmin(spans.zombie, spans.exit), np.nan)[parent]
    begin, end = spans.zombie[row], spans.gone[row]
    handed = np.where(orphan, np.clip(np.nan_to_num(ended, nan=-np.inf), begin, end), end)
    pieces = [(row, parent, begin, handed), (row, np.where(orphan, adopter, parent), handed, end)]
    every = ZombieSpans(*map(np.concatenate, zip(*pieces, strict=True)))
    return every.take(every.end > every.begin)


class Steps(NamedTuple):
    """A number over time: `level[0]`, and from `times[i]` on `level[i + 1]`."""

    times: Floats
    level: Floats

    def most(self, edges: Floats) -> Floats:
        """Return the largest number in each bin."""
        first, last = np.searchsorted(self.times, edges[:-1], "right"), np.searchsorted(self.times, edges[1:], "left")
        return np.array([self.level[a : max(a, b) + 1].max() for a, b in zip(first, last, strict=True)])

    def mean(self, edges: Floats) -> Floats:
        """Return the mean number in each bin."""
        at = np.concatenate([[min(edges[0], self.times.min(initial=edges[0]))], self.times])
        until = np.append(at, max(edges[-1], at[-1]))
        total = np.concatenate([[0.0], np.cumsum(self.level * np.diff(until))])
        found: Floats = np.diff(np.interp(edges, until, total)) / np.diff(edges)
        return found


def steps_of(begin: Floats, end: Floats) -> Steps:
    """Return how many of the spans `begin` to `end` exist at a time."""
    times = np.concatenate([begin, end])
    change = np.concatenate([np.ones(len(begin)), -np.ones(len(end))])
    order = np.lexsort((change, times))
    return Steps(times[order], np.concatenate([[0.0], np.cumsum(change[order])]))


def draw_fold(recording: Recording, table: pd.DataFrame, spans: Spans, ax: Axes) -> list[Branch]:
    """Draw a row for each branch, and return the branches: how many children ran (up) and were zombies (down).

    What is filled is the mean of each bin, zombies by cause; the thin line is the most of it.
    """
    first_s = ax.get_xlim()[0]
    edges = np.linspace(first_s, max(end_s(recording), first_s + 1e-6), BINS + 1)
    branches, parent, zombies = branches_of(recording, table), parents_of(table), zombie_spans(table, spans)
    labels = []
    for row, branch in enumerate(branches):
        mine = spans.take(np.flatnonzero(np.isin(parent, branch.holders)))
        running = steps_of(mine.fork, mine.exit)
        dead = zombies.take(np.isin(zombies.holder, branch.holders))
        down = steps_of(dead.begin, dead.end)
        most_running, most_dead = running.level.max(), down.level.max()
        scale = _HALF / max(most_running, most_dead, 1)
        _fill(ax, row, -running.mean(edges) * scale, edges, RUNNING)
        _pile(ax, row, dead, key.zombies(table), edges, scale)
        for sign, steps in ((-1, running), (1, down)):
            ax.stairs(row + sign * steps.most(edges) * scale, edges, baseline=None, **MOST_LINE)
        ax.axhline(row, color="#888888", linewidth=0.6)
        labels.append(f"{branch.label}\nup to {most_running:,.0f} running\nup to {count(int(most_dead), 'zombie')}")
    ax.set_yticks(range(len(branches)), labels, fontsize=8)
    ax.set_ylim(max(len(branches), 1) - 0.45, -0.55)
    return branches


def _fill(ax: Axes, row: int, height: Floats, edges: Floats, style: Style, above: Any = 0.0) -> None:
    """Fill from `above` to `height`, measured from the middle of a row; nothing where they are the same."""
    there = np.where(height != above, row + height, np.nan)
    ax.stairs(there, edges, baseline=np.where(height != above, row + above, np.nan), fill=True, **style | FINE)


def _pile(ax: Axes, row: int, dead: ZombieSpans, kinds: list[key.Kind], edges: Floats, scale: float) -> None:
    """Pile up the zombies by cause."""
    above = np.zeros(BINS)
    for kind in kinds:
        mine = np.isin(dead.row, kind.rows)
        if mine.any():
            below = above + steps_of(dead.begin[mine], dead.end[mine]).mean(edges) * scale
            _fill(ax, row, below, edges, kind.style, above)
            above = below
