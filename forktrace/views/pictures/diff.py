"""Two recordings in one picture: their timelines on one clock, and how long the zombies of each line were in both."""

from __future__ import annotations

from typing import Any, BinaryIO, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from forktrace.analysis.comparison.changes import match
from forktrace.analysis.comparison.runs import Line, Run
from forktrace.analysis.recording import Recording
from forktrace.errors import ForktraceError
from forktrace.trace.words import printable
from forktrace.views.pictures.timeline import STYLE, UNDATED, WIDTH, frame_of, place, timeline
from forktrace.views.words import shorten

MOST_LINES: Final = 8
_LASTING_INCHES: Final = 3.5
_GAP_INCHES: Final = 0.2
_SIDES: Final = (("old", "tab:gray", -0.15), ("new", "tab:blue", 0.15))


def write_diff(old: Recording, new: Recording, sink: BinaryIO, form: str) -> None:
    """Draw both into a file that is open, as `png`, `svg` or `pdf`.

    Raises:
        ForktraceError: the file cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        frames = (frame_of(old), frame_of(new))
        bottoms = (_LASTING_INCHES + frames[1].height + _GAP_INCHES, _LASTING_INCHES)
        height = bottoms[0] + frames[0].height
        figure = Figure(figsize=(WIDTH, height))
        first, second = (place(frame, figure, height, bottom) for frame, bottom in zip(frames, bottoms, strict=True))
        for (name, color, _), recording, ax in zip(_SIDES, (old, new), (first, second), strict=True):
            timeline(recording, ax)
            top = ax.get_position().y1
            figure.text(0.01, top, name, color=color, fontsize=12, fontweight="bold", va="bottom")
        _one_clock(first, second)
        plot_lasting(old, new, figure.add_axes((0.3, 0.6 / height, 0.675, (_LASTING_INCHES - 1) / height)))
        try:
            figure.savefig(sink, dpi=150, format=form, metadata=UNDATED.get(form))
        except OSError as error:
            raise ForktraceError(f"cannot write the picture: {error.strerror or error}") from error


def _one_clock(first: Axes, second: Axes) -> None:
    """The same seconds since the start at the same place."""
    limits = [ax.get_xlim() for ax in (first, second)]
    for ax in (first, second):
        ax.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))


def plot_lasting(old: Recording, new: Recording, ax: Axes) -> Axes:
    """Draw a dot for each zombie, at how long it was one, by line: the old side above the new one; and return the axes."""
    runs = (Run(old), Run(new))
    lasting = [_by_line(run) for run in runs]
    same = match(*lasting)
    before = {same.get(line, line): times for line, times in lasting[0].items()}
    every = {line: (before.get(line, ()), lasting[1].get(line, ())) for line in {**before, **lasting[1]}}
    chosen = sorted(every, key=lambda line: -sum(map(sum, every[line])))[:MOST_LINES]
    for row, line in enumerate(chosen):
        for times, (name, color, shift) in zip(every[line], _SIDES, strict=True):
            seconds = np.maximum(np.asarray(times, float) / 1000, 1e-5)
            style: dict[str, Any] = {"color": color, "linestyle": "", "marker": "o", "markersize": 3, "alpha": 0.6}
            ax.plot(seconds, np.full(len(seconds), row + shift), label=name if row == 0 else None, **style)
    ax.set_yticks(range(len(chosen)), [shorten(printable(line.text), 30) for line in chosen])
    ax.set_ylim(max(len(chosen), 1) - 0.5, -0.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("zombie for so many seconds")
    if chosen:
        ax.legend(loc="lower right")
    return ax


def _by_line(run: Run) -> dict[Line, list[float]]:
    found: dict[Line, list[float]] = {}
    for line, lasted in zip(run.zombies.line.tolist(), run.zombies.lasted_ms.tolist(), strict=True):
        found.setdefault(run.zombies.lines[line], []).append(lasted)
    return found
