"""A directory of files, each readable by itself, reads as the one recording that it is."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from rotations import AT_SECOND_TURN, AT_TURN, SECOND, SECOND_FILE, SHORT, TARGET, THIRD_FILE, write, write_three
from traces import HEADER, MS, cells, recording

import forktrace
from forktrace.cli import cli
from forktrace.errors import TraceError, UsageError
from forktrace.trace import events as ev
from forktrace.trace import rotation, stream
from forktrace.views.text.events import lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A rotation of three files."""
    return write_three(tmp_path)


def as_one() -> forktrace.Recording:
    """The same without a turn."""
    rows = (*AT_TURN, *SHORT, *SECOND_FILE, *THIRD_FILE)
    return forktrace.Recording(recording(*rows, ev.end(3 * SECOND, '{"processes": 5}'), closed=False, rotation=0, file=1).trace)


def test_all_files_are_one_recording(folder: Path) -> None:
    """Every table is what it would be without a turn: each process once, no event twice."""
    whole, one = forktrace.read(folder), as_one()
    for name in ("lifecycles", "events", "waits", "zombie_count", "starts", "signals", "orphans"):
        pd.testing.assert_frame_equal(getattr(whole, name)(), getattr(one, name)(), obj=name)
    assert whole.cut is None
    assert len(whole.trace.table) == len(one.trace.table)
    assert whole.balance().holds
    assert not whole.lifecycles()["carried"].any()


def test_a_file_is_readable_by_itself(folder: Path) -> None:
    """It knows what began before, says so, and what goes on after it."""
    middle = forktrace.read(folder / "run.000002.arrows")
    table = middle.lifecycles()
    assert cells(table, "pid", "parent_id", "carried", "state", "comm", "zombie_ms") == [
        (100, None, True, "continued", "python", None),
        (501, 0, True, "zombie", "child", 100.0),
        (502, 0, True, "gone", None, 900.0),
        (504, 1, False, "continued", None, None),
    ]
    assert table["complete"].all()
    assert cells(middle.events(), "time_ns", "kind", "id")[:2] == [(1200 * MS, "reap", 2), (1300 * MS, "fork", 3)]
    assert middle.balance().holds


def test_only_the_files_that_are_needed(folder: Path) -> None:
    """A stretch of time opens no file that lies outside of it; what began before is there all the same."""
    found = rotation.find(folder)
    stretches = ((2_500 * MS, None), (None, 900 * MS), (None, None), (10**15, None))
    names = [[file.number for file in found.needed(*stretch)] for stretch in stretches]
    assert names == [[2, 3], [1], [1, 2, 3], [3]]  # a file may hold what a turn was late for by a second
    last = rotation.read_files(found, found.files[2:])
    assert forktrace.Recording(last).lifecycles()["pid"].tolist() == [100, 501, 504]


