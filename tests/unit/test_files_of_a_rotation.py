"""The launcher's side of a rotation: which file is next, and which is removed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from forktrace.cli import cli
from forktrace.errors import UsageError
from forktrace.launcher import rotation, schedule
from forktrace.launcher.options import RotationPlan
from forktrace.launcher.rotation import RotationFiles
from forktrace.system.users import User

ME = User("me", os.geteuid(), os.getegid(), (), {})
ALWAYS = RotationPlan(every_s=None, size=None, keep=None, max_size=None)


class FakeRecorder:
    """Takes the next file as the recorder does, or not."""

    def __init__(self) -> None:
        self.channel = self
        self.given: list[str] = []
        self.said: list[str] = []

    def send_descriptor(self, what: str, descriptor: int, path: str) -> None:
        """Note what was handed over."""
        assert what == "next"
        assert os.fstat(descriptor).st_size == 0
        self.given.append(Path(path).name)

    def say(self, text: str) -> None:
        """Note what the user is told."""
        self.said.append(text)


@pytest.fixture
def recorder() -> Any:
    """A recorder."""
    return FakeRecorder()


@pytest.fixture(autouse=True)
def no_merge(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is written here is no trace."""
    monkeypatch.setattr(rotation, "merge", lambda _: None)
    return


def grown(files: RotationFiles, size: int) -> None:
    """The recorder has written so much."""
    os.ftruncate(files.descriptor, size)


def names(folder: Path) -> list[str]:
    """The numbers of the files that there are."""
    return sorted(path.name.split(".")[1] for path in folder.glob("x.*.arrows"))


def go_on(files: RotationFiles, recorder: Any, size: int = 10) -> None:
    """Let there be a turn."""
    grown(files, size)
    files.turn_soon()
    files.look(recorder)
    files.turned({})


def test_numbers_go_on(tmp_path: Path, recorder: Any) -> None:
    """After those of any recording in the directory, with mode 0600 in a directory of mode 0700."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "other.000041.arrows").touch()
    files = RotationFiles(f"{tmp_path}/d/", "x", ALWAYS, ME)
    go_on(files, recorder)
    grown(files, 1)
    files.close()
    assert names(tmp_path / "d") == ["000042", "000043"]
    assert (tmp_path / "d" / "x.000042.arrows").stat().st_mode & 0o777 == 0o600
    made = RotationFiles(str(tmp_path / "new" / "one"), "x", ALWAYS, ME)
    made.close()
    assert (tmp_path / "new" / "one").stat().st_mode & 0o777 == 0o700
    assert names(tmp_path / "new" / "one") == []  # nothing was written to it


def test_when_there_is_a_turn(tmp_path: Path, recorder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file is old or large enough, and not twice before the recorder has turned."""
    now = [1000.0]
    monkeypatch.setattr(rotation, "_now_s", lambda: now[0])
    files = RotationFiles(str(tmp_path), "x", RotationPlan(every_s=60, size=100, keep=None, max_size=None), ME)
    grown(files, 99)
    files.look(recorder)
    assert recorder.given == []
    now[0] += 60
    for _ in range(3):
        files.look(recorder)
    assert recorder.given == ["x.000002.arrows"]
    files.turned({})
    files.look(recorder)
    grown(files, 100)
    files.look(recorder)
    assert recorder.given == ["x.000002.arrows", "x.000003.arrows"]
    files.close()
    assert names(tmp_path) == ["000001", "000002"]  # the third was never written to


@pytest.mark.parametrize(("keep", "left"), [(1, ["000005"]), (3, ["000003", "000004", "000005"])])
def test_keep(tmp_path: Path, recorder: Any, keep: int, left: list[str]) -> None:
    """So many files there are, the growing one among them; others of another name stay."""
    (tmp_path / "x.notes.arrows").touch()
    files = RotationFiles(str(tmp_path), "x", RotationPlan(None, None, keep, None), ME)
    for _ in range(4):
        go_on(files, recorder)
        files.look(recorder)
    assert names(tmp_path)[:-1] == left
    files.close()


