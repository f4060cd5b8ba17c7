"""The pytest plugin with rights: one recording of the session, held against the limits of each test."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from documented import LONG_S
from people import make_venv, recorder_line, somebody

from forktrace.analysis.recording import read

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.root

PROGRAM = """
import os, subprocess, sys, time, pytest

def fork(seconds=0):
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    time.sleep(seconds)
    return pid

@pytest.mark.limit_zombies(max="100ms")
def test_late():
    os.waitpid(fork(0.3), 0)

@pytest.mark.limit_zombies(max="10s", unreaped=0, stolen=0, running=0)
def test_good():
    os.waitpid(fork(), 0)
    subprocess.run(["true"])

@pytest.mark.limit_zombies(unreaped=0)
def test_zombie():
    fork()

@pytest.mark.limit_zombies(stolen=0)
def test_stolen():
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    while os.wait()[0] != process.pid:
        pass
    process.wait()

def test_free():
    os.waitpid(fork(0.3), 0)

def test_own():
    fork()
    assert False, "mine"

def test_no_child_of_ours():
    with pytest.raises(ChildProcessError):
        while True:
            os.wait()
"""


@pytest.mark.parametrize("more", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_limits_are_held_against_the_recording(pytester: pytest.Pytester, more: list[str]) -> None:
    """Of each test by its process and time; a failure shows the `why` of its worst zombie; the recorder is no test's child."""
    pytester.makepyfile(PROGRAM)
    result = pytester.runpytest_subprocess("--forktrace-record", "--junitxml=out.xml", *more)
    result.assert_outcomes(passed=3, failed=4)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    for line in (
        "test_late ___*",
        "forktrace: the test left too much: max-zombie 100ms: *over",
        "forktrace: the test left too much: 1 zombie, at most 0",
        "forktrace: the test left too much: max-stolen 0: 1 stolen exit status, 1 over",
        "*AssertionError: mine",
        "*forktrace why*",
        "* was a zombie for *",
        "recorded: *session.arrows",
    ):
        result.stdout.fnmatch_lines([f"*{line}" if line.startswith("test_") else line])
    assert text.count("- forktrace why -") == 4
    assert "test_good" not in text.partition("== FAILURES")[2].partition("== forktrace ==")[0]
    assert (pytester.path / "out.xml").read_text().count("<failure") == 4
    trace = pytester.path / ".pytest_cache/d/forktrace/session.arrows"
    assert read(trace).cut is None


def test_nothing_is_left_behind(pytester: pytest.Pytester) -> None:
    """The recorder ends with the session."""
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("--forktrace-record", "--forktrace-required")
    result.assert_outcomes(passed=1)
    path = str(pytester.path / ".pytest_cache")
    assert path not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_a_recording_that_breaks_off_is_no_success(pytester: pytest.Pytester) -> None:
    """A test with limits fails then, since they cannot be told."""
    pytester.makepyfile(
        "import os, pathlib, signal, time, pytest\n"
        "@pytest.mark.limit_zombies(unreaped=0)\n"
        "def test_it():\n"
        "    mine = [p for p in pathlib.Path('/proc').glob('[0-9]*/cmdline')\n"
        "            if str(pathlib.Path.cwd()).encode() + b'/.pytest_cache' in p.read_bytes()]\n"
        "    for p in mine: os.kill(int(p.parent.name), signal.SIGKILL)\n"
        "    assert mine\n"
        "    time.sleep(0.5)\n"
        "def test_free(): pass\n"
    )
    result = pytester.runpytest_subprocess("--forktrace-record")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["forktrace: the test left too much: cannot be told: *"])
    result.stdout.fnmatch_lines(["the recording cannot be held against anything: *"])


def test_through_sudo() -> None:
    """A person whom sudo lets start the recorder without a password; without that rule tests that need it are skipped."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with somebody(Path(folder)) as person:
            python = str(make_venv(Path(folder) / "venv", Path(folder)).with_name("python"))
            if person.run([python, "-c", "import pandas, pytest"]).returncode:
                pytest.skip("pytest of these tests is not for everybody to read")
            (person.home / "test_it.py").write_text(PROGRAM)
            line = [python, "-m", "pytest", "-p", "forktrace.pytest_plugin", "--forktrace-record", "test_it.py"]
            refused = person.run(line, LONG_S, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1").stdout
            with person.may(recorder_line(python, person)):
                done = person.run(line, LONG_S, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1").stdout
    assert "4 failed, 3 passed" in done, done
    assert "max-zombie 100ms: " in done
    assert "3 skipped" in refused, refused