def test_a_stretch_of_it_by_the_command_line(folder: Path) -> None:
    """`events DIR/ --since` prints what a recording without a turn would."""
    done = CliRunner().invoke(cli, ["events", f"{folder}/", "--since", "2.25s"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[:-1] == list(lines(as_one().between(2250 * MS)))[:-1]  # the last one counts what was read


@pytest.mark.parametrize("how", ["deleted", "damaged", "cut"])
def test_a_file_that_is_missing(folder: Path, how: str) -> None:
    """Is said in a line; what the next file repeats is read, and who is not in it has gone meanwhile."""
    middle = folder / "run.000002.arrows"
    if how == "deleted":
        middle.unlink()
    else:
        data = middle.read_bytes()
        middle.write_bytes(data[:-300] if how == "cut" else data[:3000] + bytes(64) + data[3064:])
    whole = forktrace.read(folder)
    assert whole.cut is not None
    assert "\n" not in whole.cut
    assert whole.lost() == {"file of the rotation": 1}
    table = whole.lifecycles().set_index("pid")
    assert sorted(table.index) == [100, 501, 502, 503, 504]
    assert table["state"].tolist() == ["gone"] * 5
    assert not table.loc[[501, 502, 504], "complete"].any()
    if how == "deleted":
        assert table.loc[502, "reap_call"] == "unseen"
        assert table.loc[504, "fork_ns"] == 1300 * MS


def test_the_oldest_may_be_gone(folder: Path) -> None:
    """`--keep` removes it: nothing is missing then."""
    (folder / "run.000001.arrows").unlink()
    whole = forktrace.read(folder)
    assert whole.cut is None
    assert cells(whole.lifecycles(), "pid", "carried") == [(100, True), (501, True), (502, True), (504, False)]
    assert whole.balance().holds


def test_the_newest_is_being_written(folder: Path) -> None:
    """Its end is not there yet, and an empty file is the next one."""
    write(folder, 3, *THIRD_FILE[:2], carried=AT_SECOND_TURN, end=None)
    (folder / "run.000004.arrows").touch()
    whole = forktrace.read(folder)
    assert "still recording" in str(whole.cut)
    assert whole.lifecycles()["pid"].tolist() == [100, 501, 502, 503, 504]


def test_something_else_in_the_directory(folder: Path) -> None:
    """Other recordings, other traces and other files are told of in a line each, and nothing stops."""
    write(folder, 9, *TARGET, rotation=77, boot_id="later", end={})
    with (folder / "other.arrows").open("wb") as file:
        stream.Writer(file, HEADER).close()
    (folder / "bad.arrows").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("x")
    found = rotation.find(folder)
    assert [file.number for file in found.files] == [9]
    assert found.earlier == 3
    done = CliRunner().invoke(cli, ["events", str(folder)])
    assert done.exit_code == 0
    assert len(done.stderr.splitlines()) == 3


def test_no_rotation_at_all(tmp_path: Path) -> None:
    """A directory without one is a TraceError of one line."""
    (tmp_path / "bad.arrows").write_bytes(b"nothing")
    with pytest.raises(TraceError, match="no file of a rotation"):
        forktrace.read(tmp_path)


def test_a_time_of_day_is_the_last_one(folder: Path) -> None:
    """After days `--since 02:00` is the last night's, not the first one's."""
    from datetime import UTC, datetime
    from os import utime

    from forktrace.analysis.selection import window

    newest = folder / "run.000003.arrows"
    days_ns = 3 * 24 * 3600 * SECOND
    utime(newest, ns=(0, HEADER["clock_offset_ns"] + days_ns))
    since_ns, until_ns = window(rotation.find(folder), "02:00", "5s")
    assert since_ns is not None
    assert 0 <= days_ns - since_ns < 24 * 3600 * SECOND
    assert datetime.fromtimestamp((since_ns + HEADER["clock_offset_ns"]) / 1e9, UTC).astimezone().hour == 2
    assert until_ns == 5 * SECOND


def test_the_clock_is_set(folder: Path) -> None:
    """Between two files: times of day go on as at the start, which the report says in a line; the order stays."""
    hour_ns = 3600 * SECOND
    later = {"clock_offset_ns": HEADER["clock_offset_ns"] - hour_ns}
    write(folder, 3, *THIRD_FILE, carried=AT_SECOND_TURN, end={"processes": 3, "carried": 3, **later}, **later)
    whole = forktrace.read(folder)
    assert whole.clock_step_ns == -hour_ns
    assert whole.cut is None
    assert whole.lifecycles()["fork_time"].tolist() == as_one().lifecycles()["fork_time"].tolist()


def test_a_dataset_takes_its_files_one_by_one(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its directory is refused: after `--keep` has removed a file it would be another recording, with the same processes."""
    hive = tmp_path_factory.mktemp("hive")
    refused = CliRunner().invoke(cli, ["export", str(folder), "--hive", str(hive)]).exception
    assert isinstance(refused, UsageError)
    assert refused.hint == "export each of its files once, when the next one has begun"
    assert not list(hive.iterdir())
    for path in sorted(folder.iterdir()):
        assert CliRunner().invoke(cli, ["export", str(path), "--hive", str(hive)]).exit_code == 0
    assert sorted(forktrace.dataset(hive).to_table()["pid"].to_pylist()) == [100, 501, 502, 503, 504]