def test_all_together_have_a_limit(tmp_path: Path, recorder: Any) -> None:
    """A file has half of it, and the oldest go before the newest could grow over it."""
    files = RotationFiles(str(tmp_path), "x", RotationPlan(None, None, None, 1000), ME)
    assert RotationPlan(None, 100, None, 1000).file_size == 100
    for size in (300, 300, 200):
        go_on(files, recorder, size)
        files.look(recorder)
    assert names(tmp_path) == ["000002", "000003", "000004"]
    go_on(files, recorder, 500)
    files.look(recorder)
    assert names(tmp_path) == ["000004", "000005"]
    files.close()


def test_a_next_file_that_cannot_be(tmp_path: Path, recorder: Any) -> None:
    """Is said once, and tried again later; the recording goes on."""
    files = RotationFiles(str(tmp_path), "x", ALWAYS, ME)
    (tmp_path / "x.000002.arrows").mkdir()
    for _ in range(2):
        files.turn_soon()
        files.look(recorder)
    (tmp_path / "x.000002.arrows").rmdir()
    files.look(recorder)
    assert recorder.given == []  # not before some seconds are over
    (tmp_path / "x.000002.arrows").mkdir()
    assert len(recorder.said) == 1
    assert "the recording goes on" in recorder.said[0]
    (tmp_path / "x.000002.arrows").rmdir()
    files.turn_soon()
    files.look(recorder)
    files.refused(recorder, {"why": "it is odd"})
    assert recorder.said[1:] == ["no next file: it is odd"]
    assert names(tmp_path) == ["000001"]
    files.close()


def test_a_directory_is_one_recordings(tmp_path: Path) -> None:
    """Another one is refused as long as the first runs; so is what is no directory."""
    files = RotationFiles(str(tmp_path), "x", ALWAYS, ME)
    with pytest.raises(UsageError, match="another recording writes to"):
        RotationFiles(str(tmp_path), "x", ALWAYS, ME)
    files.close()
    RotationFiles(str(tmp_path), "x", ALWAYS, ME).close()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no directory"):
        RotationFiles(str(tmp_path / "file"), "x", ALWAYS, ME)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--keep 2 -o d/", "--keep is for --rotate"),
        ("--rotate 1h", "name a directory with -o"),
        ("--rotate 1h -o -", "name a directory with -o"),
        ("--rotate 60 -o d/", "neither a time nor a size"),
        ("--rotate 0.1s -o d/", "--rotate 0.1s: "),
        ("--rotate 1K -o d/", "--rotate 1K: "),
        ("--rotate 1h --rotate 2h -o d/", "there is one such limit already"),
        ("--rotate 1h --max-size 64K -o d/", "too small for several files"),
        ("--rotate 1h --keep 0 -o d/", "keep"),
    ],
)
def test_what_cannot_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, words: str) -> None:
    """One line says it, before anything is recorded."""
    from forktrace.cli.record import _plan
    from forktrace.errors import ForktraceError

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["record", *arguments.split(), "--", "true"])
    said = str(done.exception) + done.output if isinstance(done.exception, ForktraceError) else done.output
    said += done.exception.hint if isinstance(done.exception, ForktraceError) else ""
    assert words in said
    assert list(tmp_path.iterdir()) == []
    assert _plan(("30m", "1M"), 3, None, "d") == RotationPlan(1800, 1 << 20, 3, None)


def test_a_service_manager() -> None:
    """What it asks for counts for this process alone, and nonsense for nothing."""
    path = "/run/nobody"
    assert schedule.ServiceManager({}).alive_every_s == 0
    assert schedule.ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000"}).alive_every_s == 1.5
    assert schedule.ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}).alive_every_s == 0
    assert schedule.ServiceManager({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "-x"}).alive_every_s == 0
    schedule.ServiceManager({"NOTIFY_SOCKET": path}).tell("READY=1")  # nobody is there
