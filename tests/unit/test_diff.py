"""What `forktrace diff` says: rows by line and cause, figures, gates and statuses, and its formats."""

from __future__ import annotations

import json
import runpy
from itertools import permutations
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_gate import run, write
from traces import MS, recording, target, work

from forktrace.analysis.comparison.changes import compare, match, parse_rise_limit
from forktrace.analysis.comparison.runs import Line, Run
from forktrace.analysis.gate.limits import parse
from forktrace.analysis.gate.verdict import judge
from forktrace.analysis.recording import Recording, read
from forktrace.cli import cli
from forktrace.errors import UsageError
from forktrace.trace import events as ev
from forktrace.views.comparison import sentence
from forktrace.views.formats.diff import as_json, as_markdown

ROOT = Path(__file__).parents[2]
FIXES = read(ROOT / "tests/data/fixes.arrows")
BRANCHES = FIXES.lifecycles().loc[FIXES.branches()["id"]]
BY_WAY = {one.argv.split()[-1]: FIXES.of(one.id) for one in BRANCHES.itertuples()}


def run_of(*lasting_ms: float, line: int = 33, function: str = "consume", **header: object) -> Recording:
    """Return a run whose children, one after the other, were zombies for so long."""
    rows, now = [target()], 10.0
    for pid, lasted in enumerate(lasting_ms, 200):
        rows += work(pid, now, now + 10, now + 10 + lasted, line=line, function=function)
        now += 40 + lasted
    return recording(*rows, ev.end(int(now * MS)), **header)


def test_figures_of_a_run() -> None:
    """Zombie time per 1,000 forks, the longest, what was never reaped, forks a second; the command itself is in none."""
    rows = [*work(1, 0, 100, 300), *work(2, 300, 400, 500), *work(3, 500, 600), ev.fork_failed(700 * MS, 100, 11)]
    made = recording(target(), *rows, ev.exit_(900 * MS, 100), ev.zombie(900 * MS, 100), ev.end(1000 * MS))
    found = {name: one.value for name, one in Run(made).figures.items()}
    assert found == {
        "zombie-seconds": pytest.approx((0.2 + 0.1 + 0.4) / 3 * 1000),
        "max-zombie": pytest.approx(0.4),
        "unreaped": 1,
        "stolen": 0,
        "failed-forks": 1,
        "fork-rate": pytest.approx(3),
        "empty-polls": 0,
    }


def test_rows_are_lines_and_causes() -> None:
    """On both sides, gone, new; with quantiles; the function counts, since lines move."""
    old, new = run_of(100, 300, 200), run_of(10, 20, line=35)
    found = compare([old], [new]).rows
    assert [(row.cause, row.old_line.number, row.new_line.number) for row in found] == [("join", 33, 35)]
    assert (found[0].old.processes, found[0].old.p50_ms, found[0].old.max_ms) == (3, 200, 300)
    assert found[0].old.per_1000_s == pytest.approx(200)
    found = compare([old], [run_of(10, function="other")]).rows
    assert {(row.old_line is None, row.new_line is None) for row in found} == {(False, True), (True, False)}


def test_lines_are_matched_within_their_function() -> None:
    """The same number first; then, where as many are left on both sides, in their order; else they are gone and new."""
    a, b, c = (Line("a.py", "f", number) for number in (10, 20, 30))
    assert match([a, b], [a, b]) == {a: a, b: b}
    assert match([a, b], [b, c]) == {b: b, a: c}
    assert match([a], [b, c]) == {}
    assert match([a], [Line("b.py", "f", 10)]) == {}


def test_paths_are_relative_to_the_program() -> None:
    """The same program in another directory is the same; an installed package wherever it is."""
    old, new = run_of(100, 120, cwd="/srv"), run_of(110, 100, cwd="/srv")
    moved = compare([old], [new])
    assert moved.rows[0].old_line == Line("consumer.py", "consume", 33)
    relative = Run(run_of(1))._relative
    assert relative("/srv/lib/a.py") == "lib/a.py"
    assert relative("/venv/lib/python3.11/site-packages/x/y.py") == "x/y.py"
    assert relative("/opt/z.py") == "/opt/z.py"
    module = Run(run_of(1, command=["python", "-m", "app.main"]))._relative
    assert module("/home/a/src/app/x.py") == "app/x.py"


