"""Real programs under forktrace and other witnesses: CPython's own tests of processes. `make test-witness` runs all of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from comparison import RULES, Comparison
from recorded import DEBIAN, PATIENCE_S, WORKLOADS, Recorded, pyenv_versions
from watched import Watcher

SUITES = (
    "test_fork1", "test_wait3", "test_wait4", "test_popen", "test_os", "test_subprocess", "test_asyncio.test_subprocess",
    "test_multiprocessing_fork", "test_multiprocessing_spawn", "test_multiprocessing_forkserver", "test_concurrent_futures",
)  # fmt: skip
ROOT = Path(__file__).parents[2]
VERSIONS = ("3.9", "3.11", "3.13")
SUITE_S = 1800.0  # under strace, on a slow machine


def pythons(version: str) -> list[str]:
    """The interpreters of that version, pyenv's first; Debian's has the test suites that pyenv may lack."""
    found = [str(path) for path in sorted(pyenv_versions().glob(f"{version}.*/bin/python"))]
    return [*found, *([DEBIAN] if Path(DEBIAN).exists() else [])]


@cache
def ships(python: str, version: str, suite: str) -> bool:
    """Whether the interpreter has that version, and that test suite."""
    code = f"import sys, test.{suite}; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
    return subprocess.run([python, "-c", code], capture_output=True, check=False, timeout=PATIENCE_S).returncode == 0


def cpython(version: str, *suites: str, only: Sequence[str] = ()) -> list[str]:
    """The command that runs suites of CPython's, by the first interpreter that ships them; skips where none does.

    `only` has patterns of the tests to run.
    """
    for python in pythons(version):
        if all(ships(python, version, suite) for suite in suites):
            return ["env", "-u", "PYTHONPATH", python, "-m", "test", *(f"--match={pattern}" for pattern in only), *suites]
    pytest.skip(f"no Python {version} here ships {', '.join(suites)}")


@pytest.fixture
def watcher(record: Callable[..., Recorded], tmp_path: Path) -> Watcher:
    """Records with this test's own folder for the logs."""
    return Watcher(record, tmp_path)


def no_difference(found: Comparison, least: int) -> None:
    """Nothing that no rule explains, and enough was compared to say so."""
    print(found)
    assert not found.differences, "\n".join([str(found), *found.differences])
    assert found.compared["status"] >= least
    assert found.compared["reaper"] >= least // 2


def test_rules_are_documented() -> None:
    """docs/reliability.md explains each rule by which witnesses may differ, and no other."""
    page = (ROOT / "docs" / "reliability.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE) == list(RULES)


@pytest.mark.root
def test_strace_agrees(watcher: Watcher) -> None:
    """strace -f inside the recording: parent, forker, status, reaper, moments and order of each thread are the same."""
    only = ("*.ProcessTestCase.test_[c-l]*", "*ThreadedWatcherTests*")
    command = cpython("3.11", "test_subprocess", "test_asyncio.test_subprocess", only=only)
    no_difference(watcher.under_strace(command, SUITE_S), least=50)


@pytest.mark.root
def test_the_log_of_the_program_agrees(watcher: Watcher) -> None:
    """The program's own log, and a sampler of /proc: forks, waits, exits, parents and zombies are where they say."""
    command = cpython("3.11", "test_os", only=("*Spawn*", "*Pid*", "*Fork*"))
    no_difference(watcher.beside(command, SUITE_S), least=10)


def families(seed: int, count: int) -> list[str]:
    """The command that runs random families."""
    return ["env", "-u", "PYTHONPATH", sys.executable, str(WORKLOADS / "random_families.py"), str(seed), str(count)]


@pytest.mark.root
def test_random_families(watcher: Watcher) -> None:
    """Processes that do at random what processes do to each other are as their own log and /proc have them."""
    no_difference(watcher.beside(families(1, 20), SUITE_S), least=10)


@pytest.mark.root
@pytest.mark.witness
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_random_families(watcher: Watcher, seed: int) -> None:
    """Ten times more, and under strace too."""
    no_difference(watcher.under_strace(families(seed, 60), SUITE_S), least=50)
    no_difference(watcher.beside(families(seed, 60), SUITE_S), least=50)


@pytest.mark.root
@pytest.mark.witness
@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("version", VERSIONS)
class TestCPython:
    """All of CPython's tests of processes."""

    def test_strace(self, watcher: Watcher, version: str, suite: str) -> None:
        """No difference from strace -f that no rule explains."""
        no_difference(watcher.under_strace(cpython(version, suite), SUITE_S), least=2)

    def test_own_log_and_proc(self, watcher: Watcher, version: str, suite: str) -> None:
        """No difference from the program's own log and a sampler of /proc that no rule explains."""
        no_difference(watcher.beside(cpython(version, suite), SUITE_S), least=1)
