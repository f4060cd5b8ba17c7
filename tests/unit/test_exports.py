"""The process beside a rotation that adds each finished file to a dataset."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from recorded import wait_until
from rotations import SECOND_FILE, TARGET, write, write_three

import forktrace
from forktrace.cli import cli
from forktrace.service import exports
from forktrace.service.exports import _Files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A rotation of three files, the last one finished."""
    (tmp_path / "run").mkdir()
    return write_three(tmp_path / "run")


@pytest.fixture
def hive(tmp_path: Path) -> Path:
    """Where the dataset is to be."""
    return tmp_path / "hive"


def added(hive: Path) -> list[int]:
    """When the recordings begin that are in the dataset, in ms."""
    return sorted(int(path.stem.split("-")[1]) // 10**6 for path in hive.rglob("*.parquet"))


def first(folder: Path) -> str:
    """The first file."""
    return f"{folder}/run.000001.arrows"


def test_each_process_once(folder: Path, hive: Path) -> None:
    """What a turn carries over is in the file that saw its end, so all files together hold each process once."""
    _Files(str(hive), first(folder)).look(is_over=True)
    assert added(hive) == [0, 1000, 2000]
    table = forktrace.dataset(hive).to_table().to_pandas()
    assert sorted(table["pid"]) == [100, 501, 502, 503, 504]
    assert sorted(table["pid"]) == sorted(forktrace.read(folder).lifecycles()["pid"])


def test_the_newest_file_waits(folder: Path, hive: Path) -> None:
    """It is being written until the recording is over; the next one, handed over and empty, finishes nothing."""
    (folder / "run.000004.arrows").touch()
    files = _Files(str(hive), first(folder))
    files.look(is_over=False)
    assert added(hive) == [0, 1000]
    files.look(is_over=True)
    assert added(hive) == [0, 1000, 2000]


def test_what_an_earlier_start_has_left(folder: Path, hive: Path) -> None:
    """Files before the first one are added, unless they are there already."""
    _Files(str(hive), first(folder)).look(is_over=False)
    [kept] = hive.rglob("b-0-50.parquet")
    kept.write_text("untouched")
    write(folder, 4, *TARGET)
    _Files(str(hive), f"{folder}/run.000004.arrows").look(is_over=True)
    assert added(hive) == [0, 1000, 2000, 3000]
    assert kept.read_text() == "untouched"


def test_a_dataset_that_is_away(folder: Path, hive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is said in one line, tried again at the next turn and not before, and then nothing is missing."""
    hive.write_text("in the way")
    files = _Files(str(hive), first(folder))
    for _ in range(3):
        files.look(is_over=False)
    said = capfd.readouterr().err
    assert said.startswith(f"forktrace: {first(folder)} is not in the dataset yet: {hive}/table=lifecycles/")
    assert said.count("\n") == 1
    hive.unlink()
    files.look(is_over=False)
    assert not hive.exists()
    write(folder, 4, *SECOND_FILE, carried=TARGET)
    files.look(is_over=False)
    assert added(hive) == [0, 1000, 2000]
    assert capfd.readouterr().err == ""


def test_a_file_that_went_first(folder: Path, hive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """When the rotation has removed files that the dataset had not taken, that is said, and the others are added."""
    (folder / "run.000002.arrows").unlink()
    _Files(str(hive), first(folder)).look(is_over=True)
    assert added(hive) == [0, 2000]
    name = f"{folder}/run.000003.arrows"
    assert capfd.readouterr().err == f"forktrace: 1 file before {name} went before the dataset took them\n"


def test_a_damaged_file(folder: Path, hive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is said once, not tried again, and the next ones are added."""
    path = folder / "run.000002.arrows"
    path.write_bytes(b"no trace" * 100)
    files = _Files(str(hive), first(folder))
    for is_over in (False, True):
        files.look(is_over=is_over)
    assert added(hive) == [0, 2000]
    said = capfd.readouterr().err
    assert said.startswith(f"forktrace: {path}: ")
    assert said.endswith(": it is not added to the dataset\n")
    assert said.count("\n") == 1


def test_until_the_recording_ends(folder: Path, hive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn is noticed while it goes on, and the last file is added at its end."""
    monkeypatch.setattr(exports, "LOOK_EVERY_S", 0.01)
    until, recording = os.pipe()
    thread = threading.Thread(target=exports.follow, args=(str(hive), first(folder), until))
    thread.start()
    wait_until(lambda: added(hive) == [0, 1000], "the finished files")
    write(folder, 4, *TARGET)
    wait_until(lambda: added(hive) == [0, 1000, 2000], "the file that the turn has finished")
    os.close(recording)
    thread.join(60)
    os.close(until)
    assert added(hive) == [0, 1000, 2000, 3000]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hive", "hive"], "--hive adds each file of a rotation"),
        (["--rotate", "1h", "-o", "d", "--hive", "gopher://x"], "gopher://x: not a directory or an s3:// URL"),
    ],
)
def test_what_cannot_be(options: list[str], said: str) -> None:
    """It is said before anything is recorded."""
    done = CliRunner().invoke(cli, ["record", *options, "--", "true"])
    assert said in str(done.exception) + done.output
    assert getattr(done.exception, "exit_status", done.exit_code) == 125
