"""What a long recording meets: the limit to its file, a clock that is set, a terminal that closes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from recorded import MARK, PATIENCE_S, Recorded, forktrace_command, kill_with, processes_with, wait_until

import forktrace

pytestmark = pytest.mark.root

# Forks until it is killed.
ENDLESS = "import os\nwhile True: os.fork() or os._exit(0); os.wait()"
# Ends at once; its child forks until it is killed.
OUTLIVED = """
import os, sys
if os.fork():
    os._exit(3)
while True:
    os.fork() or os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("command", [ENDLESS, OUTLIVED])
def test_max_size(command: str, open_folder: Path, environment: Mapping[str, str]) -> None:
    """The trace never exceeds it, is whole up to its end, and says why it ended; what is recorded runs on.

    record ends with 0 then, or as the command has ended if it has.
    """
    path, mark = open_folder / f"{uuid.uuid4()}.arrows", f"{MARK}={uuid.uuid4()}"
    line = forktrace_command("record", "--max-size", "96K", "-o", str(path), "--", sys.executable, "-c", command)
    marked = dict(environment) | dict([mark.split("=")])
    try:
        with (open_folder / "said").open("w") as said:  # not a pipe, which the target would hold open
            done = subprocess.run(line, env=marked, timeout=PATIENCE_S, check=False, stderr=said)
        alive = processes_with(mark)
    finally:
        kill_with(mark)
    text = (open_folder / "said").read_text()
    ended = command == OUTLIVED
    assert done.returncode == (3 if ended else 0), text
    words = "the trace is full (--max-size 96K), the recording ended" + ("" if ended else "; the command runs on")
    assert f"forktrace: {words}\n" in text
    assert 64 << 10 < path.stat().st_size <= 96 << 10
    recorded = Recorded(path, done.returncode, "", text)
    recorded.assert_whole()
    recorded.assert_balanced()
    assert recorded.recording.full == 96 << 10
    assert recorded.raw["kind"].iloc[-1] == "end"
    running = recorded.table[recorded.table["state"] == "running"]
    assert set(alive) & set(running["pid"]), "what was running at the end runs on"


def test_max_size_on_stdout(environment: Mapping[str, str], open_folder: Path) -> None:
    """A stream is limited alike."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    storm = "import os\nfor _ in range(6000): os.fork() or os._exit(0); os.wait()"
    line = forktrace_command("record", "-q", "-o", "-", "--max-size", "64K", "--", sys.executable, "-c", storm)
    with path.open("wb") as sink:
        subprocess.run(line, env=environment, timeout=PATIENCE_S, check=True, stdout=sink)
    assert 40 << 10 < path.stat().st_size <= 64 << 10
    Recorded(path, 0, "", "").assert_whole()


# The recorder's clock, which the target sets forward by an hour.
SET_FORWARD = """
import os, sys, time
from forktrace import cli
now_ns = time.time_ns
time.time_ns = lambda: now_ns() + 3600 * 10**9 * os.path.exists(sys.argv[-1])
cli.main()
"""


def test_a_clock_that_is_set(environment: Mapping[str, str], open_folder: Path) -> None:
    """Times of day go on as at the start, times between events are right, and the trace knows that the clock was set."""
    path, mark = open_folder / f"{uuid.uuid4()}.arrows", open_folder / str(uuid.uuid4())
    line = [sys.executable, "-c", SET_FORWARD, "record", "-q", "-o", str(path), "--", "touch", str(mark)]
    before = time.time()
    subprocess.run(line, env=environment, timeout=PATIENCE_S, check=True)
    recorded = Recorded(path, 0, "", "")
    recorded.assert_whole()
    assert round(recorded.recording.clock_step_ns / 1e9) == 3600
    assert before - 1 < recorded.table["fork_time"].iloc[0].timestamp() < time.time() + 1
    assert recorded.table["run_ms"].iloc[0] < PATIENCE_S * 1000


def test_a_size_that_does_not_hold_the_beginning(environment: Mapping[str, str], open_folder: Path) -> None:
    """Is told before the command runs, and leaves no file."""
    path, ran = open_folder / f"{uuid.uuid4()}.arrows", open_folder / str(uuid.uuid4())
    line = forktrace_command("record", "--max-size", "64K", "-o", str(path), "--", "touch", str(ran), *["x" * 10_000] * 7)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (
        125,
        "forktrace: --max-size: 65,536 bytes do not hold the beginning of this trace\n",
    )
    assert not path.exists()
    assert not ran.exists()


# Ends as it likes when its terminal closes; its child does not care, and goes on.
STAYS = """
import os, signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the child's, from its first instruction
parent, child = os.getpid(), os.fork()
if child:
    signal.signal(signal.SIGHUP, lambda *_: os._exit(3))
    time.sleep(600)
while os.getppid() == parent:
    time.sleep(0.01)
os.fork() or os._exit(4)
os.wait()
os._exit(5)
"""


def test_a_terminal_that_closes(environment: Mapping[str, str], open_folder: Path) -> None:
    """SIGHUP is the command's; the recording goes on to the end of the last descendant."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    line = forktrace_command("record", "-o", str(path), "--", sys.executable, "-c", STAYS)
    launcher, terminal = pty.fork()
    if launcher == 0:
        os.execve(sys.executable, line, dict(environment))
    wait_until(
        lambda: path.exists() and path.stat().st_size and len(forktrace.read(path).lifecycles()) == 2,
        "the target and its child run",
    )
    os.close(terminal)
    _, status = os.waitpid(launcher, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    recorded = Recorded(path, 3, "", "")
    recorded.assert_whole()
    assert recorded.table["exit_code"].tolist() == [3, 5, 4]
