"""A join that hangs: who waits for whom, when a recording ends meanwhile, when its program is killed, and of what runs now."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
from recorded import PATIENCE_S, WORKLOADS, forktrace_command, wait_until

import forktrace
from forktrace.errors import TraceError

pytestmark = pytest.mark.root

HUNG = str(WORKLOADS / "hung.py")
LINES = {"join": "child.join()", "forkserver": "child.join()", "pipe": "shell.communicate()", "any": "os.wait()"}


class Hung(NamedTuple):
    """A program that waits: what started it, its number, its child's, and that of who has its pipe."""

    process: subprocess.Popen[str]
    pid: int
    child: int
    holder: int


@contextlib.contextmanager
def hung(way: str, *before: str, environment: Mapping[str, str] | None = None) -> Iterator[Hung]:
    """A program that waits for a child that runs on; it is gone afterwards, with all that it left."""
    command = [*before, sys.executable, "-B", HUNG, way]
    started: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as process:
        try:
            assert process.stdout
            started += map(int, process.stdout.readline().split())
            pid, child, *holder = started
            wait_until(lambda: in_a_wait(pid), "it waits")
            yield Hung(process, pid, child, *(holder or [0]))
        finally:
            for one in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            process.wait(PATIENCE_S)


def in_a_wait(pid: int) -> bool:
    """Whether its main thread sleeps in a system call in which one waits for a child, or for a pipe."""
    return bool(re.search("wait|pipe|poll", Path(f"/proc/{pid}/wchan").read_text()))


def is_recorded(path: Path) -> bool:
    """Whether a recording has the processes that were there."""
    with contextlib.suppress(TraceError, FileNotFoundError):
        return len(forktrace.read(path).lifecycles()) > 1
    return False


def line_of(way: str) -> str:
    """The place that hangs."""
    lines = Path(HUNG).read_text().splitlines()
    number = next(number for number, line in enumerate(lines, 1) if LINES[way] in line)
    return f"hung.py:{number} {'any_child' if way == 'any' else 'pipe' if way == 'pipe' else 'join'}"


def only_wait(path: Path) -> tuple[pd.Series, forktrace.Recording]:
    """The only row of open_waits."""
    recording = forktrace.read(path)
    table = recording.open_waits()
    assert len(table) == 1, table.to_string()
    return table.iloc[0], recording


@pytest.mark.parametrize("way", LINES)
def test_it_goes_on_when_the_recording_ends(way: str, tmp_path: Path) -> None:
    """The thread, its line, the child where it can be told, and since when, from before the recording."""
    with hung(way) as program:
        command = forktrace_command("record", "-q", "-o", str(tmp_path / "run.arrows"), "-p", str(program.pid))
        with subprocess.Popen(command) as recorder:
            wait_until(lambda: is_recorded(tmp_path / "run.arrows"), "it records")
            recorder.send_signal(signal.SIGINT)
            recorder.wait(PATIENCE_S)
        row, recording = only_wait(tmp_path / "run.arrows")
        assert (row["tid"], row["until"], row["since"]) == (program.pid, "recording", "about")
        assert row["site"] == line_of(way)
        known = {"join": program.child, "pipe": program.child}
        assert row["child_pid"] is pd.NA if way not in known else row["child_pid"] == known[way]
        assert recording.start_ns - 60e9 < row["since_ns"] < recording.start_ns + 1e9


@pytest.mark.parametrize("way", ["join", "any"])
def test_it_is_killed(way: str, tmp_path: Path, environment: Mapping[str, str]) -> None:
    """A program that is killed in its wait, as by `timeout`, has told of it."""
    recorder = forktrace_command("record", "-q", "-o", str(tmp_path / "run.arrows"), "--")
    with hung(way, *recorder, environment=environment) as program:
        os.kill(program.pid, signal.SIGTERM)
        wait_until(lambda: not Path(f"/proc/{program.pid}").exists(), "it is gone")  # else its wait may get the child
        os.kill(program.child, signal.SIGKILL)
        program.process.wait(PATIENCE_S)
    row, _ = only_wait(tmp_path / "run.arrows")
    assert (row["tid"], row["until"], row["site"]) == (program.pid, "killed", line_of(way))
    assert row["child_pid"] == program.child if way == "join" else row["child_pid"] is pd.NA


NEXT = {
    "join": "child {child} python",
    "forkserver": "the fork server, until its child ends: {child}",
    "pipe": "is open in {holder} sleep 1000",
    "any": "child {child} sleep 1000 sleeps",
}


@pytest.mark.parametrize("way", LINES)
def test_who_could_end_it(way: str) -> None:
    """`why -p` names the child, or who has the pipe, and the next command."""
    with hung(way) as program:
        command = forktrace_command("why", "-p", str(program.pid), "-d", "0")
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        said = " ".join(done.stdout.split())
        assert NEXT[way].format(child=program.child, holder=program.holder) in said
        assert f"forktrace why -p {program.holder or program.child}" in said