def test_one_call_clears_many() -> None:
    """What one thread reaps within 10 ms is one call's; what is never reaped is, of one parent, one too."""
    rows = [row for pid in range(1, 6) for row in work(pid, pid, 10, 100 + pid)]
    rows += [row for pid in range(10, 13) for row in work(pid, 200 + pid, 230)]
    calls = Run(recording(target(), *rows, *work(20, 300, 310, 400), ev.end(500 * MS))).zombies.call
    assert calls.tolist() == [0] * 5 + [1] * 3 + [2]


@pytest.mark.parametrize("way", [way for way in BY_WAY if way not in ("nothing", "active-per-message", "double-fork")])
def test_each_fix_is_found(way: str) -> None:
    """Each way of scene fixes that helps, against doing nothing: the time of zombies falls, and more than chance does.

    But for `active-children`, which leaves some: of the five clearing calls of a single run chance could do as much.
    """
    found = compare([BY_WAY["nothing"]], [BY_WAY[way]])
    total = found.figure("zombie-seconds")
    assert total.new < total.old / 5
    assert total.sure == (way != "active-children")
    assert sentence(found).startswith("zombie seconds per 1,000 forks fell from ") == total.sure
    back = compare([BY_WAY[way]], [BY_WAY["nothing"]])
    assert parse_rise_limit("zombie-seconds+10%").met(back.figure("zombie-seconds"))
    assert (" rose from " in sentence(back)) == total.sure


BADNESS = runpy.run_path(str(ROOT / "benchmarks/real_regressions.py"))["BADNESS"]


@pytest.mark.parametrize(("old", "new"), list(permutations(BY_WAY, 2)))
def test_each_way_against_each_other(old: str, new: str) -> None:
    """A worse way meets the gate, a better one does not, and it is told from chance, but for what one run cannot tell.

    That is `active-per-message` from any, and `nothing` from `active-children`: of these two, four fifths of the zombie time
    are one call's, and one observation more or less is chance. Runs that are as bad as each other are not held to anything.
    """
    found = compare([BY_WAY[old]], [BY_WAY[new]])
    total, change = found.figure("zombie-seconds"), BADNESS.get(new, 0) - BADNESS.get(old, 0)
    if not change:
        return
    assert (total.new > total.old * 2) == parse_rise_limit("zombie-seconds+10%").met(total) == (change > 0)
    too_few = "active-per-message" in (old, new) or {old, new} == {"nothing", "active-children"}
    assert total.sure == (not too_few)
    assert (" rose from " in sentence(found)) == (total.sure and change > 0)
    assert (" fell from " in sentence(found)) == (total.sure and change < 0)


@pytest.mark.parametrize(("way", "status"), [("nothing", 1), ("join", 0)])
def test_check_of_the_example(way: str, status: int) -> None:
    """docs/ci.md: 100 ms is broken by doing nothing and holds with join."""
    assert judge(BY_WAY[way], [parse("max-zombie", "100ms")]).exit_status == status


def test_what_does_not_help_is_no_difference() -> None:
    """`active_children()` once per message is what the next start does by itself."""
    found = compare([BY_WAY["nothing"]], [BY_WAY["active-per-message"]])
    assert not found.figure("zombie-seconds").sure
    assert "a difference that chance explains" in sentence(found)


def test_several_runs_a_side() -> None:
    """Per run, with four a side: five in a hundred; with fewer it is said that chance cannot be told."""
    old, new = [run_of(100 + n, 200) for n in range(4)], [run_of(10 + n, 20) for n in range(4)]
    found = compare(old, new)
    assert found.figure("zombie-seconds").sure
    assert found.rows[0].sure
    assert not compare(old, [old[1], old[0], old[3], old[2]]).rows[0].sure
    few = compare(old[:3], new[:3])
    assert not few.figure("zombie-seconds").sure
    assert "fewer than 4 runs a side" in few.remarks[0]


