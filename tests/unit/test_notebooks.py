"""The notebooks: what is committed is what they say now, and they say something about any trace."""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import pytest
from golden import DATA, NOTEBOOKS, executed
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text
from traces import HEADER, MS, child, consumer, target

import forktrace
from forktrace.trace import events as ev
from forktrace.trace import stream

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
of_a_trace = pytest.mark.parametrize(
    "path", [path for path in NOTEBOOKS if path.stem != "06-fleet"], ids=lambda path: path.stem
)  # the other is of many


def family(levels: int) -> list[ev.Row]:
    """A tree of so many levels: each process forks two, of which every other one is reaped late."""
    rows, parents, pid = [target()], [100], 200
    for level in range(levels):
        below = []
        for parent in parents[:40]:
            for late in (0, 1):
                rows += child(pid, 10 + 20 * level, 500 + 40 * level, by=parent)
                rows.append(ev.reap((501 + 40 * level + 30 * late) * MS, pid, by=parent))
                below.append(pid)
                pid += 1
        parents = below
    return [*rows, ev.end(2000 * MS)]


# Traces that no scene makes: without a zombie, without a child, with nothing, and with more than can be looked at singly.
MADE: dict[str, list[ev.Row]] = {
    "empty": [],
    "no-child": [target(), ev.end(500 * MS)],
    "no-zombie": [target(), ev.fork(1 * MS, 500, by=100, comm="child"), ev.end(900 * MS)],
    "no-stacks": [target(), *child(500, 100, 200), ev.reap(400 * MS, 500, by=100, options=1), *child(501, 402, 600)],
    "many": consumer(3000, burst=50),
    "deep": family(10),
}


def code_cells(path: Path) -> list[str]:
    """Return the source of each cell of code."""
    return [cell["source"] for cell in nbformat.read(path, as_version=4).cells if cell["cell_type"] == "code"]


def texts(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """Return what each cell of code put out, as far as it is text; of a picture that it is one."""
    cells = [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"]
    return [[output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs] for outputs in cells]


@pytest.fixture
def trace(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A trace, by its name: the recording of a scene, or one made of rows."""
    if request.param not in MADE:
        return DATA / f"{request.param}.arrows"
    path = tmp_path / f"{request.param}.arrows"
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        writer.write(stream.batch_of(MADE[request.param]))
        writer.close()
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[list[str]], str]]:
    """Run cells in this very process, where it takes less time than in a kernel, and draw their pictures."""

    def all_of(cells: list[str]) -> str:
        names: dict[str, Any] = {}
        for cell in cells:
            exec(compile(cell, "<cell>", "exec"), names)
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
        return capsys.readouterr().out

    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("error")
        plt.switch_backend("Agg")
        yield all_of
    plt.close("all")


def overlapping(figure: Figure) -> Iterator[tuple[str, str]]:
    """Yield the labels that stand on each other: of an axis, or in the picture."""
    for ax in figure.axes:
        ticks = [axis.get_ticklabels() for axis in (ax.xaxis, ax.yaxis)] if ax.axison else []
        for labels in [*ticks, ax.texts]:
            shown = [label for label in labels if label.get_visible() and label.get_text()]
            boxes = [Text.get_window_extent(label).padded(-1) for label in shown]  # without the arrow of an annotation
            for (one, box), (other, its) in itertools.combinations(zip(shown, boxes, strict=True), 2):
                if box.overlaps(its):
                    yield one.get_text(), other.get_text()


@notebooks
def test_outputs_are_those_of_the_code(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in a kernel of its own, each notebook says what is committed; `make golden` writes it."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    assert texts(executed(path)) == texts(nbformat.read(path, as_version=4))


@of_a_trace
def test_the_trace_is_named_first(path: Path) -> None:
    """The first cell is the one to change: nothing but the name of a committed trace."""
    first, *_ = code_cells(path)
    found: dict[str, str] = {}
    exec(first, found)
    assert first == f'TRACE = "{found["TRACE"]}"'
    assert (path.parent / found["TRACE"]).resolve().parent == DATA


@notebooks
def test_public_names_only(path: Path) -> None:
    """What a notebook takes of forktrace is there for every user."""
    cells = "\n".join(code_cells(path))
    taken = [name for line in re.findall(r"from forktrace import (.*)", cells) for name in line.split(", ")]
    assert set(taken) <= set(forktrace.__all__)
    assert not re.search(r"from forktrace\.|import forktrace\.", cells)
    assert all(hasattr(forktrace, name) for name in re.findall(r"forktrace\.(\w+)\(", cells))


@of_a_trace
@pytest.mark.parametrize("trace", [*sorted(one.stem for one in DATA.glob("*.arrows")), *MADE], indirect=True)
def test_runs_on_any_trace(path: Path, trace: Path, run: Callable[[list[str]], str]) -> None:
    """Each notebook runs on the trace of every scene and on odd ones; it says something, nothing with NaN; axes have labels."""
    _, *cells = code_cells(path)
    said = run([f"TRACE = {str(trace)!r}", *cells])
    assert said
    assert "nan" not in said.lower()
    for figure in map(plt.figure, plt.get_fignums()):
        assert max(figure.get_tightbbox().size) < 1.6 * max(figure.get_size_inches())
        assert not list(overlapping(figure))
        for axis in [axis for ax in figure.axes if ax.axison for axis in (ax.xaxis, ax.yaxis)]:
            ticks = [label.get_text() for label in axis.get_ticklabels() if label.get_visible()]
            assert not [text for text in ticks if "$" in text]
            common = figure.get_supxlabel() if axis.axis_name == "x" else figure.get_supylabel()
            assert axis.get_label_text() or common or not any(re.fullmatch(r"[-\u2212]?[0-9.]+%?", text) for text in ticks)
