"""What threads wait for, from /proc: each call that usually blocks, of a process that says what it does."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
from recorded import wait_until

from forktrace.system.memory import Memory
from forktrace.system.procfs import Proc
from forktrace.system.waiting_calls import call_of
from forktrace.trace.inquiry import Call

SOCKETS = "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print(s.getsockname()[1], flush=True); "


def call_in(code: str) -> tuple[Call, int, str]:
    """The call that a program waits in, its number, and the line that it printed."""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = process.stdout.readline().strip()
        proc, found = Proc(), []

        def waits() -> bool:
            memory = Memory(process.pid)
            found[:] = [call_of(proc, process.pid, process.pid, memory)]
            memory.close()
            state = proc.stat(process.pid)
            return bool(state and state.state == "S" and found[0])

        wait_until(waits, "it waits")
        for child in (proc.read(f"{process.pid}/task/{process.pid}/children") or "").split():
            os.kill(int(child), 9)
        process.kill()
        assert found[0]
        return found[0], process.pid, said


@pytest.mark.parametrize(
    ("code", "names", "most_s"),
    [
        ("import time; print(flush=True); time.sleep(500)", ("clock_nanosleep", "pselect6", "select"), 500),
        ("import select; print(flush=True); select.select([0], [], [], 700)", ("pselect6", "select"), 700),
        ("import select; p = select.poll(); p.register(0); print(flush=True); p.poll(300000)", ("poll", "ppoll"), 300),
        (
            "import select; p = select.epoll(); p.register(0); print(flush=True); p.poll(200)",
            ("epoll_wait", "epoll_pwait"),
            200,
        ),
        ("import threading as t; l = t.Lock(); l.acquire(); print(flush=True); l.acquire(timeout=400)", ("futex",), 400),
        ("import signal; print(flush=True); signal.sigtimedwait([10], 600)", ("rt_sigtimedwait",), 600),
        ("import os; print(flush=True); os.read(0, 1)", ("read",), math.inf),
        ("import select; p = select.poll(); p.register(0); print(flush=True); p.poll()", ("poll", "ppoll"), math.inf),
        ("import threading as t; l = t.Lock(); l.acquire(); print(flush=True); l.acquire()", ("futex",), math.inf),
        ("import signal; print(flush=True); signal.pause()", ("pause", "rt_sigsuspend"), math.inf),
    ],
)
def test_how_long(code: str, names: tuple[str, ...], most_s: float) -> None:
    """The call, and after how many seconds it returns at the latest."""
    call, _, _ = call_in(code)
    assert call.name in names
    assert call.timeout_s is not None
    assert call.timeout_s == most_s or most_s - 100 < call.timeout_s <= most_s
    waits_for_input = any(word in code for word in ("select.", "os.read"))
    assert [number for number, _ in call.files] == ([0] if waits_for_input else [])
    assert all(what.startswith("pipe:[") for _, what in call.files)


def test_which_child() -> None:
    """A wait names the child, any child or a group, with its options."""
    fork = "import os, time; pid = os.fork(); pid or time.sleep(1000); print(pid, flush=True); "
    for code, wanted in (("os.waitpid(pid, 0)", 1), ("os.waitid(os.P_PID, pid, os.WEXITED)", 1), ("os.wait()", 0)):
        call, _, said = call_in(fork + code)
        assert call.child == (int(said) if wanted else -1), code
    assert call_in(fork + "os.waitpid(0, os.WUNTRACED)")[0] == Call("wait4", (), math.inf, 0, "WUNTRACED")
    call, _, said = call_in(fork + "os.waitid(os.P_PIDFD, os.pidfd_open(pid), os.WEXITED)")
    assert (call.name, call.child, call.options) == ("waitid", int(said), "WEXITED")


def test_with_whom_a_connection_is() -> None:
    """Of a TCP socket the address is told: whom it is connected with, or where it listens."""
    call, _, port = call_in(SOCKETS + "c = socket.create_connection(s.getsockname()); c.recv(1)")
    assert (call.name, [what for _, what in call.files]) == ("recvfrom", [f"TCP 127.0.0.1:{port}"])
    call, _, port = call_in(SOCKETS + "s.accept()")
    assert (call.name, [what for _, what in call.files]) == ("accept4", [f"TCP, listening on 127.0.0.1:{port}"])
    six = SOCKETS.replace("socket.socket()", "socket.socket(socket.AF_INET6)").replace("127.0.0.1", "::1")
    call, _, port = call_in(six + "s.accept()")
    assert [what for _, what in call.files] == [f"TCP, listening on [::1]:{port}"]


def test_a_thread_that_runs() -> None:
    """It waits for nothing; nor does one that has ended."""
    with subprocess.Popen([sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE) as busy:
        assert busy.stdout
        busy.stdout.readline()
        wait_until(lambda: call_of(Proc(), busy.pid, busy.pid, None) is None, "it runs")
        busy.kill()
    assert call_of(Proc(), busy.pid, busy.pid, None) is None
