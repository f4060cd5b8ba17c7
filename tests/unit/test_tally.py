"""Figures of a recording that is read piece by piece: in the end they are those of its tables, and none goes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from tallied import of_tables
from traces import HEADER, MS, child, consumer, recording, target, work

from forktrace.analysis.log import NEVER
from forktrace.analysis.recording import Recording, read
from forktrace.service import tally, window
from forktrace.service.tally import Figures, Tally
from forktrace.trace import events as ev

TRACES = sorted((Path(__file__).parents[1] / "data").glob("*.arrows"))
LIB = "/usr/lib/python3.11"


def added_up(made: Recording, rows: int, settled_ns: int = 1000 * MS) -> tuple[Figures, int]:
    """The figures of a recording that comes so many rows at a time, and how many rows were kept at the most.

    No counter goes back from one piece to the next.
    """
    counted, table, kept = Tally(), made.trace.table, 0
    before = counted.figures()
    for start in range(0, table.num_rows, rows):
        part = table.slice(start, rows)
        is_last = start + rows >= table.num_rows
        until_ns = NEVER if is_last else part["time_ns"][-1].as_py() - settled_ns
        counted.add("run.arrows", made.header, part.combine_chunks().to_batches(), until_ns)
        now = counted.figures()
        assert before.forks <= now.forks
        assert before.reaps <= now.reaps
        assert before.failed_forks <= now.failed_forks
        assert before.stolen <= now.stolen
        assert before.lost <= now.lost
        assert before.seconds <= now.seconds
        assert all(old <= new for old, new in zip(before.durations, now.durations, strict=True))
        before, kept = now, max(kept, counted._window._table.num_rows)
    return before, kept


@pytest.mark.parametrize("rows", [7, 60, 10_000])
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_in_the_end_they_are_those_of_the_tables(path: Path, rows: int) -> None:
    """Whatever the pieces are, the figures of each committed recording are those of its lifecycles and other tables."""
    made = read(path)
    found, _ = added_up(made, rows)
    wanted = of_tables(made)
    assert found.seconds == pytest.approx(wanted.seconds)
    found.seconds = wanted.seconds
    assert found == wanted


def test_a_long_recording_is_a_small_window() -> None:
    """What is kept are the living and the last seconds, however many have come and gone; the parent is known to the end."""
    made = recording(*consumer(1500))
    found, kept = added_up(made, 50)
    assert found.reaps == of_tables(made).reaps
    assert found.zombies.total() == 1
    assert kept < 200


def test_what_stays_counts_once() -> None:
    """A parent that stays for the sake of its children, and a zombie of hours, are counted when they are released, once."""
    rows = [target(), ev.fork(MS, 200, by=100), *child(300, 2, 3, by=200), *child(400, 4, 50_000, by=200)]
    rows += [ev.reap(4 * MS, 300, by=200), ev.exit_(5000 * MS, 200, parent=100, adopter=1)]
    rows += [ev.zombie(5000 * MS, 200, parent=100), ev.reap(5001 * MS, 200, by=100), ev.reap(50_001 * MS, 400, by=1)]
    for one in range(100):
        rows += work(1000 + one, 6000 + one * 100, 6001 + one * 100, 6002 + one * 100)
    made = recording(*sorted(rows, key=lambda row: row["time_ns"]))
    found, _ = added_up(made, 5)
    assert found.reaps == of_tables(made).reaps
    assert found.reaps == {("join", "os-fork"): 100, ("unknown", "unknown"): 2, ("parent-exit", "unknown"): 1}
    assert found.forks == 103


def test_a_theft_that_shows_late_is_counted() -> None:
    """Whose exit status was taken shows when its owner asks for it: also minutes later, as long as few others were taken."""
    made = read(Path(__file__).parents[1] / "data/stolen.arrows")
    late = Recording(made.trace)
    found, _ = added_up(late, 3, settled_ns=0)
    assert found.stolen == len(made.stolen()) > 0


def test_thefts_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those whose reap may prove to be stolen only the last are kept."""
    rows = [target(stack="/srv/a.py:1 <module>", stack_status="ok")]
    for one in range(200):
        rows += [*child(1000 + one, one * 10, one * 10 + 1), ev.reap((one * 10 + 2) * MS, 1000 + one, by=100, target="any")]
    monkeypatch.setattr(window, "MOST_SUSPECTS", 10)
    _, few = added_up(recording(*rows), 20, settled_ns=0)
    monkeypatch.setattr(window, "MOST_SUSPECTS", 100)
    _, many = added_up(recording(*rows), 20, settled_ns=0)
    assert few < 60 < 300 < many < 450


def test_lines_are_named_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many lines have names, and all others one together."""
    monkeypatch.setattr(tally, "MOST_LINES", 2)
    rows = [row for one in range(5) for row in work(1000 + one, one + 1, 50 + one, line=10 * (one // 2 + 1))]
    found, _ = added_up(recording(target(), *rows), 4)
    assert found.zombies == {"consumer.py:10 consume": 2, "consumer.py:20 consume": 2, "other": 1}


def test_losses_and_failed_forks_are_counted_once() -> None:
    """Each as it leaves the window: by error and limit, and by how many of which kind."""
    rows = [target(), ev.fork_failed(MS, 100, 11, detail="pids.max", count=10), ev.lost(2 * MS, 3, "exit")]
    rows += [ev.fork_failed(5000 * MS, 100, 12), ev.lost(6000 * MS, 4, "exit"), ev.fork_failed(6000 * MS, 100, 11)]
    found, _ = added_up(recording(*rows), 1)
    assert found.failed_forks == {("EAGAIN", "pids.max"): 1, ("ENOMEM", ""): 1, ("EAGAIN", ""): 1}
    assert found.lost == {"exit": 7}


def test_the_command_itself_is_counted_nowhere() -> None:
    """Also as it is a zombie, until forktrace reaps it."""
    made = recording(target(), ev.exit_(MS, 100, parent=50), ev.zombie(MS, 100, parent=50))
    assert made.header["recorder_pid"] == HEADER["recorder_pid"]
    found, _ = added_up(made, 10)
    assert found == Figures()
