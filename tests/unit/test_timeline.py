"""The timeline, by the positions of what it draws."""

from __future__ import annotations

import io
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from traces import BOOT_NS, MS, child, consumer, known, recording, target

import forktrace
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.lifecycles import CAUSES
from forktrace.errors import ForktraceError, UsageError
from forktrace.trace import events as ev
from forktrace.views import explanations
from forktrace.views.pictures import key
from forktrace.views.pictures.fold import steps_of, zombie_spans
from forktrace.views.pictures.key import START
from forktrace.views.pictures.rows import levels, named, row_names, tree_order
from forktrace.views.pictures.spans import spans_of
from forktrace.views.pictures.timeline import clock, format_of, timeline, write_timeline


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
        ("502 child", 0.6, 1.0, True),
        ("500 child", 0.2, 0.4, True),
        ("501 child", 0.25, 0.401, True),
    ]
    assert legend(ax) == [
        *("running", "zombie, never reaped", "zombie, cause not known", "still a zombie at the end", "cleared (dot) by a start")
    ]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_starts_show_what_they_cleared() -> None:
    """A line at the start reaches from the zombies that it cleared to the process that it started."""
    ax = drawn(recording(*SWEPT, closed=False))
    lines = [path for collection in ax.collections for path in collection.get_segments()]
    assert np.array(lines).round(6).tolist() == [[[0.402, 1.0], [0.402, 3.0]]]
    assert marks(ax) == [(">", [1.0], [3]), (">", [0.402], [3]), ("o", [0.402, 0.402], [1, 2])]


def marks(ax: Axes) -> list[tuple[object, list[float], list[float]]]:
    """Return shape, x and y of each group of marks."""
    return [(line.get_marker(), line.get_xdata().round(6).tolist(), line.get_ydata().tolist()) for line in ax.lines]


def test_zombies_by_cause() -> None:
    """Each cause has a colour and a hatch of its own, in the legend too; next-start and never always the same."""
    rows = [target(), *child(500, 10, 20), *child(501, 10, 30), *child(502, 10, 40), *child(503, 10, 20)]
    rows += [ev.reap(90 * MS, pid, by=100) for pid in (500, 501, 503)]
    causes = {1: "join", 2: "next-start", 3: "never", 4: "join"}
    ax = drawn(known(recording(*rows, ev.end(100 * MS), closed=False), reap_cause=causes))
    assert legend(ax)[1:4] == ["zombie, swept by the next start", "zombie, never reaped", "zombie, joined"]
    looks = [(bar.get_y() + bar.get_height() / 2, bar.get_hatch()) for bar in ax.patches if bar.get_hatch()]
    assert [row for row, _ in looks] == [2, 3, 1, 4]
    assert len({hatch for _, hatch in looks}) == 3
    colours = [entry.get_facecolor() for entry in ax.get_legend().get_patches()]
    assert colours == [ax.patches[0].get_facecolor(), *(bar.get_facecolor() for bar in ax.patches[5:8])]
    assert ax.figure.axes[1].patches[0].get_facecolor() not in colours


def test_a_cause_looks_the_same_in_every_picture() -> None:
    """Colour and hatch follow from the cause alone, whatever else is there, and tell every two causes apart."""
    looks = {cause: key.style_of(cause) for cause in (*CAUSES, "mine", "a-rule-of-mine")}
    seen = {(style["facecolor"], style["hatch"]) for cause, style in looks.items() if cause in CAUSES}
    assert len(seen) == len(CAUSES)
    for others in (["join"], ["poll", "pool", "os-wait", "asyncio", "never", "next-start"]):
        rows = [target(), *(row for pid in range(500, 508) for row in child(pid, 10, 20 + pid - 500))]
        made = recording(*rows, ev.end(100 * MS), closed=False)
        known(made, reap_cause=dict(enumerate([*others, "executor"], 1)))
        kinds = {kind.label: kind.style for kind in key.zombies(made.lifecycles())}
        assert kinds["zombie, by its executor"] == looks["executor"]
        assert {*kinds} >= {f"zombie, {explanations.cause(cause).short}" for cause in others}


def test_the_command_itself_is_no_zombie() -> None:
    """Neither its bar nor the legend nor the strip has the moment in which forktrace reaped it."""
    rows = [target(), ev.exit_(50 * MS, 100, parent=50), ev.zombie(50 * MS, 100, parent=50), ev.reap(90 * MS, 100, by=50)]
    ax = drawn(recording(*rows))
    assert bars(ax) == [("100 python", 0.0, 0.05, False)]
    assert legend(ax) == ["running"]
    assert ax.figure.axes[1].patches[0].get_data().values.max() == 0
    assert ax.get_title(loc="left").endswith(": 1 process, no zombies")


