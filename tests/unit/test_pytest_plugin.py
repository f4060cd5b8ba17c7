"""The pytest plugin without rights: what it sees of each test, what it fails, and that it does nothing until it is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from forktrace.pytest_plugin.looks import Descendants
from forktrace.system.procfs import Proc

pytest_plugins = ["pytester"]

LEAVING = """
import os, subprocess, sys, time, pytest

def leave_zombie():
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is still there

def leave_running():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"]).returncode = 0
"""


def outcomes(pytester: pytest.Pytester, program: str, *options: str) -> pytest.RunResult:
    """Run tests as a user does, each file in a process of its own."""
    pytester.makepyfile(LEAVING + program)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *options)


def test_it_does_nothing_until_it_is_asked(pytester: pytest.Pytester) -> None:
    """A broken limit passes, the marker is known, and nothing is said."""
    program = "@pytest.mark.limit_zombies(unreaped=0)\ndef test_it(): leave_zombie()\n"
    result = outcomes(pytester, program, "--strict-markers")
    result.assert_outcomes(passed=1)
    assert "left" not in result.stdout.str()


def test_it_imports_pytest_alone_until_it_is_asked(pytester: pytest.Pytester) -> None:
    """No other module of forktrace, and nothing large."""
    program = (
        "def test_it():\n"
        "    ours = {name for name in sys.modules if name.startswith('forktrace')}\n"
        "    assert ours == {'forktrace', 'forktrace.pytest_plugin'}, ours\n"
        "    assert not {'pandas', 'pyarrow', 'numpy', 'click', 'rich'} & set(sys.modules)\n"
    )
    outcomes(pytester, program).assert_outcomes(passed=1)


def test_without_a_marker_nothing_fails_and_the_worst_is_named(pytester: pytest.Pytester) -> None:
    """A table at the end: those that left most first, and who it is."""
    program = "def test_one(): leave_zombie()\ndef test_two(): leave_zombie(); leave_zombie()\ndef test_good(): pass\n"
    result = outcomes(pytester, program, "--forktrace")
    result.assert_outcomes(passed=3)
    result.stdout.re_match_lines(
        [
            r" +2 zombies, 0 running  .*::test_two  \(\d+ \S+ \(zombie\), \d+ \S+ \(zombie\)\)",
            r" +1 zombie, 0 running  .*::test_one ",
        ]
    )
    assert "test_good" not in result.stdout.str()


def test_nothing_left_is_said(pytester: pytest.Pytester) -> None:
    """Children that were waited for are none."""
    result = outcomes(pytester, "def test_it(): subprocess.run(['true'])\n", "--forktrace")
    result.stdout.fnmatch_lines(["none of 1 test left a zombie or a running child"])


def test_a_broken_limit_fails_the_test(pytester: pytest.Pytester) -> None:
    """It is a failure of its call, no error; what is within a limit passes."""
    program = """
@pytest.mark.limit_zombies(unreaped=0)
def test_zombie(): leave_zombie()
@pytest.mark.limit_zombies(unreaped=1)
def test_allowed(): leave_zombie()
@pytest.mark.limit_zombies(running=0)
def test_running(): leave_running()
@pytest.mark.limit_zombies(unreaped=0)
def test_running_alone(): leave_running()
@pytest.mark.limit_zombies(unreaped=0, running=0)
def test_good(): subprocess.run(["true"])
@pytest.mark.xfail(strict=True)
@pytest.mark.limit_zombies(unreaped=0)
def test_expected(): leave_zombie()
@pytest.mark.limit_zombies(unreaped=0)
def test_own_failure():
    leave_zombie()
    raise ValueError("mine")
"""
    result = outcomes(pytester, program, "--forktrace", "-rfE")
    result.assert_outcomes(passed=3, failed=3, xfailed=1)
    result.stdout.re_match_lines([r"forktrace: the test left 1 zombie, at most 0: \d+ "])
    result.stdout.re_match_lines([r"forktrace: the test left 1 running child, at most 0: \d+ "])
    result.stdout.fnmatch_lines(["*ValueError: mine"])


def test_fixtures_are_not_the_tests(pytester: pytest.Pytester) -> None:
    """What a fixture forks before the test, and ends after it, is not what the test leaves; nor is what an earlier one left."""
    program = """
@pytest.fixture
def server():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()
def test_before(): leave_zombie()
@pytest.mark.limit_zombies(unreaped=0, running=0)
def test_it(server): pass
"""
    outcomes(pytester, program, "--forktrace").assert_outcomes(passed=2)


def test_helpers_of_multiprocessing_are_no_tests_own(pytester: pytest.Pytester) -> None:
    """The resource tracker lives on, for all tests to come."""
    program = """
import multiprocessing
@pytest.mark.limit_zombies(unreaped=0, running=0)
def test_it():
    context = multiprocessing.get_context("spawn")
    context.Lock()
    from multiprocessing import resource_tracker
    resource_tracker.ensure_running()
