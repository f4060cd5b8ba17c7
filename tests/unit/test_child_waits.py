"""Threads that wait for a child, of processes that do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import WORKLOADS, wait_until

from forktrace.cpython.child_waits import look


@pytest.mark.parametrize(
    ("way", "call"), [("join", "wait4"), ("any", "wait4"), ("pipe", None), ("forkserver", None)], ids=lambda value: str(value)
)
def test_who_waits(way: str, call: str | None) -> None:
    """The thread, its call with the child's number, and its stack; of a pipe no call, and without stacks nothing."""
    command = [sys.executable, "-B", str(WORKLOADS / "hung.py"), way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        numbers = [int(word) for word in process.stdout.readline().split()]
        wait_until(lambda: re.search("wait|pipe|poll", Path(f"/proc/{process.pid}/wchan").read_text()), "it waits")
        found, bare = look(True, process.pid), look(False, process.pid)
        for one in numbers:
            os.kill(one, signal.SIGKILL) if Path(f"/proc/{one}").exists() else None
    ((tid, slept_ns, asked, stack),) = found
    assert tid == process.pid
    assert slept_ns is None or 0 <= slept_ns < 100e9
    assert stack[0].file.endswith("hung.py")
    target = numbers[1] if way == "join" else -1
    assert asked == (None if call is None else [call, target, 0, numbers[1] if way == "join" else None])
    assert [one[2:] for one in bare] == ([] if call is None else [[asked, []]])
