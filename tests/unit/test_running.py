"""What `record -p` and `--cgroup` mean, from a /proc of our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forktrace.errors import UsageError
from forktrace.launcher.running import Chosen, choose, choose_cgroup
from forktrace.system.procfs import Proc


def process(root: Path, pid: int, state: str = "S", ppid: int = 1, threads: int = 1, start: int = 100) -> None:
    """Put a process there."""
    folder = root / str(pid)
    folder.mkdir()
    rest = [state, str(ppid), *["0"] * 15, str(threads), "0", str(start), *["0"] * 30]
    (folder / "stat").write_text(f"{pid} (x) {' '.join(rest)}\n")
    (folder / "status").write_text(f"Name:\tx\nTgid:\t{pid}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """A shell, 10, with a process, 20, that has a zombie, 30, and a thread, 21; 40 has lost its main thread."""
    process(tmp_path, 10)
    process(tmp_path, 20, ppid=10, threads=2, start=50)
    process(tmp_path, 30, "Z", ppid=20)
    process(tmp_path, 40, "Z", ppid=10, threads=2)
    process(tmp_path, 50, "Z", ppid=49)
    process(tmp_path, 21)
    (tmp_path / "21" / "status").write_text("Name:\tx\nTgid:\t20\n")
    return Proc(str(tmp_path))


@pytest.mark.parametrize("words", [["10,20"], ["10", "20"], ["10 20"], ["10\n20\n"], ["10,20,", "20"]])
def test_numbers(proc: Proc, words: list[str]) -> None:
    """Commas, blanks and repetition: what pgrep writes is taken."""
    assert choose(words, proc) == Chosen((10, 20))


def test_zombies_and_threads(proc: Proc) -> None:
    """A zombie stands for its parent, a thread for its process; a dead main thread is no zombie."""
    found = choose(["30,21,40"], proc)
    assert found.pids == (20, 40)
    assert found.remarks == (
        "30 is a zombie; attached to its parent 20, which alone can reap it",
        "21 is a thread; attached to its process 20",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([""], "-p names no process"),
        ([","], "-p names no process"),
        (["99"], "there is no process 99"),
        (["4711x"], "4711x is not the number of a process"),
        (["-1"], "-1 is not the number of a process"),
        (["٣"], "is not the number of a process"),
        (["9" * 30], "is not the number of a process"),
        (["50"], "50 is a zombie, and its parent cannot be seen from here"),
    ],
)
def test_no_process(proc: Proc, words: list[str], message: str) -> None:
    """What names no process is said so, in a line."""
    with pytest.raises(UsageError, match=message):
        choose(words, proc)


def test_oneself() -> None:
    """forktrace does not record itself."""
    with pytest.raises(UsageError, match="is forktrace itself"):
        choose([str(os.getpid())])


def test_control_groups(proc: Proc, tmp_path: Path) -> None:
    """A directory or a name; the groups within belong to it; the oldest process comes first."""
    group = tmp_path / "cgroups" / "a b"
    (group / "inner").mkdir(parents=True)
    (group / "cgroup.procs").write_text("10\n0\n")
    (group / "inner" / "cgroup.procs").write_text("20\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text(f"1 1 0:1 / {tmp_path / 'cgroups'} rw - cgroup2 cgroup2 rw\n")
    for name in (str(group), "/a b", "a b"):
        assert choose_cgroup(name, proc) == Chosen((20, 10), cgroup=str(group))
    (group / "cgroup.procs").write_text("")
    (group / "inner" / "cgroup.procs").write_text("")
    with pytest.raises(UsageError, match="no process is in"):
        choose_cgroup("/a b", proc)
    with pytest.raises(UsageError, match="there is no control group /other"):
        choose_cgroup("/other", proc)
