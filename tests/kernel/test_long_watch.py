"""What keeps a long recording small: a limit to its file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest
from recorded import MARK, PATIENCE_S, Recorded, forktrace_command, processes_with

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
        for pid in processes_with(mark):
            os.kill(pid, signal.SIGKILL)
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
