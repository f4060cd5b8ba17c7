"""What a load says that it made beside what was recorded: a difference says which processes it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from counted import Difference, compared, made_by
from traces import MS, cells, recording, target

from forktrace.trace import events as ev

SITE = "/srv/mixed.py:9 storm"
# The worker 200, and by it at the same number twice: 300. Who is reaped is gone, and its number free.
ROWS = [
    target(),
    ev.fork(1 * MS, 200, by=100, comm="python"),
    *(ev.fork(10 * MS, 300, by=200, comm="first"), ev.exit_(11 * MS, 300, parent=200), ev.zombie(11 * MS, 300, parent=200)),
    ev.reap(12 * MS, 300, by=200),
    ev.fork(20 * MS, 300, by=200, comm="second", stack=SITE, stack_status="ok"),
]
COUNTED = {"made-100": ["worker 0 2 100 200"], "made-200": ["storm 9 13 200 300", "storm 19 21 200 300"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a load has written down all that it made."""
    return wrote(tmp_path, COUNTED)


def wrote(folder: Path, lines: dict[str, list[str]]) -> Path:
    """Write these lines, whose moments are in ms."""
    for name, texts in lines.items():
        parts = [text.split() for text in texts]
        rows = [" ".join([way, f"{since}000000", f"{until}000000", *pids]) for way, since, until, *pids in parts]
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder


def difference(folder: Path, *more: ev.Row) -> Difference:
    """Compare the recording with what is written there."""
    return compared(recording(*ROWS, *more).lifecycles(), made_by(folder))


def test_equal(folder: Path) -> None:
    """Each process once on both sides, the command itself left out; a number is used again."""
    found = difference(folder)
    assert found.texts() == []
    assert found.made == {"worker": 1, "storm": 2}


def test_one_that_the_load_did_not_count(tmp_path: Path) -> None:
    """Of two with the same number and parent it is the one that was not forked then; its line is said."""
    folder = wrote(tmp_path, COUNTED | {"made-200": ["storm 9 13 200 300"]})
    found = difference(folder)
    assert cells(found.uncounted, "id", "comm", "forker", "fork_site") == [(3, "second", "python", "mixed.py:9 storm")]
    (text,) = found.texts()
    assert text.startswith("processes recorded, not counted by the load: 1\n")
    assert "second" in text


def test_one_whose_parent_had_ended(folder: Path) -> None:
    """It is shown that its parent was gone: it is another's that was taken for a child."""
    found = difference(folder, ev.fork(30 * MS, 400, by=300, by_start_ns=10 * MS, comm="foreign"))
    assert cells(found.uncounted, "pid", "forker", "forker_exit_ns", "fork_ns") == [(400, "first", 11 * MS, 30 * MS)]


def test_one_that_was_counted_twice(tmp_path: Path) -> None:
    """The second time it is one that was not recorded."""
    folder = wrote(tmp_path, COUNTED | {"made-201": ["storm 8 13 200 300", "nested 1 2 200 7"]})
    found = difference(folder)
    assert cells(found.unrecorded, "way", "pid") == [("nested", 7), ("storm", 300)]
    assert found.uncounted.empty
    assert found.texts()[0].startswith("processes counted by the load, not recorded: 2\n")


def test_a_second_command(folder: Path) -> None:
    """No process but the first is left out."""
    assert difference(folder, target(40 * MS, 500)).uncounted["pid"].tolist() == [500]
