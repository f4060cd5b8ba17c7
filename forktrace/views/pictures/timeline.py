"""The timeline: when each process ran and was a zombie, which starts cleared which zombies, and how many there were at once."""

from __future__ import annotations

import os
from typing import Any, BinaryIO, Final

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]  # it ships no types

from forktrace.analysis.causes.names import Names, name
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.zombies import total_zombies
from forktrace.errors import ForktraceError, UsageError
from forktrace.trace.words import count, duration
from forktrace.views import failed
from forktrace.views.bounds import zombie_time
from forktrace.views.pictures import key
from forktrace.views.pictures.key import RUNNING, START, ZOMBIE, Rows, Style
from forktrace.views.pictures.spans import Floats, Spans, end_s, seconds, spans_of, starters_of
from forktrace.views.words import shorten, title_of

MOST_BARS: Final = 60  # more rows than this cannot be read on a page; they are folded into one row per parent
MOST_PARENTS: Final = 15
MOST_LABELLED_STARTS: Final = 6
MOST_NAME: Final = 30  # characters of a number and a name; a kernel keeps 15 bytes of the name, which escapes make longer
BINS: Final = 500
FORMATS: Final = ("png", "svg", "pdf")
_UNDATED: Final[dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same recording, the same file

_FINE: Final[Style] = {"linewidth": 0.2}  # of steps as narrow as an edge

_ROW_INCHES: Final = 0.21
_STRIP_INCHES: Final = 0.9
_CHARACTER_INCHES: Final = 0.075
_TITLE_CHARACTER_INCHES: Final = 0.083
_LEGEND_POINTS: Final = 13.5
_STILL: Final[Style] = {"marker": ">", "color": ZOMBIE["edgecolor"], "markersize": 5}
_DOT: Final[Style] = {"marker": "o", "markersize": 3}
_START_MARK: Final[Style] = {"marker": ">", "markersize": 4}
_LABELLED: Final[Style] = {"linestyle": "--", "linewidth": 0.9}
_STYLE: Final[Any] = {"font.size": 9, "hatch.linewidth": 0.6, "text.parse_math": False, "svg.hashsalt": "forktrace"}


def timeline(recording: Recording, ax: Axes | None = None) -> Axes:
    """Draw `recording` into `ax`, or into a new figure, and return the axes; a strip with the zombies' number is put below.

    x is seconds since the target's start. Up to `MOST_BARS` processes have a bar each, in fork order: running time filled,
    zombie time hatched in a way of its own for each cause, a triangle at each start in the colour of its source line, and a
    line from the zombies that a start cleared to the process that it started. More are folded into one row per parent, which
    shows how many of its children ran and how many were zombies at a time, by cause.
    """
    if ax is None:
        from matplotlib import pyplot as plt

        figure = plt.figure()  # outside of the context: a notebook's backend, chosen now, changes settings that shall stay
        with matplotlib.rc_context(_STYLE):
            return _draw(recording, _axes_of(recording, figure))
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
    rows, left = len(recording.lifecycles()), _left_inches(recording)
    body = max(rows, 4) * _ROW_INCHES if rows <= MOST_BARS else max(_parents(recording), 2) * 0.75
    _, legend_rows = _columns(_entries(recording), 9.75 - left)
    above, below = 0.36 + legend_rows * _LEGEND_POINTS / 72, 0.55
    height = above + body + 0.15 + _STRIP_INCHES + below
    figure.set_size_inches(10, height)
    return figure.add_axes((left / 10, below / height, (9.75 - left) / 10, 1 - (above + below) / height))


def _left_inches(recording: Recording) -> float:
    longest = max((len(name(comm)) for comm in recording.lifecycles()["comm"].drop_duplicates()), default=0)
    return 0.8 + _CHARACTER_INCHES * (min(longest, MOST_NAME - 5) + (16 if len(recording.lifecycles()) > MOST_BARS else 4))


def _parents(recording: Recording) -> int:
    return min(recording.lifecycles()["parent_id"].nunique(dropna=False), MOST_PARENTS + 1)


def _draw(recording: Recording, ax: Axes) -> Axes:
    table, entries = recording.lifecycles(), _entries(recording)
    strip = make_axes_locatable(ax).append_axes("bottom", _STRIP_INCHES, pad=0.15, sharex=ax)
    ax.set_xlim(*_span(recording))
    (_fold if len(table) > MOST_BARS else _bars)(recording, table, ax)
    ax.tick_params(axis="x", bottom=False, labelbottom=False)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
    width = ax.get_window_extent().width / ax.figure.dpi
    columns, rows = _columns(entries, width)
    place: Style = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns, "handlelength": 2.6, "columnspacing": 1.6}
    ax.legend(handles=entries, frameon=False, borderaxespad=0.2, labelspacing=0.35, **place)
    ax.set_title(_title(recording, table, width), loc="left", pad=8 + rows * _LEGEND_POINTS, fontsize=10, fontweight="bold")
    _strip(recording, table, strip)
    return ax


