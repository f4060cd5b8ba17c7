"""`forktrace why -p PID`: programs that leave zombies and then wait, asked about while they run."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from recorded import (
    DEBIAN,
    MARK,
    PATIENCE_S,
    ROOT_IS_A_MOUNT,
    WORKLOADS,
    forktrace_command,
    free_threaded,
    processes_with,
    python3s,
    wait_until,
)

import forktrace
from forktrace.errors import TraceError

pytestmark = pytest.mark.root

IDLE = str(WORKLOADS / "idle.py")
SERIES = ((3, 8), (3, 11), (3, 13))
OF_SERIES = {series: path for version, path in python3s().items() for series in SERIES if version[:2] == series}
PYTHONS = {".".join(map(str, series)): path for series, path in OF_SERIES.items()} | free_threaded()


class Program:
    """A running idle.py: its process, its zombies, and where it reads orders."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        assert process.stdin
        self.pid = process.pid
        self.orders: IO[str] = process.stdin
        self.zombies = [int(word) for word in process.stdout.readline().split()[1:]]

    def children(self) -> list[int]:
        """All its children, zombies among them."""
        return [int(word) for word in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


@contextlib.contextmanager
def idle(way: str, many: int = 3, *before: str, python: str = sys.executable) -> Iterator[Program]:
    """A program that has left its zombies and waits; it is gone afterwards, with its children."""
    command = [*before, python, IDLE, way, str(many)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        program = Program(process)
        try:
            yield program
        finally:
            for pid in [*program.children(), program.pid]:
                os.kill(pid, signal.SIGKILL)


def asked(pid: int, *options: str, status: int = 0) -> str:
    """What `why -p PID` prints, with single spaces; nothing that it started outlives it."""
    mark = str(uuid.uuid4())
    command = forktrace_command("why", "-p", str(pid), *options)
    there = os.environ | {MARK: mark}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=there)
    assert done.returncode == status, done.stdout + done.stderr
    assert not processes_with(f"{MARK}={mark}")
    return " ".join((done.stdout + done.stderr).split())


def line_of(text: str) -> int:
    """The number of the line of idle.py that holds `text`."""
    return next(number for number, line in enumerate(Path(IDLE).read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize("python", PYTHONS.values(), ids=PYTHONS.keys())
def test_an_idle_consumer(python: str) -> None:
    """It says, though nothing happens, how many zombies there are, what they wait for, and where the main thread is."""
    with idle("consumer", 12, python=python) as program:
        said = asked(program.zombies[4], "-d", "1")
        at = f"idle.py:{line_of('sys.stdin.readline()')} poll"
        assert f": 12 zombies asked {program.zombies[4]} is one of them; only {program.pid}, its parent, can reap it" in said
        assert re.search(rf"main {at}.* in read of pipe:\[\d+\] \(fd 0\)", said)
        assert "12 zombies wait for the next Process.start(), active_children() or a join of their own" in said
        assert f"the main thread is at {at}" in said
        assert "multiprocessing.active_children() in the loop" in said
        assert len(program.children()) == 12


def test_a_consumer_that_goes_on() -> None:
    """What it does meanwhile is seen as it happens: the line that starts, what that start swept. Ctrl-C answers at once."""
    with idle("consumer", python=DEBIAN) as program:
        command = forktrace_command("why", "-p", str(program.pid), "-d", str(PATIENCE_S))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            wait_until(lambda: is_recording(process.pid, 4), "the recording begins")
            before = set(program.children())
            program.orders.write("start\n")
            program.orders.flush()
            wait_until(lambda: set(program.children()) - before, "a child is started")
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            said = " ".join(process.communicate(timeout=PATIENCE_S)[0].split())
        line = line_of("process.start()")
        assert process.returncode == 0
        assert f"1 child started at idle.py:{line} consume_task; 3 children reaped: 3 swept by the next start" in said
        assert f"wait4(pid, WNOHANG) 3 times at idle.py:{line} consume_task: reaped 3" in said
        assert f"fix idle.py:{line}, one of: - keep process and join it" in said


def is_recording(pid: int, processes: int) -> bool:
    """Whether the trace that a `why -p` keeps in memory has the rows of the processes that were there."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError, TraceError):
            if os.readlink(entry).startswith("/memfd:forktrace ("):
                return len(forktrace.read(entry).lifecycles()) == processes
    return False


def test_a_join_of_another_child() -> None:
    """A parent that joins one child and so reaps no other: it is said which it waits for."""
    with idle("join") as program:
        said = asked(program.pid, "-d", "1")
        (child,) = set(program.children()) - set(program.zombies)
        assert f"waits for child {child}: wait4({child})" in said
        assert f"idle.py:{line_of('child.join()')} main > Process.join > wait > poll, and waits for child {child} alone" in said


@pytest.mark.parametrize(
    ("way", "remedy"), [("fork", "os.waitpid(pid, os.WNOHANG) in the loop"), ("popen", "call poll() on it")]
)
def test_zombies_that_no_start_sweeps(way: str, remedy: str) -> None:
    """Children of os.fork and subprocess are not multiprocessing's, and get remedies of their own."""
    with idle(way) as program:
        said = asked(program.pid, "-d", "1")
        assert "3 zombies are not multiprocessing's" in said
        assert remedy in said


def test_a_parent_that_is_not_python(workload: Callable[[str], Path]) -> None:
    """Of another program its zombies and its system call are told."""
    code = "for i in 1 2 3; do true & done; exec sleep 1000"
    with subprocess.Popen(["sh", "-c", code]) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            wait_until(lambda: len(children.read_text().split()) == 3, "it has three children")
            wait_until(lambda: "(sleep) S" in Path(f"/proc/{process.pid}/stat").read_text(), "it sleeps")
            said = asked(process.pid, "-d", "1")
        finally:
            process.kill()
    assert "main not a Python program sleeps, for" in said
    assert f"zombies wait for a wait call of {process.pid}" in said


def test_a_process_without_zombies() -> None:
    """It is said, with where the process is, and nothing is waited for; zombies below it are named."""
    with idle("none") as program:
        said = asked(program.pid, "-d", str(10 * PATIENCE_S))
        assert f"{program.pid} {Path(sys.executable).name} {IDLE} none 3: no zombies main idle.py:" in said
    with idle("consumer", 3, "sh", "-c", '"$@"; exit', "sh") as shell:
        (child,) = shell.children()
        said = asked(shell.pid)
        assert "no zombies main not a Python program waits for any child: wait4(-1)" in said
        assert re.search(rf"below it {child} .*: 3 zombies; forktrace why -p {child}$", said)


@pytest.mark.skipif(not ROOT_IS_A_MOUNT, reason="unshare --mount needs a root that is a mount, which this one is not")
def test_a_program_in_a_container(tmp_path: Path) -> None:
    """Numbers are those that `ps` shows here, though the program knows others, and lines those of its own files; what waits for
    whom is told all the same."""
    other = tmp_path / "other.py"
    other.write_text("# This is another file of that name.\n" + Path(IDLE).read_text())
    unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    over = ["sh", "-c", f'mount --bind {other} {IDLE} && exec "$@"', "sh"]
    with idle("join", 3, *unshare, *over) as outer:
        (pid,) = outer.children()
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        (child,) = [one for one in children if Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[0] != "Z"]
        said = asked(pid, "-d", "1")
    assert not set(children) & set(outer.zombies)
    assert f"waits for child {child}: wait4({child})" in said
    assert "3 zombies wait for the next Process.start()" in said
    assert "is PID 1 of its namespace: it inherits the orphans of all others there" in said
    assert f"main idle.py:{line_of('child.join()') + 1} main > Process.join > wait > poll child.join() waits for child" in said


HALF_DEAD = """import ctypes, os, sys, threading
threading.Thread(target=sys.stdin.readline).start()
print(flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)  # exit of this thread alone
"""


def test_a_process_whose_main_thread_has_ended() -> None:
    """ps(1) shows it as a zombie: what it is, and where its other thread is, is told by both commands."""
    command = [DEBIAN, "-c", HALF_DEAD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: " Z " in Path(f"/proc/{process.pid}/stat").read_text(), "the end of its main thread")
        said = asked(process.pid)
        listed = subprocess.run(forktrace_command("ps"), capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
        assert process.stdin
        process.stdin.write("\n")
    assert "ended its main thread: ps(1) shows it as a zombie, but nobody can reap it before its other thread ends too" in said
    assert "main it has ended; others live" in said
    assert "pipe" in said
    assert f"No zombie: {process.pid} python3" in " ".join(listed.split())


def test_without_root() -> None:
    """For a process of another user it shows what /proc has; one line says what is missing, and how to get it."""
    with idle("consumer") as program:
        said = as_nobody("why", "-p", str(program.pid), "-d", "1")
        assert "3 zombies" in said
        assert "threads only their own user and root may see where they are and what they wait for" in said
        assert f'only root sees them: sudo "$(command -v forktrace)" why -p {program.pid}' in said
        assert said.endswith("status 77")


def as_nobody(*arguments: str) -> str:
    """What a command prints that may read every file, where this Python may lie, but is not root; and its exit status."""
    right = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *right, *forktrace_command(*arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return " ".join((done.stdout + done.stderr).split()) + f" status {done.returncode}"


def test_what_cannot_be_asked() -> None:
    """A number that no process has, and options that do not go together, are errors of usage."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert f"there is no process {gone.pid}" in asked(gone.pid, status=2)
    for arguments in (["-p", "1", "run.arrows"], ["-d", "3"], ["-p", "0"]):
        done = subprocess.run(forktrace_command("why", *arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 2
