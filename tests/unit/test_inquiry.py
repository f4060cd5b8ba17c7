"""Whom `why -p` means, and that nothing in a process can keep it from answering."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from recorded import WORKLOADS, wait_until

from forktrace.errors import UsageError
from forktrace.launcher.running import process_meant
from forktrace.now import inquiry
from forktrace.now.inquiry import Inquirer
from forktrace.system.procfs import Proc


def test_whom_a_number_means() -> None:
    """A thread its process, a zombie its parent, a process itself; what is gone is nobody."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert process_meant(int(thread.native_id or 0), Proc()) == os.getpid()
    stop.set()
    thread.join()
    child = subprocess.Popen(["true"])
    wait_until(lambda: Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z", "a zombie")
    assert process_meant(child.pid, Proc()) == os.getpid()
    child.wait()
    assert process_meant(os.getppid(), Proc()) == os.getppid()
    with pytest.raises(UsageError):
        process_meant(child.pid, Proc())


def test_memory_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading hangs, as in a page that another process has to bring, the rest is told in time."""
    answers = threading.Event()

    class Hangs:
        def __init__(self, pid: int) -> None:
            answers.wait(60)
            raise ProcessLookupError

    monkeypatch.setattr(inquiry, "Memory", Hangs)
    monkeypatch.setattr(inquiry, "MOST_S", 0.05)
    begin = time.monotonic()
    with Inquirer(os.getpid()) as inquirer:
        seen = inquirer.look()
    assert time.monotonic() - begin < 50
    answers.set()
    assert seen
    assert seen.no_python == "its memory does not answer"
    assert {thread.status for thread in seen.threads} == {"read-fault"}
    assert seen.threads[0].tid == os.getpid()


def test_a_process_that_ends() -> None:
    """It is looked at as long as it is there."""
    with subprocess.Popen([sys.executable, str(WORKLOADS / "standing.py")], stdout=subprocess.PIPE) as process:
        assert process.stdout
        while json.loads(process.stdout.readline())["tid"] != process.pid:
            pass
        with Inquirer(process.pid) as inquirer:
            seen = inquirer.look()
            assert seen
            assert seen.python == ".".join(map(str, sys.version_info[:3]))
            assert any(text == "hold()" for text in seen.sources.values())
            process.kill()
            process.wait()
            assert inquirer.look() is None