def _entries(recording: Recording) -> list[Artist]:
    """What the legend says: only of what is there."""
    table = recording.lifecycles()
    failures = [Line2D([], [], **key.FAILED, label=label) for label in failed.labels(recording)]
    if len(table) > MOST_BARS:
        entries = [Patch(**RUNNING, label="running children (up)")]
        entries += [Patch(**kind.style, label=kind.label.replace("zombie", "zombies (down)", 1)) for kind in key.zombies(table)]
        labelled = [start for start, _ in _labelled(recording, table)]
        kinds = [kind for kind in key.starts(table) if any(map(kind.has, labelled))]
        words = [(kind.label, kind.style) for kind in kinds] or ([("starts that cleared most", START)] if labelled else [])
        return [*entries, *(Line2D([], [], **style | _LABELLED, label=label) for label, style in words), *failures]
    entries = [Patch(**RUNNING, label="running")]
    entries += [Patch(**kind.style, label=kind.label) for kind in key.zombies(table)] or [Patch(**ZOMBIE, label="zombie")]
    lines: list[Artist] = [*failures]
    if table["zombie_open"].any():
        lines.append(Line2D([], [], **_STILL, linestyle="", label="still a zombie at the end"))
    lines += [Line2D([], [], **_START_MARK, **kind.style, linewidth=0.9, label=kind.label) for kind in key.starts(table)]
    if (starters_of(table) >= 0).any():
        lines.append(Line2D([], [], **_DOT, **START, linewidth=0.9, label="cleared (dot) by a start"))
    return [*entries, *lines]


