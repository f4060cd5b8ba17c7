"""The timeline: when each process ran and was a zombie, which starts cleared which zombies, and how many there were at once."""

from __future__ import annotations

import os
import shlex
from typing import Any, BinaryIO, Final, NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]  # it ships no types

from forktrace.analysis.names import Names, name, printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.zombies import total_zombies
from forktrace.errors import ForktraceError, UsageError
from forktrace.views.words import count, duration, shorten

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

MOST_BARS: Final = 60  # more rows than this cannot be read on a page; they are folded into one row per parent
MOST_PARENTS: Final = 15
MOST_LABELLED_STARTS: Final = 6
BINS: Final = 500
FORMATS: Final = ("png", "svg", "pdf")
_UNDATED: Final[dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same recording, the same file

# Okabe and Ito's palette, which the colour-blind can tell apart; zombies are hatched besides.
RUNNING: Final[dict[str, Any]] = {"facecolor": "#56B4E9", "edgecolor": "#0072B2", "linewidth": 0.6}
ZOMBIE: Final[dict[str, Any]] = {"facecolor": "#FBE3B5", "edgecolor": "#D55E00", "hatch": "//////", "linewidth": 0.6}
START: Final = "#222222"
_FINE: Final[dict[str, Any]] = {"linewidth": 0.2}  # of steps as narrow as an edge

_ROW_INCHES: Final = 0.21
_STRIP_INCHES: Final = 0.9
_CHARACTER_INCHES: Final = 0.075
_STYLE: Final[Any] = {"font.size": 9, "hatch.linewidth": 0.6, "text.parse_math": False, "svg.hashsalt": "forktrace"}


def timeline(recording: Recording, ax: Axes | None = None) -> Axes:
    """Draw `recording` into `ax`, or into a new figure, and return the axes; a strip with the zombies' number is put below.

    x is seconds since the target's start. Up to `MOST_BARS` processes have a bar each, in fork order: running time filled,
    zombie time hatched, and a line from the zombies that a start cleared to the process that it started. More are folded into
    one row per parent, which shows how many of its children ran and how many were zombies at a time.
    """
    if ax is None:
        from matplotlib import pyplot as plt

        with matplotlib.rc_context(_STYLE):
            return _draw(recording, _axes_of(recording, plt.figure()))
    with matplotlib.rc_context(_STYLE):
        return _draw(recording, ax)


def format_of(path: str) -> str:
    """Return the format that a picture's name asks for.

    Raises:
        UsageError: it ends in none of `.png`, `.svg`, `.pdf`.
    """
    form = os.path.splitext(path)[1].removeprefix(".").lower()
    if form not in FORMATS:
        raise UsageError(f"{path}: a timeline is a .png, .svg or .pdf", "end the name in one of these")
    return form


def write_timeline(recording: Recording, sink: str | os.PathLike[str] | BinaryIO, form: str | None = None) -> None:
    """Draw `recording` into a file, given by its path or open, as `png`, `svg` or `pdf`; a path says which by its name.

    Raises:
        UsageError: the name does not say which.
        ForktraceError: the file cannot be written.
    """
    if form is None:
        form = format_of(os.fspath(sink))  # type: ignore[arg-type]  # an open file comes with its format
    with matplotlib.rc_context(_STYLE):
        figure = Figure()
        _draw(recording, _axes_of(recording, figure))
        try:
            figure.savefig(sink, dpi=150, format=form, metadata=_UNDATED.get(form))
        except OSError as error:
            raise ForktraceError(f"cannot write the timeline: {error.strerror or error}") from error


def _axes_of(recording: Recording, figure: Figure) -> Axes:
    """Axes in a figure that is as high as its rows ask for, with room for names on the left and the legend above."""
    rows = len(recording.lifecycles())
    body = max(rows, 4) * _ROW_INCHES if rows <= MOST_BARS else max(_parents(recording), 2) * 0.75
    above, below = 0.62, 0.55
    height = above + body + 0.15 + _STRIP_INCHES + below
    figure.set_size_inches(10, height)
    longest = max((len(name(comm)) for comm in recording.lifecycles()["comm"].drop_duplicates()), default=0)
    left = 0.8 + _CHARACTER_INCHES * (longest + (16 if rows > MOST_BARS else 4))
    return figure.add_axes((left / 10, below / height, (9.75 - left) / 10, 1 - (above + below) / height))


def _parents(recording: Recording) -> int:
    return min(recording.lifecycles()["parent_id"].nunique(dropna=False), MOST_PARENTS + 1)


def _draw(recording: Recording, ax: Axes) -> Axes:
    table = recording.lifecycles()
    strip = make_axes_locatable(ax).append_axes("bottom", _STRIP_INCHES, pad=0.15, sharex=ax)
    first_s, last_s = _span(recording)
    ax.set_xlim(first_s, last_s)
    folded = len(table) > MOST_BARS
    entries = _fold(recording, table, ax) if folded else _bars(recording, table, ax)
    ax.tick_params(axis="x", bottom=False, labelbottom=False)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.legend(
        handles=entries, loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, borderaxespad=0.2, handlelength=2.6
    )
    ax.set_title(_title(recording, table), loc="left", pad=24, fontsize=10, fontweight="bold")
    _strip(recording, strip)
    return ax


def _span(recording: Recording) -> tuple[float, float]:
    """The seconds that are shown: what was selected, else the whole recording, with a little room to its right."""
    since_ns, until_ns = recording.selected.since_ns, recording.selected.until_ns
    first_s = 0.0 if since_ns is None else (since_ns - recording.start_ns) / 1e9
    last_s = _end_s(recording) if until_ns is None else (until_ns - recording.start_ns) / 1e9
    return first_s, max(last_s, first_s + 1e-6) + (last_s - first_s) * 0.015


def _end_s(recording: Recording) -> float:
    return max((recording.end_ns - recording.start_ns) / 1e9, 1e-6)


def _title(recording: Recording, table: pd.DataFrame) -> str:
    command = shorten(printable(shlex.join(recording.header["command"])), 60)
    zombie_ms = table["zombie_ms"]
    worst = f", longest zombie {duration(zombie_ms.max())}" if zombie_ms.notna().any() else ", no zombies"
    cut = " (trace cut off)" if recording.cut else ""
    return f"{command}: {count(len(table), 'process')}{worst}{cut}"


class _Spans(NamedTuple):
    """When each process ran and was a zombie, in s from the target's start; `zombie` is NaN for one that was none."""

    fork: Floats
    exit: Floats
    zombie: Floats
    gone: Floats

    def take(self, rows: Rows) -> _Spans:
        """Return the spans of some rows."""
        return _Spans(*(column[rows] for column in self))


def _seconds(recording: Recording, column: pd.Series, missing_s: float) -> Floats:
    """Seconds from the target's start, exact to the ns before they become floats."""
    ns = column.to_numpy(np.int64, na_value=recording.start_ns) - recording.start_ns
    return np.where(column.isna(), missing_s, ns / 1e9)


def _spans(recording: Recording, table: pd.DataFrame) -> _Spans:
    end_s = _end_s(recording)
    fork, zombie = _seconds(recording, table["fork_ns"], 0), _seconds(recording, table["zombie_ns"], np.nan)
    gone = _seconds(recording, table["reap_ns"], end_s)
    exit_s = np.minimum(_seconds(recording, table["exit_ns"], end_s), np.maximum(gone, fork))
    return _Spans(fork, exit_s, zombie, np.fmax(zombie, gone))


def _bars(recording: Recording, table: pd.DataFrame, ax: Axes) -> list[Artist]:
    """One bar per process, the first forked on top."""
    names = Names(recording.whole.lifecycles())
    spans, rows = _spans(recording, table), np.arange(len(table))
    ax.barh(rows, spans.exit - spans.fork, left=spans.fork, height=0.62, **RUNNING)
    dead = np.flatnonzero(~np.isnan(spans.zombie))
    zombies = spans.take(dead)
    ax.barh(dead, zombies.gone - zombies.zombie, left=zombies.zombie, height=0.62, **ZOMBIE)
    ax.set_yticks(rows, [names.full(one) for one in table["id"]])
    ax.set_ylim(max(len(table), 4) - 0.4, -0.6)
    entries: list[Artist] = [Patch(**RUNNING, label="running"), Patch(**ZOMBIE, label="zombie")]
    still = np.flatnonzero(table["zombie_open"])
    if len(still):
        ax.plot(spans.gone[still], still, ">", color=ZOMBIE["edgecolor"], markersize=5)
        entries.append(Line2D([], [], marker=">", linestyle="", color=ZOMBIE["edgecolor"], label="still a zombie at the end"))
    if _connectors(table, spans, ax):
        entries.append(Line2D([], [], marker="o", markersize=3.5, linewidth=0.9, color=START, label="cleared (dot) by a start"))
    _durations(table, spans, ax)
    return entries


def _starters(table: pd.DataFrame) -> Rows:
    """For each row the row of the process whose start cleared it; -1 where there is none."""
    return np.asarray(pd.Index(table["id"]).get_indexer(table["cleared_by_id"].to_numpy(np.int64, na_value=-1)))


def _connectors(table: pd.DataFrame, spans: _Spans, ax: Axes) -> bool:
    """A line from the end of each zombie that a start cleared, a dot, to the process that it started, a triangle."""
    starters = _starters(table)
    cleared = np.flatnonzero(starters >= 0)
    for start in np.unique(starters[cleared]).tolist():
        swept, x = cleared[starters[cleared] == start], spans.fork[start]
        ax.vlines(x, min(start, swept.min()), max(start, swept.max()), color=START, linewidth=0.9, zorder=3)
        ax.plot(np.full(len(swept), x), swept, "o", color=START, markersize=3, zorder=4)
        ax.plot([x], [start], ">", color=START, markersize=5, zorder=4)
    return len(cleared) > 0


def _durations(table: pd.DataFrame, spans: _Spans, ax: Axes) -> None:
    """The zombie time in words on each bar that has room for it."""
    first_s, last_s = ax.get_xlim()
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
    begin, end = np.maximum(spans.zombie, first_s), np.minimum(spans.gone, last_s)
    for row in np.flatnonzero(end - begin > 0.07 * (last_s - first_s)).tolist():
        text, x = duration(table["zombie_ms"].iloc[row]), (begin[row] + end[row]) / 2
        ax.text(x, row, text, ha="center", va="center_baseline", fontsize=7, bbox=box, clip_on=True, zorder=5)


def _fold(recording: Recording, table: pd.DataFrame, ax: Axes) -> list[Artist]:
    """One row per parent: how many of its children ran (upwards) and were zombies (downwards), the most of each bin."""
    spans, groups = _spans(recording, table), _by_parent(recording, table)
    edges = np.linspace(_span(recording)[0], max(_end_s(recording), _span(recording)[0] + 1e-6), BINS + 1)
    labels = []
    for row, (label, members) in enumerate(groups):
        dead = members[~np.isnan(spans.zombie[members])]
        running = _most(spans.fork[members], spans.exit[members], edges)
        zombies = _most(spans.zombie[dead], spans.gone[dead], edges)
        scale = 0.42 / max(running.max(), zombies.max(), 1)
        ax.stairs(row - running * scale, edges, baseline=row, fill=True, **RUNNING | _FINE)
        ax.stairs(row + zombies * scale, edges, baseline=row, fill=True, **ZOMBIE | _FINE)
        ax.axhline(row, color="#888888", linewidth=0.6)
        children = "1 child" if len(members) == 1 else f"{len(members):,} children"
        labels.append(f"{label}: {children}\nup to {running.max():,} running\nup to {count(int(zombies.max()), 'zombie')}")
    ax.set_yticks(range(len(groups)), labels, fontsize=8)
    ax.set_ylim(max(len(groups), 1) - 0.45, -0.55)
    entries: list[Artist] = [Patch(**RUNNING, label="running children (up)"), Patch(**ZOMBIE, label="zombies (down)")]
    if _labelled_starts(recording, table, spans, groups, ax):
        entries.append(Line2D([], [], linewidth=0.9, linestyle="--", color=START, label="starts that cleared most"))
    return entries


def _by_parent(recording: Recording, table: pd.DataFrame) -> list[tuple[str, Rows]]:
    """The name of each parent and the rows of its children, those with the most first; the rest of the parents together.

    A single process whose parent is outside, as the target is, has no row of its own.
    """
    names = Names(recording.whole.lifecycles())
    parent = table["parent_id"].to_numpy(np.int64, na_value=-1)
    distinct, sizes = np.unique(parent, return_counts=True)
    order = distinct[np.argsort(-sizes, kind="stable")][: MOST_PARENTS + 1]
    order = order[(order != -1) | ((parent == -1).sum() > 1)][:MOST_PARENTS]
    groups = [("outside" if one == -1 else names.full(one), np.flatnonzero(parent == one)) for one in order.tolist()]
    others = np.flatnonzero(~np.isin(parent, [*order, -1]))
    if len(others):
        groups.append((f"{len(np.unique(parent[others])):,} other parents", others))
    return groups


def _most(begin: Floats, end: Floats, edges: Floats) -> Rows:
    """The largest number of the spans `begin` to `end` that exist at one moment of each bin."""
    times = np.concatenate([begin, end])
    change = np.concatenate([np.ones(len(begin), np.int64), -np.ones(len(end), np.int64)])
    order = np.lexsort((change, times))
    level = np.concatenate([[0], np.cumsum(change[order])])
    return _most_of_bins(level, times[order], edges)


def _most_of_bins(level: Rows, times: Floats, edges: Floats) -> Rows:
    """The largest value in each bin of a step function: `level[0]`, and from `times[i]` on `level[i + 1]`."""
    first, last = np.searchsorted(times, edges[:-1], "right"), np.searchsorted(times, edges[1:], "left")
    return np.array([level[a : max(a, b) + 1].max() for a, b in zip(first, last, strict=True)])


def _labelled_starts(
    recording: Recording, table: pd.DataFrame, spans: _Spans, groups: list[tuple[str, Rows]], ax: Axes
) -> bool:
    """A dashed line in its parent's row for each of the starts that cleared most, as far apart as their labels need."""
    names, ids = Names(recording.whole.lifecycles()), table["id"].to_numpy()
    first_s, last_s = ax.get_xlim()
    width = last_s - first_s
    row_of = {one: row for row, (_, members) in enumerate(groups) for one in members.tolist()}
    starters = _starters(table)
    distinct, sizes = np.unique(starters[starters >= 0], return_counts=True)
    shown: list[float] = []
    for one in np.argsort(-sizes, kind="stable").tolist():
        start, x = distinct[one], spans.fork[distinct[one]]
        free = all(abs(x - other) > 0.14 * width for other in shown) and first_s + 0.06 * width < x < last_s - 0.06 * width
        if sizes[one] < 2 or len(shown) == MOST_LABELLED_STARTS:
            break
        if free:
            row, words = row_of[start], f"{names.pid(int(ids[start]))} cleared {sizes[one]:,}"
            ax.vlines(x, row - 0.4, row + 0.45, color=START, linewidth=0.9, linestyle="--", zorder=3)
            ax.text(x, row - 0.42, words, ha="center", va="bottom", fontsize=7)
            shown.append(x)
    return bool(shown)


def _strip(recording: Recording, ax: Axes) -> None:
    """How many zombies there are at a time, of all parents together."""
    counts = total_zombies(recording.zombie_count())
    times = _seconds(recording, counts["time_ns"], 0)
    level = np.concatenate([[0], counts["zombies"].to_numpy()])
    edges = np.concatenate([[times.min(initial=0)], times, [times.max(initial=_end_s(recording))]])
    many = len(level) > 4 * BINS
    if many:
        edges = np.linspace(edges[0], edges[-1], 4 * BINS + 1)
        level = _most_of_bins(level, times, edges)
    ax.stairs(level, edges, fill=True, **ZOMBIE | (_FINE if many else {}))
    ax.set_ylim(0, max(level.max(), 1) * 1.15)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    ax.set_ylabel("zombies", fontsize=8)
    ax.set_xlabel("seconds since the start of the command")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
