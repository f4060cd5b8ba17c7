"""`forktrace top -p` on a terminal: what it records shows, and w writes it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from recorded import forktrace_command
from terminal import Terminal

import forktrace

pytestmark = pytest.mark.root

STARTS = "import os, time\nwhile True:\n if os.fork() == 0: os._exit(3)\n os.wait(); time.sleep(0.01)\n"


def test_a_recording_and_its_last_minute(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """Zombies that no look in /proc could count are counted, with the cause of their release, and their lives are written."""
    with subprocess.Popen([sys.executable, "-c", STARTS]) as program:
        line = f'cd {tmp_path} && exec "$@"'
        command = ["/bin/sh", "-c", line, "sh", *forktrace_command("top", "-p", str(program.pid))]
        terminal = Terminal(command, dict(environment) | {"TERM": "xterm-256color"})
        terminal.until("released by os-wait")
        terminal.press(b"w")
        terminal.until("wrote forktrace-top-")
        terminal.press(b"q")
        assert terminal.wait() == 0
        program.kill()
    (path,) = tmp_path.glob("forktrace-top-*.arrows")
    table = forktrace.read(path).lifecycles()
    assert table["pid"][0] == program.pid
    forked = table[table["origin"] == "forked"]
    assert len(forked) > 20
    assert forked["exit_code"].dropna().eq(3).all()
    assert set(forked["reap_cause"].dropna().astype(str)) <= {"os-wait", "never"}