def test_losses_are_not_compared() -> None:
    """Figures that a loss touches are marked, the others are compared; no row is called different."""
    lossy = recording(target(), *work(1, 1, 5, 500), ev.lost(600 * MS, 3, "reap"))
    found = compare([run_of(*range(10, 400, 20))], [lossy])
    assert found.figure("zombie-seconds").missing == ("lost: 3 reap",)
    assert found.figure("failed-forks").missing == ()
    assert not any(row.sure for row in found.rows)
    assert sentence(found).startswith("zombie seconds per 1,000 forks cannot be compared: lost: 3 reap")


def test_a_recording_without_stacks_says_so() -> None:
    """Its processes have no lines, and thefts cannot be told where a wait came too late."""
    bare = recording(target(), ev.fork(MS, 7, by=100), ev.exit_(2 * MS, 7, parent=100), ev.zombie(2 * MS, 7, parent=100))
    found = compare([bare], [run_of(10)])
    assert found.remarks == ["a recording has no stacks: its processes have no lines"]
    assert found.rows[-1].old_line or found.rows[-1].new_line


def test_traces_of_two_formats() -> None:
    """Both are read; that one has less is said."""
    old, new = read(ROOT / "tests/data/kafka.arrows"), run_of(10)
    assert old.header["format"] < new.header["format"]
    assert compare([old], [new]).remarks == ["traces of formats 1 and 2: what one of them lacks is not compared"]


def test_nothing_at_all() -> None:
    """Two recordings without a zombie."""
    bare = recording(target(), ev.end(MS))
    found = compare([bare], [bare])
    assert (found.rows, sentence(found)) == ([], "zombie seconds per 1,000 forks are 0 as before")


@pytest.mark.parametrize(
    ("text", "old", "new", "met"),
    [
        ("zombie-seconds+10%", 100, 110, False),
        ("zombie-seconds+10%", 100, 111, True),
        ("zombie-seconds+10%", 0, 0.001, True),
        ("zombie-seconds+10%", 0, 0, False),
        ("unreaped+3", 2, 5, False),
        ("unreaped+3", 2, 6, True),
        ("unreaped+0", 2, 2, False),
        ("max-zombie+500ms", 1, 1.4, False),
        ("max-zombie+500ms", 1, 1.6, True),
        ("max-zombie+1m", 1, 62, True),
        ("stolen+0", 0, 1, True),
        ("failed-forks+50%", 2, 3, False),
    ],
)
def test_a_gate(text: str, old: float, new: float, met: bool) -> None:
    """Met by what rose by more: percent, or its own unit; from 0 any rise in percent is."""
    found = compare([run_of(1)], [run_of(1)]).figure(parse_rise_limit(text).name)
    assert parse_rise_limit(text).met(found._replace(old=old, new=new)) is met