"""
    outcomes(pytester, program, "--forktrace").assert_outcomes(passed=1)


def test_a_limit_for_all_tests(pytester: pytest.Pytester) -> None:
    """`forktrace_unreaped` in pytest.ini; a marker beats it."""
    pytester.makeini("[pytest]\nforktrace_unreaped = 0\n")
    program = """
def test_zombie(): leave_zombie()
@pytest.mark.limit_zombies(unreaped=1)
def test_marked(): leave_zombie()
"""
    outcomes(pytester, program, "--forktrace").assert_outcomes(passed=1, failed=1)


@pytest.mark.parametrize("marker", ["zombies=0", "0", "unreaped='many'", "running=-1", "max='x'", "stolen=True"])
def test_a_limit_that_there_is_not(pytester: pytest.Pytester, marker: str) -> None:
    """Refused before anything runs, with the test that says it."""
    program = f"@pytest.mark.limit_zombies({marker})\ndef test_it(): pass\n"
    result = outcomes(pytester, program, "--forktrace")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "::test_it: limit_zombies" in result.stderr.str() + result.stdout.str()


def test_what_only_a_recording_tells_is_said(pytester: pytest.Pytester) -> None:
    """`max` and `stolen` are not checked in /proc; that is no silence."""
    program = "@pytest.mark.limit_zombies(max='5s')\ndef test_it(): pass\n"
    result = outcomes(pytester, program, "--forktrace")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["1 test with max= or stolen=: only --forktrace-record can tell"])


def test_with_xdist(pytester: pytest.Pytester) -> None:
    """Each worker looks at its own children; the controller has the table."""
    program = """
@pytest.mark.parametrize("n", range(4))
def test_zombie(n): leave_zombie()
@pytest.mark.limit_zombies(unreaped=0)
def test_limited(): leave_zombie()
@pytest.mark.limit_zombies(unreaped=0)
def test_good(): subprocess.run(["true"])
"""
    result = outcomes(pytester, program, "--forktrace", "-n", "2")
    result.assert_outcomes(passed=5, failed=1)
    assert result.stdout.str().count("1 zombie, 0 running") == 5


def test_required_is_for_recording(pytester: pytest.Pytester) -> None:
    """A mistake is no session without a recording."""
    assert outcomes(pytester, "def test_it(): pass\n", "--forktrace-required").ret == pytest.ExitCode.USAGE_ERROR


NO_RIGHTS = """
import forktrace.pytest_plugin.session as session
def refused(self, folder, pid): raise session.CannotRecord("there is no sudo")
session.Session.__init__ = refused
"""


@pytest.mark.parametrize("more", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_without_the_rights_to_record(pytester: pytest.Pytester, more: list[str]) -> None:
    """What only a recording can tell is skipped, the rest is looked at in /proc; nothing passes silently."""
    pytester.makepyfile(norights=NO_RIGHTS)
    program = """
@pytest.mark.limit_zombies(max="5s")
def test_max(): pass
@pytest.mark.limit_zombies(unreaped=0)
def test_unreaped(): leave_zombie()
def test_plain(): pass
"""
    result = outcomes(pytester, program, "--forktrace-record", "-p", "norights", "-rs", *more)
    result.assert_outcomes(passed=1, failed=1, skipped=1)
    result.stdout.fnmatch_lines(["*forktrace cannot record: there is no sudo"])
    result.stdout.fnmatch_lines(["nothing was recorded: there is no sudo"])


def test_required_without_the_rights(pytester: pytest.Pytester) -> None:
    """No test runs, and it is said why."""
    pytester.makepyfile(norights=NO_RIGHTS)
    result = outcomes(pytester, "def test_it(): pass\n", "--forktrace-record", "--forktrace-required", "-p", "norights")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "forktrace cannot record: there is no sudo" in result.stderr.str()


def test_descendants_are_all_below() -> None:
    """Children and theirs, by the list of children and, where the kernel has none, by the parents of all."""

    class WithoutChildren(Proc):
        def read(self, name: str) -> str | None:
            return None if name.endswith("/children") else super().read(name)

    line = [sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"]
    with subprocess.Popen(line, stdin=subprocess.PIPE) as process:
        for proc in (Proc(), WithoutChildren()):
            below = Descendants(proc)
            while len(mine := [one for one in below.now().values() if one.pid == process.pid or one.ppid == process.pid]) < 2:
                time.sleep(0.01)
            assert {one.ppid for one in mine} == {os.getpid(), process.pid}
        process.communicate(b"\n")


def test_a_look_costs_little() -> None:
    """Before and after a test, at most 2 ms together: the least of many, since the machine may be busy."""
    below = Descendants()

    def once() -> float:
        begin = time.perf_counter()
        below.left(below.now())
        return time.perf_counter() - begin

    assert min(once() for _ in range(200)) < 0.002
