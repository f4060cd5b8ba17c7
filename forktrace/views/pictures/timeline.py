"""The timeline: when each process ran and was a zombie, which starts cleared which zombies, and how many there were at once."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]  # it ships no types

from forktrace.analysis.causes.names import Names
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.zombies import total_zombies
from forktrace.errors import ForktraceError, UsageError
from forktrace.trace.words import NOTICEABLE_MS, count, duration
from forktrace.views import failed
from forktrace.views.bounds import zombie_time
from forktrace.views.pictures import key
from forktrace.views.pictures.fold import BINS, FINE, MOST_LINE, Steps, branches_of, draw_fold, parents_of
from forktrace.views.pictures.key import RUNNING, START, ZOMBIE, Style
from forktrace.views.pictures.rows import MOST_LEVELS, levels, named, row_names, tree_order
from forktrace.views.pictures.spans import Spans, end_s, seconds, spans_of, starters_of
from forktrace.views.words import title_of
from forktrace.views.zombies import lead, without_recorder

MOST_BARS: Final = 400  # more rows than this cannot be told apart on a page; they are folded into one row per branch
MOST_ROOMY: Final = 60  # up to so many are as high as a line of text
MOST_LABELLED_STARTS: Final = 6
FORMATS: Final = ("png", "svg", "pdf")
UNDATED: Final[dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same recording, the same file

WIDTH: Final = 10.0  # of a page, in inches
_RIGHT_INCHES: Final = 0.25
_ROW_INCHES: Final = 0.21
_LEAST_ROW_INCHES: Final = 0.045
_LEAST_NAME_POINTS: Final = 5.5  # between two names
_STRIP_INCHES: Final = 0.9
_MEASURED: Final = 20  # names with the most characters, one of which is the widest
_FOLDED_POINTS: Final = 8  # of the names of a folded picture
_TITLE_CHARACTER_INCHES: Final = 0.083
_LEGEND_POINTS: Final = 13.5
_STILL: Final[Style] = {"marker": ">", "color": ZOMBIE["edgecolor"], "markersize": 5}
_DOT: Final[Style] = {"marker": "o", "markersize": 3}
_START_MARK: Final[Style] = {"marker": ">", "markersize": 4}
_LABELLED: Final[Style] = {"linestyle": "--", "linewidth": 0.9}
STYLE: Final[Any] = {"font.size": 9, "hatch.linewidth": 0.6, "text.parse_math": False, "svg.hashsalt": "forktrace"}


def timeline(recording: Recording, ax: Axes | None = None) -> Axes:
    """Draw `recording` into `ax`, or into a new figure, and return the axes; a strip with the zombies' number is put below.

    x is seconds since the target's start, and the time of day. Up to `MOST_BARS` processes have a bar each, in fork order, or
    from 61 on below their parents: running time filled, zombie time hatched in a way of its own for each cause, a triangle at
    each start in the colour of its source line, and a line from the zombies that a start cleared to the process that it
    started. More are folded into one row per parent or branch of the family, which shows how many children ran and how many
    were zombies, by cause: the mean of each moment filled, the most in a thin line.
    """
    if ax is None:
        from matplotlib import pyplot as plt

        figure = (
            plt.figure()
        )  # outside of the context: this may choose a notebook's backend, which changes settings that must stay
        with matplotlib.rc_context(STYLE):
            return _draw(recording, _axes_of(recording, figure))
    with matplotlib.rc_context(STYLE):
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
    with matplotlib.rc_context(STYLE):
        figure = Figure()
        _draw(recording, _axes_of(recording, figure))
        try:
            figure.savefig(sink, dpi=150, format=form, metadata=UNDATED.get(form))
        except OSError as error:
            raise ForktraceError(f"cannot write the timeline: {error.strerror or error}") from error


class Frame(NamedTuple):
    """How much room a timeline takes, in inches: names on the left, the legend above, its bars, and what is below these."""

    left: float
    above: float
    body: float
    below: float

    @property
    def height(self) -> float:
        """The height of all of it."""
        return self.above + self.body + self.below


def frame_of(recording: Recording) -> Frame:
    """Return the room that the timeline of a recording takes on a page of `WIDTH` inches."""
    table = _table(recording)
    left = _left_inches(recording, table)
    body = max(len(table), 4) * _row_inches(table) if len(table) <= MOST_BARS else max(_branches(recording), 2) * 0.75
    _, legend_rows = _columns(_entries(recording), WIDTH - _RIGHT_INCHES - left)
    return Frame(left, 0.36 + legend_rows * _LEGEND_POINTS / 72, body + 0.15 + _STRIP_INCHES, 0.7)


def place(frame: Frame, figure: Figure, height: float, bottom: float = 0.0) -> Axes:
    """Return axes for a timeline in a figure that is `height` inches high, from `bottom` on."""
    low = (bottom + frame.below) / height
    return figure.add_axes((frame.left / WIDTH, low, (WIDTH - _RIGHT_INCHES - frame.left) / WIDTH, frame.body / height))


def _axes_of(recording: Recording, figure: Figure) -> Axes:
    """Axes in a figure that is as high as its rows ask for, with room for names on the left and the legend above."""
    frame = frame_of(recording)
    figure.set_size_inches(WIDTH, frame.height)
    return place(frame, figure, frame.height)


def _table(recording: Recording) -> pd.DataFrame:
    """What has a row: processes in fork order, or, where they are many, children below their parents."""
    table = without_recorder(recording.lifecycles())
    return table if len(table) <= MOST_ROOMY else table.iloc[tree_order(table)]


def _row_inches(table: pd.DataFrame) -> float:
    """The height of a row: the more, the lower."""
    return min(_ROW_INCHES, max(MOST_ROOMY * _ROW_INCHES / max(len(table), 1), _LEAST_ROW_INCHES))


def _left_inches(recording: Recording, table: pd.DataFrame) -> float:
    """The room that the names beside the rows take."""
    longest = sorted("\n".join(_labels(recording, table)).splitlines(), key=len)[-_MEASURED:]
    points = _name_points(table) if len(table) <= MOST_BARS else _FOLDED_POINTS
    widest = max((TextPath((0, 0), one.lstrip(), size=points).get_extents().width for one in longest), default=0)
    indented = max((len(one) - len(one.lstrip()) for one in longest), default=0) * 0.32 * points
    return 0.45 + (widest + indented) / 72


def _name_points(table: pd.DataFrame) -> float:
    """The size of the names beside bars."""
    return min(max(_row_inches(table) * 72 * 0.62, 5), 9)


def _labels(recording: Recording, table: pd.DataFrame) -> list[str]:
    """What stands beside the rows."""
    if len(table) > MOST_BARS:
        return [*(one.label for one in branches_of(recording, table)), "up to 10,000 zombies"]
    names = row_names(recording, table)
    if len(table) <= MOST_ROOMY:
        return names
    return [f"{'  ' * min(level, MOST_LEVELS)}{one}" for level, one in zip(levels(table).tolist(), names, strict=True)]


def _branches(recording: Recording) -> int:
    return len(branches_of(recording, _table(recording)))


def _draw(recording: Recording, ax: Axes) -> Axes:
    table, entries = _table(recording), _entries(recording)
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
    table = _table(recording)
    failures = [Line2D([], [], **key.FAILED, label=label) for label in failed.labels(recording)]
    if len(table) > MOST_BARS:
        entries = [Patch(**RUNNING, label="running children (up)")]
        entries += [Patch(**kind.style, label=kind.label.replace("zombie", "zombies (down)", 1)) for kind in key.zombies(table)]
        labelled = [start for start, _ in _labelled(recording, table)]
        kinds = [kind for kind in key.starts(table) if any(map(kind.has, labelled))]
        words = [(kind.label, kind.style) for kind in kinds] or ([("starts that cleared most", START)] if labelled else [])
        most = Line2D([], [], **MOST_LINE, label="most at once")
        return [*entries, most, *(Line2D([], [], **style | _LABELLED, label=label) for label, style in words), *failures]
    entries = [Patch(**RUNNING, label="running")]
    entries += [Patch(**kind.style, label=kind.label) for kind in key.zombies(table)]
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
    zombie_ms, own_ms, first = table["zombie_ms"], table["own_zombie_ms"], lead(table)
    worst = f", no zombie longer than {NOTICEABLE_MS:.0f} ms" if zombie_ms.notna().any() else ", no zombies"
    if zombie_ms.ge(NOTICEABLE_MS).any():  # first what the program did; what init did is no exact time
        longest = duration((own_ms[first] if first.any() else zombie_ms).max())
        worst = f", longest zombie {'' if first.any() else 'at most '}{longest}"
    cut = " (trace cut off)" if recording.cut else " (events were lost)" if recording.lost() else ""
    about = f": {count(len(table), 'process')}{worst}{cut}"
    most = int(width_inches / _TITLE_CHARACTER_INCHES) - len(about)
    return title_of(recording.header["command"], max(min(most, 60), 20)) + about


def _bars(recording: Recording, table: pd.DataFrame, ax: Axes) -> None:
    """One bar per process, the first forked on top."""
    spans, rows, labels = spans_of(recording, table), np.arange(len(table)), _labels(recording, table)
    room = _row_inches(table) * 72
    ax.barh(rows, spans.exit - spans.fork, left=spans.fork, height=0.62, **_thin(RUNNING, room))
    for kind in key.zombies(table):
        some = spans.take(kind.rows)
        ax.barh(kind.rows, some.gone - some.zombie, left=some.zombie, height=0.62, **_thin(kind.style, room))
    shown = named(table, math.ceil(_LEAST_NAME_POINTS / room))
    ax.set_yticks(shown, [labels[row] for row in shown], fontsize=_name_points(table))
    if len(table) > MOST_ROOMY:  # a tree, whose indentation shows only where names begin alike
        for label in ax.get_yticklabels():
            label.set_horizontalalignment("left")
        ax.tick_params(axis="y", pad=(_left_inches(recording, table) - 0.1) * 72)
    ax.set_ylim(max(len(table), 4) - 0.4, -0.6)
    still = np.flatnonzero(table["zombie_open"])
    if len(still):
        ax.plot(spans.gone[still], still, **_small(_STILL, room), linestyle="")
    _connectors(table, spans, ax, room)
    _failures(recording, {one: row for row, one in enumerate(table["id"].tolist())}, ax)
    if room > 10:
        _durations(table, spans, ax)


def _small(mark: Style, room: float) -> Style:
    """A mark for rows of so many points."""
    return mark | {"markersize": mark["markersize"] * max(min(room / 15, 1), 0.4)}


def _thin(style: Style, room: float) -> Style:
    """A style for rows of so many points: thick edges would hide a low bar."""
    return style | {"linewidth": style["linewidth"] * min(room / 15, 1)}


def _failures(recording: Recording, row_of: dict[int, int], ax: Axes) -> None:
    """A cross at each fork that failed, on the row of who called; of those too close to be told apart, one."""
    table, (first_s, last_s) = recording.failed_forks(), ax.get_xlim()
    x, rows = recording.seconds(table["time_ns"]).to_numpy(), table["id"].map(row_of)
    shown = rows.notna().to_numpy()
    place = np.rint((x[shown] - first_s) / (last_s - first_s) * BINS)
    _, distinct = np.unique(np.stack([place, rows[shown].to_numpy(float)]), axis=1, return_index=True)
    if len(distinct):
        ax.plot(x[shown][distinct], rows[shown].to_numpy(float)[distinct], **key.FAILED, zorder=6)


def _connectors(table: pd.DataFrame, spans: Spans, ax: Axes, room: float) -> None:
    """A triangle at each start, and a line to a dot on the end of each zombie that it cleared, in the style of its site."""
    starters = starters_of(table)
    clearing = np.unique(starters[starters >= 0])
    kinds = key.starts(table)
    unknown = np.setdiff1d(clearing, np.concatenate([kind.rows for kind in kinds]) if kinds else [])
    for style, rows in [*((kind.style, kind.rows) for kind in kinds), *([(START, unknown)] if len(unknown) else [])]:
        ax.plot(spans.fork[rows], rows, **_small(_START_MARK, room), color=style["color"], linestyle="", zorder=4)
        for start in np.intersect1d(rows, clearing).tolist():
            swept, x = np.flatnonzero(starters == start), spans.fork[start]
            ax.vlines(x, min(start, swept.min()), max(start, swept.max()), **_plural(style), linewidth=0.9, zorder=3)
            ax.plot(np.full(len(swept), x), swept, **_small(_DOT, room), color=style["color"], linestyle="", zorder=4)


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
    """One row per branch of the family, with the starts that cleared most and the forks that failed."""
    branches = draw_fold(recording, table, spans_of(recording, table), ax)
    row_of = {holder: row for row, branch in enumerate(branches) for holder in branch.holders}
    _failures(recording, _fold_rows(table, row_of), ax)
    _most_clearing(recording, table, row_of, ax)


def _fold_rows(table: pd.DataFrame, row_of: dict[int, int]) -> dict[int, int]:
    """In which row each process is found, by its id: in that of its own children, else among its parent's."""
    parents = enumerate(parents_of(table).tolist())
    found = zip(table["id"].tolist(), (row_of.get(one, row_of.get(parent)) for one, parent in parents), strict=True)
    return {ident: row for ident, row in found if row is not None}