def test_the_title_says_what_the_program_did() -> None:
    """The longest zombie, before one that init reaped when it liked; where there is only that, that it is an upper bound."""
    rows = [target(), *child(500, 10, 100), ev.reap(2000 * MS, 500, by=100, call="unseen")]
    assert drawn(recording(*rows)).get_title(loc="left").endswith("longest zombie at most 1.900 s")
    rows += [*child(501, 10, 20), ev.reap(50 * MS, 501, by=100)]
    assert drawn(recording(*rows)).get_title(loc="left").endswith("longest zombie 30 ms")


def test_the_time_of_day() -> None:
    """Below the seconds."""
    made = recording(*SWEPT, closed=False, clock_offset_ns=BOOT_NS)
    assert re.fullmatch(r"\d\d:\d\d:20\.5", clock(made, 0.5))
    ax = drawn(made)
    ax.figure.draw_without_rendering()
    labels = [label.get_text() for label in ax.figure.axes[1].get_xticklabels()]
    assert re.fullmatch(r"0\.2\n\d\d:\d\d:20\.2", labels[1])


def test_rows_are_named_by_what_they_run() -> None:
    """The program that was run, the line that started it, or what helper of multiprocessing it is."""
    spawn = ["/usr/bin/python3.11", "-B", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()"]
    tracker = ["python", "-c", "from multiprocessing.resource_tracker import main;main(3)"]
    programs = {500: ["/usr/bin/python3", "job.py", "-x"], 501: ["sh", "-c", "x"], 502: spawn, 503: tracker}
    rows = [row for pid in range(500, 506) for row in child(pid, 10, 20)]
    rows += [ev.exec_(11 * MS, pid, argv) for pid, argv in programs.items()]
    made = known(recording(target(), *rows), fork_site={3: "a/b.py:7 go", 5: "c.py:9 f"})
    names = row_names(made, made.lifecycles())
    assert names[1:] == ["500 job.py -x", "501 sh -c x", "502 a/b.py:7", "503 resource tracker", "504 c.py:9", "505 child"]


def test_starts_say_their_line() -> None:
    """A triangle at each start in the colour of its line, which the legend names; its connector looks the same."""
    sites = {1: "a.py:1 f", 2: "b.py:2 g", 3: "a.py:1 f"}
    ax = drawn(known(recording(*SWEPT, closed=False), fork_site=sites))
    assert legend(ax)[4:] == ["start at a.py:1 f", "start at b.py:2 g", "cleared (dot) by a start"]
    assert marks(ax)[1:] == [(">", [0.1, 0.402], [1, 3]), ("o", [0.402, 0.402], [1, 2]), (">", [0.15], [2])]
    entries = ax.get_legend().get_lines()
    assert [entry.get_color() for entry in entries[1:3]] == [ax.lines[1].get_color(), ax.lines[3].get_color()]
    assert entries[1].get_color() != entries[2].get_color()
    assert mpl.colors.same_color(ax.collections[0].get_edgecolor(), entries[1].get_color())


def test_many_lines_and_long_ones() -> None:
    """Of many lines the last colour takes the rest; of a long one the function goes first, then the path's beginning."""
    rows = [target(), *(ev.fork(pid * MS, pid, by=100) for pid in range(500, 510))]
    sites = [f"{'long/' * 12}x.py:7 f", f"{'y' * 30}.py:8 function_of_it", "c.py:9 g", "d.py:9 h", "e.py:9 i"]
    made = known(recording(*rows, closed=False), fork_site={1 + n: sites[n // 2] for n in range(10)})
    assert legend(drawn(made))[-4:] == [
        f"start at ...{'long/' * 7}x.py:7",
        f"start at {'y' * 30}.py:8",
        "start at c.py:9 g",
        "start at another line",
    ]


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


@pytest.mark.parametrize(("children", "rows"), [(3, 4), (30, 31), (59, 60), (60, 61), (399, 400), (400, 1), (3000, 1)])
def test_folds_beyond_some_hundred_rows(children: int, rows: int) -> None:
    """Up to 400 processes have a row each; more have one row per parent, with how many there were."""
    ax = drawn(recording(*consumer(children, burst=7), closed=False))
    drawn_rows = round(ax.get_ylim()[0] + 0.45 if rows == 1 else ax.get_ylim()[0] + 0.4)
    assert drawn_rows == rows
    if rows == 1:
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert labels[0].splitlines()[0] == f"100 consumer.py: {children:,} children"
        assert "starts that cleared most" in legend(ax)


def family(levels: int, width: int) -> list[ev.Row]:
    """A tree: each process forks `width` others, on so many levels."""
    rows, parents, pid = [target()], [100], 200
    for level in range(levels):
        below = []
        for parent in parents:
            for _ in range(width):
                rows.append(ev.fork((10 + 10 * level) * MS, pid, by=parent, comm="worker"))
                below.append(pid)
                pid += 1
        parents = below
    return rows


def test_a_tree_is_drawn_as_one() -> None:
    """From 61 processes on children stand below their parents, indented; parents keep their names where room is short."""
    made = recording(*family(6, 2))
    table = made.lifecycles()
    order = tree_order(table)
    assert sorted(order) == list(range(len(table)))
    shown = table.iloc[order]
    at = {ident: row for row, ident in enumerate(shown["id"])}
    assert all(at[parent] < at[one] for one, parent in zip(shown["id"], shown["parent_id"], strict=True) if not pd.isna(parent))
    assert levels(shown).tolist()[:8] == [0, 1, 2, 3, 4, 5, 6, 6]
    labels = [label.get_text() for label in drawn(made).get_yticklabels()]
    assert labels[0] == "100 python"
    assert labels[2].startswith("    2")
    parents = set(shown["parent_id"].dropna())
    for gap in (2, 5):
        written = named(shown, gap)
        assert min(np.diff(written)) >= gap
        assert shown["id"].iloc[written].isin(parents).mean() > 0.6


def test_a_damaged_family_is_drawn_all_the_same() -> None:
    """Processes that would be their own ancestors have a row each."""
    table = recording(*family(2, 3)).lifecycles()
    table["parent_id"] = pd.array([5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12][: len(table)], dtype="Int64")
    assert sorted(tree_order(table)) == list(range(len(table)))
    assert levels(table).max() == 0


def test_fold_by_cause_and_line() -> None:
    """A folded row piles up the zombies by cause; the line of its labelled starts is in the legend."""
    made = recording(*consumer(500, burst=20), closed=False)
    table = made.lifecycles()
    table.loc[table["origin"] == "forked", "fork_site"] = "a.py:1 f"
    table.loc[table["zombie_ms"].notna(), "reap_cause"] = "next-start"
    table.loc[table["zombie_ms"].notna() & (table["id"] % 3 == 0), "reap_cause"] = "join"
    ax = drawn(made)
    assert legend(ax) == [
        *("running children (up)", "zombies (down), swept by the next start", "zombies (down), joined", "most at once"),
        "start at a.py:1 f",
    ]
    running, swept, joined = (patch.get_data() for patch in ax.patches[:3])
    at = int(np.nanargmax(np.nan_to_num(joined.values) * ~np.isnan(swept.values)))
    assert joined.baseline[at] == pytest.approx(swept.values[at])
    assert joined.values[at] > joined.baseline[at] > 0
    assert np.nanmin(running.values) < 0


def test_fold_names_only_the_lines_of_labelled_starts() -> None:
    """Of two lines that start processes, the legend has the one whose starts cleared most, in the colour of their lines."""
    made = recording(*consumer(500, burst=20), closed=False)
    table = made.lifecycles()
    clearing = table["cleared_by_id"].dropna().value_counts()
    table.loc[table["origin"] == "forked", "fork_site"] = "a.py:1 f"
    table.loc[clearing.index[clearing > 1], "fork_site"] = "b.py:2 g"
    ax = drawn(made)
    assert [text for text in legend(ax) if "start" in text] == ["start at b.py:2 g"]
    entry = ax.get_legend().get_lines()[-1]
    assert mpl.colors.same_color(ax.collections[0].get_edgecolor(), entry.get_color())
    assert entry.get_color() != START["color"]


def test_fold_without_starts_that_clear() -> None:
    """No start cleared two zombies: none is labelled, nor in the legend."""
    rows = [target(), *(row for pid in range(500, 920) for row in child(pid, pid - 490, pid - 400))]
    assert legend(drawn(recording(*rows))) == ["running children (up)", "zombies (down), never reaped", "most at once"]


def test_fold_counts() -> None:
    """What is filled is the mean of each bin, by cause; the thin line, and the name, say the most at one moment."""
    rows = [target()]
    for number in range(420):
        rows += child(1000 + number, 10 + number, 30 + number)
        rows.append(ev.reap((40 + number) * MS, 1000 + number, by=100))
    ax = drawn(recording(*rows))
    assert ax.get_yticklabels()[0].get_text() == "100 python: 420 children\nup to 20 running\nup to 10 zombies"


def test_a_busy_parent_is_no_solid_band() -> None:
    """Of many short zombies, one after the other, the share of time in which there is one is filled, here and in the strip."""
    rows = [target()]
    for number in range(3000):
        begin = 10 * MS + number * MS
        rows += [ev.fork(begin, 1000 + number, by=100), ev.exit_(begin + MS // 2, 1000 + number, parent=100)]
        rows += [ev.zombie(begin + MS // 2, 1000 + number, parent=100), ev.reap(begin + MS * 89 // 100, 1000 + number, by=100)]
    ax = drawn(recording(*rows))
    running, dead, most_running, most_dead = (patch.get_data().values[50:450] for patch in ax.patches)
    assert dead.mean() == pytest.approx(0.42 * 0.39, rel=0.02)
    assert -running.mean() == pytest.approx(0.42 * 0.5, rel=0.02)
    assert (most_dead.max(), -most_running.max()) == pytest.approx((0.42, 0.42))
    strip = ax.figure.axes[1].patches[0].get_data().values[100:1900]
    assert strip.mean() == pytest.approx(0.39, rel=0.02)
    assert strip.max() < 0.8


def test_steps() -> None:
    """The mean and the most of each bin, also where it changes within one, before the first change and after the last."""
    steps = steps_of(np.array([1.0, 1.5, 3.0]), np.array([2.0, 2.5, 3.25]))
    edges = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    assert steps.mean(edges).tolist() == [0, 1.5, 0.5, 0.25]
    assert steps.most(edges).tolist() == [0, 2, 1, 1]
    assert steps_of(np.array([]), np.array([])).mean(edges).tolist() == [0, 0, 0, 0]


def test_many_parents() -> None:
    """At most 15 rows, those with the most processes first; parents without a row of their own share one."""
    rows = [target()]
    for number in range(40):
        rows.append(ev.fork((1 + number) * MS, 200 + number, by=100, comm="worker"))
        rows += [ev.fork((50 + i) * MS, 1000 + 100 * number + i, by=200 + number) for i in range(number + 1)]
    labels = [label.get_text().splitlines()[0] for label in drawn(recording(*rows)).get_yticklabels()]
    assert len(labels) == 15
    assert labels[0] == "27 other parents: 378 children"
    assert labels[1:3] == ["100 python: 40 children", "239 worker: 40 children"]


def test_a_deep_family_is_cut_where_most_is() -> None:
    """Ten levels are told by their largest branches, not by parents of one child each."""
    ax = drawn(recording(*family(9, 2)))
    labels = [label.get_text().splitlines()[0] for label in ax.get_yticklabels()]
    assert len(labels) <= 15
    assert sum("and below" in label for label in labels) >= 8
    counts = [int(re.search(r": ([\d,]+) ", label)[1].replace(",", "")) for label in labels]
    assert sum(counts) == 2**10 - 2
    assert max(counts) < 400


def test_inherited_zombies_are_those_of_who_has_them() -> None:
    """An orphan is its parent's zombie until that ended, from then on its adopter's."""
    rows = [target(), *child(500, 10, 200), *child(501, 20, 100, by=500)[:2], ev.zombie(100 * MS, 501, parent=500)]
    rows += [ev.zombie(200 * MS, 501, parent=100), ev.reap(210 * MS, 500, by=100), ev.reap(900 * MS, 501, by=100)]
    made = recording(*rows)
    table = made.lifecycles()
    assert table["adopter_pid"].tolist()[2] == 100
    stretches = zombie_spans(table, spans_of(made, table))
    mine = stretches.row == 2
    found = zip(stretches.holder[mine], stretches.begin[mine].round(6), stretches.end[mine].round(6), strict=True)
    assert list(found) == [(1, 0.1, 0.2), (0, 0.2, 0.9)]


def test_part() -> None:
    """A part of the time is what x shows."""
    ax = drawn(recording(*SWEPT, closed=False).between(300 * MS, 500 * MS))
    assert ax.get_xlim() == pytest.approx((0.3, 0.503))


@pytest.mark.parametrize("comm", ["fifteen-letters", "\x1b" * 15, "w" * 1000])
def test_new_figure_has_room(comm: str) -> None:
    """Nothing that is drawn is cut off at the figure's edge, and the legend does not lie over the bars."""
    for children in (0, 3, 30, 3000):
        first, *others = consumer(children) if children else [target()]
        made = recording({**first, "comm": comm}, *others, closed=False)
        if children == 30:
            causes = ("join", "poll", "pool", "next-start", "never")
            sites = {n: f"{'path/' * 9}file{n % 5}.py:1 function" for n in range(1, 31)}
            known(made, fork_site=sites, reap_cause={n: causes[n % 5] for n in range(1, 31)})
        ax = forktrace.timeline(made)
        figure = ax.figure
        figure.draw_without_rendering()
        width, height = figure.get_size_inches() * figure.dpi
        for box in (figure.get_tightbbox().x0, figure.get_tightbbox().y0):
            assert box >= 0
        assert figure.get_tightbbox().x1 * figure.dpi <= width + 1
        assert figure.get_tightbbox().y1 * figure.dpi <= height + 1
        assert not ax.get_legend().get_window_extent().overlaps(ax.get_window_extent().shrunk(0.999, 0.99))
        title = next(one for one in ax.get_children() if getattr(one, "get_text", str)().startswith("python consumer.py:"))
        assert title.get_window_extent().y0 >= ax.get_legend().get_window_extent().y1 - 1
        assert ax.get_legend().get_window_extent().x1 <= width


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


def test_what_is_gone_is_not_drawn_to_the_end() -> None:
    """Of one whose end was lost, only what is known to have been is drawn."""
    rows = [target(), ev.fork(MS, 500, by=100), *child(501, 10, 20), ev.lost(30 * MS, 2, "reap")]
    rows += [ev.end(50 * MS, '{"still": {"at_ns": 40000000, "processes": [[100, 0, 0]]}}')]
    ax = drawn(recording(*rows, closed=False))
    ends = {name: end for name, _, end, zombie in bars(ax) if not zombie}
    assert ends == {"100* python": 0.05, "500* ?": 0.001, "501* child": 0.02}
    assert not [end for *_, end, zombie in bars(ax) if zombie and end > 0.02]
    assert ax.get_title(loc="left").endswith("(events were lost)")


def test_a_time_that_is_not_known_is_not_written() -> None:
    """Of one that is gone, nobody knows since when, and whose exit is said to be later than its notification."""
    rows = [target(), ev.fork(MS, 501, by=100), ev.zombie(10 * MS, 501, parent=100), ev.exit_(40 * MS, 501, parent=100)]
    rows += [ev.lost(41 * MS, 2, "reap"), ev.end(50 * MS, '{"still": {"at_ns": 41000000, "processes": [[100, 0, 0]]}}')]
    made = recording(*rows, closed=False)
    assert made.lifecycles()["zombie_ms"].isna().all()
    ax = drawn(made)
    assert bars(ax)[1][:3] == ("501* ?", 0.001, 0.04)
    assert not [text for text in ax.texts if text.get_text()]


FAILING = [ev.fork_failed(at * MS, 100, 11, detail="pids.max", count=3) for at in (300, 301, 700)]


def crosses(ax: Axes) -> list[tuple[float, float]]:
    """Return where failed forks are marked."""
    found = [line for line in ax.lines if line.get_marker() == "x"]
    return sorted((round(x, 3), y) for line in found for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_failed_forks() -> None:
    """A cross on the row of who called, at the moment; one for those that would cover each other; the reason in the legend."""
    ax = drawn(recording(*SWEPT, *FAILING, closed=False))
    assert crosses(ax) == [(0.3, 0.0), (0.7, 0.0)]
    assert "failed fork, EAGAIN (pids.max of 3)" in legend(ax)
    ax = drawn(recording(*SWEPT, *FAILING, ev.fork_failed(450 * MS, 502, 12), closed=False))
    assert crosses(ax) == [(0.3, 0.0), (0.45, 3.0), (0.7, 0.0)]
    assert "failed fork, EAGAIN (pids.max of 3) and other errors" in legend(ax)
    assert not crosses(drawn(recording(*SWEPT, closed=False)))


def test_failed_forks_in_a_fold() -> None:
    """On the row of the children of who called; of one without any on the row that it is in itself."""
    rows = [*consumer(480), ev.fork_failed(300 * MS, 100, 11, detail="pids.max"), ev.fork_failed(500 * MS, 4712, 11)]
    ax = drawn(recording(*rows, closed=False))
    assert crosses(ax) == [(0.3, 0.0), (0.5, 0.0)]
    assert "failed fork, EAGAIN (pids.max) and other errors" in legend(ax)


def test_the_title_fits() -> None:
    """A long command is cut so far that the title ends before the picture does."""
    ax = drawn(recording(*SWEPT, closed=False, command=["python", "consumer.py", *(["--option"] * 20)]))
    ax.figure.canvas.draw()
    assert ax.title.get_window_extent().width == 0  # the title is the left one
    title = ax._left_title
    assert title.get_window_extent().x1 <= ax.get_window_extent().x1
    assert title.get_text().endswith("...: 4 processes, longest zombie 400 ms")