def _columns(entries: list[Artist], width_inches: float) -> tuple[int, int]:
    """In how many columns and rows the entries of the legend fit."""
    longest = max(len(str(entry.get_label())) for entry in entries)
    columns = min(max(int(width_inches / (0.65 + 0.066 * longest)), 1), 4, len(entries))
    return columns, -(-len(entries) // columns)


def _span(recording: Recording) -> tuple[float, float]:
    """The seconds that are shown: what was selected, else the whole recording, with a little room to its right."""
    since_ns, until_ns = recording.selected.since_ns, recording.selected.until_ns
    first_s = 0.0 if since_ns is None else (since_ns - recording.start_ns) / 1e9
    last_s = end_s(recording) if until_ns is None else (until_ns - recording.start_ns) / 1e9
    return first_s, max(last_s, first_s + 1e-6) + (last_s - first_s) * 0.015


def _title(recording: Recording, table: pd.DataFrame, width_inches: float) -> str:
    zombie_ms = table["zombie_ms"]
    worst = f", longest zombie {duration(zombie_ms.max())}" if zombie_ms.notna().any() else ", no zombies"
    cut = " (trace cut off)" if recording.cut else " (events were lost)" if recording.lost() else ""
    about = f": {count(len(table), 'process')}{worst}{cut}"
    most = int(width_inches / _TITLE_CHARACTER_INCHES) - len(about)
    return title_of(recording.header["command"], max(min(most, 60), 20)) + about


def _bars(recording: Recording, table: pd.DataFrame, ax: Axes) -> None:
    """One bar per process, the first forked on top."""
    names = Names(recording.whole.lifecycles())
    spans, rows = spans_of(recording, table), np.arange(len(table))
    ax.barh(rows, spans.exit - spans.fork, left=spans.fork, height=0.62, **RUNNING)
    for kind in key.zombies(table):
        some = spans.take(kind.rows)
        ax.barh(kind.rows, some.gone - some.zombie, left=some.zombie, height=0.62, **kind.style)
    ax.set_yticks(rows, [shorten(names.full(one), MOST_NAME) for one in table["id"]])
    ax.set_ylim(max(len(table), 4) - 0.4, -0.6)
    still = np.flatnonzero(table["zombie_open"])
    if len(still):
        ax.plot(spans.gone[still], still, **_STILL, linestyle="")
    _connectors(table, spans, ax)
    _failures(recording, {one: row for row, one in enumerate(table["id"].tolist())}, ax)
    _durations(table, spans, ax)


def _failures(recording: Recording, row_of: dict[int, int], ax: Axes) -> None:
    """A cross at each fork that failed, on the row of who called; of those too close to be told apart, one."""
    table, (first_s, last_s) = recording.failed_forks(), ax.get_xlim()
    x, rows = recording.seconds(table["time_ns"]).to_numpy(), table["id"].map(row_of)
    shown = rows.notna().to_numpy()
    place = np.rint((x[shown] - first_s) / (last_s - first_s) * BINS)
    _, distinct = np.unique(np.stack([place, rows[shown].to_numpy(float)]), axis=1, return_index=True)
    if len(distinct):
        ax.plot(x[shown][distinct], rows[shown].to_numpy(float)[distinct], **key.FAILED, zorder=6)


def _connectors(table: pd.DataFrame, spans: Spans, ax: Axes) -> None:
    """A triangle at each start, and a line to a dot on the end of each zombie that it cleared, in the style of its site."""
    starters = starters_of(table)
    clearing = np.unique(starters[starters >= 0])
    kinds = key.starts(table)
    unknown = np.setdiff1d(clearing, np.concatenate([kind.rows for kind in kinds]) if kinds else [])
    for style, rows in [*((kind.style, kind.rows) for kind in kinds), *([(START, unknown)] if len(unknown) else [])]:
        ax.plot(spans.fork[rows], rows, **_START_MARK, color=style["color"], linestyle="", zorder=4)
        for start in np.intersect1d(rows, clearing).tolist():
            swept, x = np.flatnonzero(starters == start), spans.fork[start]
            ax.vlines(x, min(start, swept.min()), max(start, swept.max()), **_plural(style), linewidth=0.9, zorder=3)
            ax.plot(np.full(len(swept), x), swept, **_DOT, color=style["color"], linestyle="", zorder=4)


def _plural(style: Style) -> Style:
    return {f"{name}s": value for name, value in style.items()}


def _durations(table: pd.DataFrame, spans: Spans, ax: Axes) -> None:
    """The zombie time in words on each bar that has room for it."""
    first_s, last_s = ax.get_xlim()
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
    begin, end = np.maximum(spans.zombie, first_s), np.minimum(spans.gone, last_s)
    room = table["zombie_ms"].notna() & (end - begin > 0.07 * (last_s - first_s))
    for row in np.flatnonzero(room).tolist():
        text, x = zombie_time(table.iloc[row]), (begin[row] + end[row]) / 2
        ax.text(x, row, text, ha="center", va="center_baseline", fontsize=7, bbox=box, clip_on=True, zorder=5)


def _fold(recording: Recording, table: pd.DataFrame, ax: Axes) -> None:
    """One row per parent: how many of its children ran (upwards) and were zombies (downwards), the most of each bin.

    The zombies of the moment with the most are told apart by cause.
    """
    spans, groups = spans_of(recording, table), _by_parent(recording, table)
    edges = np.linspace(_span(recording)[0], max(end_s(recording), _span(recording)[0] + 1e-6), BINS + 1)
    labels, kinds, kind_of = [], key.zombies(table), np.full(len(table), -1)
    for number, kind in enumerate(kinds):
        kind_of[kind.rows] = number
    for row, (label, members) in enumerate(groups):
        running = _most(spans.fork[members], spans.exit[members], edges)[0]
        dead = members[~np.isnan(spans.zombie[members])]
        zombies, when = _most(spans.zombie[dead], spans.gone[dead], edges)
        scale = 0.42 / max(int(running.max()), int(zombies.max()), 1)
        ax.stairs(row - running * scale, edges, baseline=row, fill=True, **RUNNING | _FINE)
        below = np.zeros(BINS, np.int64)
        for number, kind in enumerate(kinds):
            mine = dead[kind_of[dead] == number]
            above, below = below, below + _existing(spans.zombie[mine], spans.gone[mine], when)
            there = np.where(below > above, row + below * scale, np.nan)
            ax.stairs(
                there, edges, baseline=np.where(below > above, row + above * scale, np.nan), fill=True, **kind.style | _FINE
            )
        ax.axhline(row, color="#888888", linewidth=0.6)
        children = "1 child" if len(members) == 1 else f"{len(members):,} children"
        labels.append(f"{label}: {children}\nup to {running.max():,} running\nup to {count(int(zombies.max()), 'zombie')}")
    ax.set_yticks(range(len(groups)), labels, fontsize=8)
    ax.set_ylim(max(len(groups), 1) - 0.45, -0.55)
    names, ids = Names(recording.whole.lifecycles()), table["id"].to_numpy()
    starts = key.starts(table)
    row_of = {one: row for row, (_, members) in enumerate(groups) for one in members.tolist()}
    parents = table["parent_id"].to_numpy(np.int64, na_value=-1)
    own = {int(parents[members[0]]): row for row, (_, members) in enumerate(groups) if len(set(parents[members])) == 1}
    _failures(recording, {int(ids[one]): row for one, row in row_of.items()} | own, ax)
    for start, cleared in _labelled(recording, table):
        row, x = row_of[start], spans.fork[start]
        words = f"{names.pid(int(ids[start]))} cleared {cleared:,}"
        style = next((kind.style for kind in starts if kind.has(start)), START)
        ax.vlines(x, row - 0.4, row + 0.45, **_plural(style | _LABELLED), zorder=3)
        ax.text(x, row - 0.42, words, ha="center", va="bottom", fontsize=7)


def _by_parent(recording: Recording, table: pd.DataFrame) -> list[tuple[str, Rows]]:
    """The name of each parent and the rows of its children, those with the most first; the rest of the parents together.

    A single process whose parent is outside, as the target is, has no row of its own.
    """
    names = Names(recording.whole.lifecycles())
    parent = table["parent_id"].to_numpy(np.int64, na_value=-1)
    distinct, sizes = np.unique(parent, return_counts=True)
    order = distinct[np.argsort(-sizes, kind="stable")][: MOST_PARENTS + 1]
    order = order[(order != -1) | ((parent == -1).sum() > 1)][:MOST_PARENTS]
    groups = [
        ("outside" if one == -1 else shorten(names.full(one), MOST_NAME), np.flatnonzero(parent == one))
        for one in order.tolist()
    ]
    others = np.flatnonzero(~np.isin(parent, [*order, -1]))
    if len(others):
        groups.append((f"{len(np.unique(parent[others])):,} other parents", others))
    return groups


def _most(begin: Floats, end: Floats, edges: Floats) -> tuple[Rows, Floats]:
    """The largest number of the spans `begin` to `end` that exist at one moment of each bin, and the first such moment."""
    times = np.concatenate([begin, end])
    change = np.concatenate([np.ones(len(begin), np.int64), -np.ones(len(end), np.int64)])
    order = np.lexsort((change, times))
    level = np.concatenate([[0], np.cumsum(change[order])])
    return _most_of_bins(level, times[order], edges)


def _most_of_bins(level: Rows, times: Floats, edges: Floats) -> tuple[Rows, Floats]:
    """The largest value in each bin of a step function, and where: `level[0]`, and from `times[i]` on `level[i + 1]`."""
    first, last = np.searchsorted(times, edges[:-1], "right"), np.searchsorted(times, edges[1:], "left")
    best = np.array([a + int(level[a : max(a, b) + 1].argmax()) for a, b in zip(first, last, strict=True)])
    since = np.concatenate([[-np.inf], times])[best]
    return level[best], np.maximum(since, edges[:-1])


def _existing(begin: Floats, end: Floats, when: Floats) -> Rows:
    """How many of the spans `begin` to `end`, their ends left out, exist at each moment."""
    return np.asarray(np.searchsorted(np.sort(begin), when, "right") - np.searchsorted(np.sort(end), when, "right"))


def _labelled(recording: Recording, table: pd.DataFrame) -> list[tuple[int, int]]:
    """The rows of the starts that cleared most, two at least, with how many; as far apart as their labels need."""
    first_s, last_s = _span(recording)
    width, fork_s = last_s - first_s, spans_of(recording, table).fork
    starters = starters_of(table)
    distinct, sizes = np.unique(starters[starters >= 0], return_counts=True)
    shown: list[tuple[int, int]] = []
    for one in np.argsort(-sizes, kind="stable").tolist():
        x = fork_s[distinct[one]]
        if sizes[one] < 2 or len(shown) == MOST_LABELLED_STARTS:
            break
        free = all(abs(x - fork_s[other]) > 0.14 * width for other, _ in shown)
        if free and first_s + 0.06 * width < x < last_s - 0.06 * width:
            shown.append((int(distinct[one]), int(sizes[one])))
    return shown


def _strip(recording: Recording, table: pd.DataFrame, ax: Axes) -> None:
    """How many zombies there are at a time, of all parents together."""
    counts = total_zombies(recording.zombie_count())
    times = seconds(recording, counts["time_ns"], 0)
    level = np.concatenate([[0], counts["zombies"].to_numpy()])
    edges = np.concatenate([[times.min(initial=0)], times, [times.max(initial=end_s(recording))]])
    many = len(level) > 4 * BINS
    if many:
        edges = np.linspace(edges[0], edges[-1], 4 * BINS + 1)
        level = _most_of_bins(level, times, edges)[0]
    kinds = key.zombies(table)
    style = kinds[0].style if len(kinds) == 1 else key.ALL_ZOMBIES
    ax.stairs(level, edges, fill=True, **style | (_FINE if many else {}))
    ax.set_ylim(0, max(level.max(), 1) * 1.15)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    ax.set_ylabel("zombies", fontsize=8)
    ax.set_xlabel(f"seconds since the start of the {'recording' if 'attached' in recording.header else 'command'}")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)