def _most_clearing(recording: Recording, table: pd.DataFrame, row_of: dict[int, int], ax: Axes) -> None:
    """A line at each of the starts that cleared most, with its number, in the style of its site."""
    ids, parent, fork_s = table["id"].tolist(), parents_of(table).tolist(), spans_of(recording, table).fork
    names, starts = Names(recording.whole.lifecycles()), key.starts(table)
    for start, cleared in _labelled(recording, table):
        row, x = row_of[parent[start]], fork_s[start]
        style = next((kind.style for kind in starts if kind.has(start)), START)
        ax.vlines(x, row - 0.4, row + 0.45, **_plural(style | _LABELLED), zorder=3)
        ax.text(x, row - 0.42, f"{names.pid(ids[start])} cleared {cleared:,}", ha="center", va="bottom", fontsize=7)


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
    """How many zombies there are at a time, of all parents together: of many changes the mean, and the most in a thin line."""
    counts = total_zombies(recording.zombie_count())
    steps = Steps(seconds(recording, counts["time_ns"], 0), np.concatenate([[0.0], counts["zombies"].to_numpy(float)]))
    times = steps.times
    edges = np.concatenate([[times.min(initial=0)], times, [times.max(initial=end_s(recording))]])
    kinds = key.zombies(table)
    style = kinds[0].style if len(kinds) == 1 else key.ALL_ZOMBIES
    if len(steps.level) > 4 * BINS:
        edges = np.linspace(edges[0], edges[-1], 4 * BINS + 1)
        ax.stairs(steps.mean(edges), edges, fill=True, **style | FINE)
        ax.stairs(steps.most(edges), edges, baseline=None, **MOST_LINE)
    else:
        ax.stairs(steps.level, edges, fill=True, **style)
    ax.set_ylim(0, max(steps.level.max(), 1) * 1.15)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:g}\n{clock(recording, x)}")
    ax.tick_params(axis="x", labelsize=8)
    ax.set_ylabel("zombies", fontsize=8)
    begin = f"start of the {'recording' if 'attached' in recording.header else 'command'}"
    ax.set_xlabel(f"seconds since the {begin}; below, the time of day")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    ax.set_axisbelow(True)


def clock(recording: Recording, since_s: float) -> str:
    """Return the time of day so many s after the target's start, in this machine's time zone: `16:53:40.1`."""
    since_epoch_ns = recording.start_ns + recording.header["clock_offset_ns"] + since_s * 1e9
    return f"{datetime.fromtimestamp(since_epoch_ns / 1e9, UTC).astimezone():%H:%M:%S.%f}"[:-5]