@pytest.mark.parametrize(
    "text", ["zombies+1", "zombie-seconds", "zombie-seconds+", "unreaped-3", "unreaped+3s", "stolen+x", "fork-rate+1"]
)
def test_what_is_no_gate(text: str) -> None:
    """It says how one is written."""
    with pytest.raises(UsageError, match="--fail-if"):
        parse_rise_limit(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a fast, a slow and a lossy trace, and one that is none."""
    write(tmp_path / "fast.arrows", target(), *work(1, 1, 5, 6))
    write(tmp_path / "slow.arrows", target(), *work(1, 1, 5, 500))
    write(tmp_path / "lossy.arrows", target(), *work(1, 1, 5, 500), ev.lost(600 * MS, 3, "reap"))
    (tmp_path / "bad.txt").write_text("hello")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["fast.arrows", "slow.arrows"], 0),
        (["fast.arrows", "slow.arrows", "--fail-if", "zombie-seconds+10%"], 1),
        (["slow.arrows", "fast.arrows", "--fail-if", "zombie-seconds+10%"], 0),
        (["fast.arrows", "lossy.arrows"], 0),
        (["fast.arrows", "lossy.arrows", "--fail-if", "zombie-seconds+10%"], 66),
        (["fast.arrows", "lossy.arrows", "--fail-if", "failed-forks+0"], 0),
        (["--old", "fast.arrows", "--old", "fast.arrows", "--new", "slow.arrows"], 0),
        (["--old", ".", "--new", "slow.arrows"], 0),
        (["fast.arrows", "bad.txt"], 65),
        (["fast.arrows", "none.arrows"], 70),
        (["fast.arrows"], 2),
        ([], 2),
        (["--old", "fast.arrows"], 2),
        (["fast.arrows", "slow.arrows", "--old", "fast.arrows", "--new", "slow.arrows"], 2),
        (["fast.arrows", "slow.arrows", "--fail-if", "x"], 2),
        (["fast.arrows", "slow.arrows", "-o", "x.gif"], 2),
        (["fast.arrows", "slow.arrows", "-o", "none/x.png"], 70),
    ],
)
def test_statuses(folder: Path, arguments: list[str], status: int) -> None:
    """0 compared, 1 a gate is met, 66 losses touch it, 65 no trace, 2 usage, 70 its own failure."""
    done = run(folder, "diff", *arguments)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_without_traces(tmp_path: Path) -> None:
    """Is a mistake, not an empty side."""
    done = run(tmp_path, "diff", "--old", ".", "--new", ".")
    assert (done.returncode, done.stderr.startswith("forktrace: .: no *.arrows in this directory")) == (2, True)


def test_a_picture(folder: Path) -> None:
    """Both timelines on one clock, and a dot for each zombie by line."""
    from matplotlib.figure import Figure

    from forktrace.views.pictures.diff import plot_lasting

    done = run(folder, "diff", "fast.arrows", "slow.arrows", "-o", "x.svg")
    assert (done.returncode, done.stderr) == (0, "wrote x.svg\n")
    assert "consumer.py:33 consume" in (folder / "x.svg").read_text() or (folder / "x.svg").stat().st_size > 10_000
    ax = plot_lasting(run_of(100, 200), run_of(10, 20, 30, line=34), Figure().add_subplot())
    assert [len(line.get_xdata()) for line in ax.lines] == [2, 3]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["consumer.py:34 consume"]


def test_json_and_markdown() -> None:
    """All figures and rows; unknown quantiles are null; names from a trace cannot be markup."""
    stack = {"stack": "/srv/a|b<i>.py:7 f", "stack_status": "ok"}
    evil = recording(
        target(),
        ev.fork(MS, 7, by=100, **stack),
        ev.exit_(2 * MS, 7, parent=100),
        ev.zombie(2 * MS, 7, parent=100),
        ev.end(9 * MS),
    )
    found = compare([evil], [run_of(10)])
    document = json.loads(as_json(found))
    assert (document["format"], document["version"], document["seed"]) == ("forktrace-diff", 1, 0)
    assert [one["name"] for one in document["figures"]][:2] == ["zombie-seconds", "max-zombie"]
    gone = next(one for one in document["rows"] if one["new_line"] is None)
    assert (gone["old_line"], gone["old"]["p50_ms"], gone["old"]["still"]) == ("a|b<i>.py:7 f", None, 1)
    page = as_markdown(found)
    assert "<i>" not in page
    assert {line.count("|") for line in page.splitlines() if line.startswith("| ")} <= {5, 7}


def test_text() -> None:
    """A sentence first; how it was compared and the seed last."""
    page = (
        CliRunner().invoke(cli, ["diff", *[str(ROOT / "tests/data" / name) for name in ("kafka.arrows", "join.arrows")]]).output
    )
    lines = page.splitlines()
    assert lines[0].startswith("zombie seconds per 1,000 forks fell from 1,549 to ")
    assert "seed 0" in " ".join(lines[-2:])
    assert all(line.isprintable() for line in lines)
