"""The answer for a fleet as a picture: which lines leave how much zombie time, by cause, and on which days."""

from __future__ import annotations

from typing import BinaryIO, Final

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from forktrace.errors import ForktraceError
from forktrace.fleet.question import Answer
from forktrace.fleet.words import line_of, sentence
from forktrace.views import explanations
from forktrace.views.pictures.key import style_of
from forktrace.views.pictures.timeline import STYLE, UNDATED, WIDTH
from forktrace.views.words import shorten

MOST_LINES: Final = 12
_MOST_TITLE: Final = 110
_UNITS: Final = (("hours", 3_600_000), ("minutes", 60_000), ("seconds", 1000))
_ROW_INCHES: Final = 0.3
_EDGES_INCHES: Final = 1.6  # title, axes and key


def write_fleet(answer: Answer, sink: BinaryIO, form: str) -> None:
    """Draw into a file that is open, as `png`, `svg` or `pdf`.

    Raises:
        ForktraceError: the file cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        lines = _shown(answer)
        height = _EDGES_INCHES + _ROW_INCHES * max(len(lines), 2)
        figure = Figure(figsize=(WIDTH, height))
        figure.text(0.01, 1 - 0.3 / height, shorten(sentence(answer), _MOST_TITLE), fontsize=10, va="bottom")
        bottom, tall = 0.9 / height, 1 - 1.4 / height
        plot_lines(answer, figure.add_axes((0.3, bottom, 0.3, tall)))
        plot_days(answer, figure.add_axes((0.63, bottom, 0.32, tall)))
        try:
            figure.savefig(sink, dpi=150, format=form, metadata=UNDATED.get(form))
        except OSError as error:
            raise ForktraceError(f"cannot write the picture: {error.strerror or error}") from error


def _unit(most_ms: float) -> tuple[str, int]:
    """The unit in which a time is at least 2, and its length in ms."""
    return next((one for one in _UNITS if most_ms >= 2 * one[1]), _UNITS[-1])


def plot_lines(answer: Answer, ax: Axes) -> Axes:
    """Draw a bar for each line, its causes side by side, that with most zombie time on top; and return the axes."""
    lines = _shown(answer)
    causes = answer.lines[_keys(answer.lines).isin(lines)].assign(key=_keys)
    ends = np.zeros(len(lines))
    unit, unit_ms = _unit(causes.groupby("key")["zombie_ms"].sum().max())
    for cause, part in causes.groupby("cause", sort=False):
        times = part.set_index("key")["zombie_ms"].reindex(lines, fill_value=0).to_numpy() / unit_ms
        ax.barh(range(len(lines)), times, left=ends, height=0.7, **style_of(str(cause)))
        ends += times
    ax.set_yticks(range(len(lines)), [line_of(one or pd.NA) for one in lines])
    ax.set(xlabel=f"zombie time, {unit}", ylim=(max(len(lines), 1) - 0.5, -0.5))
    keys = [Patch(label=explanations.cause(str(one)).short, **style_of(str(one))) for one in causes["cause"].unique()]
    if keys:
        ax.figure.legend(handles=keys[:6], loc="lower left", ncols=3, fontsize=7, frameon=False)
    return ax


def plot_days(answer: Answer, ax: Axes) -> Axes:
    """Draw the same lines over the days on which their files begin: the darker, the more zombie time; and return the axes."""
    lines = _shown(answer)
    first, last = answer.hosts["first_day"].min(), answer.hosts["last_day"].max()
    days = pd.date_range(first, last)
    times = np.zeros((max(len(lines), 1), len(days)))
    for key, day, ms in zip(_keys(answer.days), pd.to_datetime(answer.days["date"]), answer.days["zombie_ms"], strict=True):
        if key in lines:
            times[lines.index(key), days.get_loc(day)] += ms
    unit, unit_ms = _unit(times.max())
    shades = ax.imshow(times / unit_ms, aspect="auto", cmap="Oranges", vmin=0, interpolation="nearest")
    ax.figure.colorbar(shades, ax=ax, label=f"{unit} a day", pad=0.02)
    step = -(-len(days) // 4)
    ax.set_xticks(range(0, len(days), step), [f"{day:%m-%d}" for day in days[::step]])
    ax.set(yticks=[], xlabel=f"day, UTC ({first:%Y})")
    return ax


def _keys(table: pd.DataFrame) -> pd.Series:
    """The lines; "" for one that is not known."""
    return table["line"].fillna("")


def _shown(answer: Answer) -> list[str]:
    """The lines with most zombie time, whatever its causes."""
    total = answer.lines.assign(line=_keys).groupby("line")["zombie_ms"].sum()
    return [str(one) for one in total.sort_values(ascending=False, kind="stable").index[:MOST_LINES]]
