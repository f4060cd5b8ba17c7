"""The timeline, by the positions of what it draws."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from traces import MS, child, consumer, recording, target

import forktrace
from forktrace.analysis.recording import Recording
from forktrace.errors import ForktraceError, UsageError
from forktrace.trace import events as ev
from forktrace.views.timeline import format_of, timeline, write_timeline


def drawn(made: Recording) -> Axes:
    """Return the axes of the timeline in a figure of its own."""
    return timeline(made, Figure(figsize=(8, 4)).add_axes((0.1, 0.1, 0.8, 0.8)))


def bars(ax: Axes) -> list[tuple[str, float, float, bool]]:
    """Return row name, beginning, end, and whether it is hatched, of each bar."""
    names = [label.get_text() for label in ax.get_yticklabels()]
    found = [(round(bar.get_y() + bar.get_height() / 2), bar) for bar in ax.patches]
    return [
        (names[row], round(bar.get_x(), 6), round(bar.get_x() + bar.get_width(), 6), bool(bar.get_hatch()))
        for row, bar in found
    ]


def legend(ax: Axes) -> list[str]:
    """Return the words of the legend."""
    return [entry.get_text() for entry in ax.get_legend().get_texts()]


SWEPT = [target(), *child(500, 100, 200), *child(501, 150, 250), ev.reap(400 * MS, 500, by=100, options=1)]
SWEPT += [ev.reap(401 * MS, 501, by=100, options=1), *child(502, 402, 600), ev.end(1000 * MS)]


def test_bars() -> None:
    """A bar per process from fork to exit, a hatched one from death to reap, or to the end; names are the rows."""
    ax = drawn(recording(*SWEPT, closed=False))
    assert bars(ax) == [
        ("100 python", 0.0, 1.0, False),
        ("500 child", 0.1, 0.2, False),
        ("501 child", 0.15, 0.25, False),
        ("502 child", 0.402, 0.6, False),
        ("500 child", 0.2, 0.4, True),
        ("501 child", 0.25, 0.401, True),
        ("502 child", 0.6, 1.0, True),
    ]
    assert legend(ax) == ["running", "zombie", "still a zombie at the end", "cleared (dot) by a start"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_starts_show_what_they_cleared() -> None:
    """A line at the start reaches from the zombies that it cleared to the process that it started."""
    ax = drawn(recording(*SWEPT, closed=False))
    lines = [path for collection in ax.collections for path in collection.get_segments()]
    assert np.array(lines).round(6).tolist() == [[[0.402, 1.0], [0.402, 3.0]]]
    marks = [(line.get_marker(), line.get_xdata().tolist(), line.get_ydata().tolist()) for line in ax.lines[1:2]]
    assert marks == [("o", [0.402, 0.402], [1, 2])]


def test_strip_below() -> None:
    """The strip shares x and is the number of zombies of all parents."""
    ax = drawn(recording(*SWEPT, closed=False))
    strip = ax.figure.axes[1]
    steps = strip.patches[0].get_data()
    assert steps.values.tolist() == [0, 1, 2, 1, 0, 1]
    assert steps.edges.round(6).tolist() == [0.0, 0.2, 0.25, 0.4, 0.401, 0.6, 1.0]
    assert strip.get_shared_x_axes().joined(strip, ax)
    assert strip.get_ylabel() == "zombies"
    assert "seconds" in strip.get_xlabel()


@pytest.mark.parametrize(("children", "rows"), [(3, 4), (30, 31), (59, 60), (60, 1), (3000, 1)])
def test_folds_beyond_sixty_rows(children: int, rows: int) -> None:
    """Up to 60 processes have a row each; more have one row per parent, with how many there were."""
    ax = drawn(recording(*consumer(children, burst=7), closed=False))
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert len(labels) == rows
    if rows == 1:
        assert labels[0].splitlines()[0] == f"100 python: {children:,} children"
        assert "starts that cleared most" in legend(ax)


def test_fold_counts() -> None:
    """A folded row is as high as the most children that ran, and that were zombies, at one moment."""
    rows = [target()]
    for number in range(70):
        rows += child(1000 + number, 10 + number, 30 + number)
        rows.append(ev.reap((40 + number) * MS, 1000 + number, by=100))
    ax = drawn(recording(*rows))
    assert ax.get_yticklabels()[0].get_text() == "100 python: 70 children\nup to 20 running\nup to 10 zombies"


def test_many_parents() -> None:
    """At most 15 parents have a row, those with the most children first; the rest share one."""
    rows = [target()]
    for number in range(20):
        rows.append(ev.fork((1 + number) * MS, 200 + number, by=100, comm="worker"))
        rows += [ev.fork((50 + i) * MS, 1000 + 100 * number + i, by=200 + number) for i in range(number + 1)]
    labels = [label.get_text().splitlines()[0] for label in drawn(recording(*rows)).get_yticklabels()]
    assert len(labels) == 16
    assert labels[:2] == ["100 python: 20 children", "219 worker: 20 children"]
    assert labels[-1] == "6 other parents: 21 children"


def test_part() -> None:
    """A part of the time is what x shows."""
    ax = drawn(recording(*SWEPT, closed=False).between(300 * MS, 500 * MS))
    assert ax.get_xlim() == pytest.approx((0.3, 0.503))


def test_new_figure_has_room() -> None:
    """Nothing that is drawn is cut off at the figure's edge, and the legend does not lie over the bars."""
    for children in (0, 3, 30, 3000):
        made = recording(*(consumer(children) if children else [target(comm="fifteen-letters")]), closed=False)
        ax = forktrace.timeline(made)
        figure = ax.figure
        figure.draw_without_rendering()
        width, height = figure.get_size_inches() * figure.dpi
        for box in (figure.get_tightbbox().x0, figure.get_tightbbox().y0):
            assert box >= 0
        assert figure.get_tightbbox().x1 * figure.dpi <= width + 1
        assert figure.get_tightbbox().y1 * figure.dpi <= height + 1
        assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent().shrunk(0.999, 0.99))


@pytest.mark.parametrize(("form", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_formats(form: str, magic: bytes, tmp_path: Path) -> None:
    """PNG, SVG and PDF, into a file or an open sink; the same recording gives the same file."""
    made = recording(*SWEPT, closed=False)
    sink = io.BytesIO()
    write_timeline(made, sink, form)
    assert sink.getvalue().startswith(magic)
    path = tmp_path / f"x.{form.upper()}"
    write_timeline(made, path)
    assert path.read_bytes() == sink.getvalue()


def test_names_with_dollars() -> None:
    """A dollar sign in a name is a dollar sign."""
    write_timeline(recording(target(comm="$x_{"), command=["$a^$", "$"]), io.BytesIO(), "png")


def test_bad_names(tmp_path: Path) -> None:
    """A name that says no format, and a place that cannot be written, are one-line errors."""
    with pytest.raises(UsageError, match=r"x\.gif"):
        format_of("x.gif")
    with pytest.raises(ForktraceError, match="No such file"):
        write_timeline(recording(target()), tmp_path / "no" / "x.png")
