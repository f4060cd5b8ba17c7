"""Looks in /proc, which takes no rights, for zombies and living children that a test forked since its setup and left."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from typing import Any, Final, NamedTuple

import pytest

from forktrace.pytest_plugin.limits import Left, broken_counts, limits_of
from forktrace.system.procfs import Key, Proc, Stat
from forktrace.trace.words import count, printable

MOST_TESTS: Final = 10  # that the table names
MOST_NAMES: Final = 3
EXEC_S: Final = 0.05  # from fork to exec, on a busy machine
_HELPERS: Final = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")  # one for all tests to come


class Seen(NamedTuple):
    """What a test left: zombies and living processes below this one, by number and name."""

    zombies: tuple[str, ...]
    running: tuple[str, ...]


class Descendants:
    """The processes below this one."""

    def __init__(self, proc: Proc | None = None, pid: int | None = None) -> None:
        self._proc = proc or Proc()
        self._pid = os.getpid() if pid is None else pid

    def now(self) -> dict[Key, Stat]:
        """Return those that there are; an orphan is none of them any more."""
        found: dict[Key, Stat] = {}
        waiting = self._proc.children(self._pid)
        while waiting:
            stat = self._proc.one_of(waiting.pop())
            if stat is None or (stat.pid, stat.start_ticks) in found:
                continue
            found[stat.pid, stat.start_ticks] = stat
            waiting += [] if stat.is_zombie else self._proc.children(stat.pid)
        return found

    def left(self, before: dict[Key, Stat]) -> Seen:
        """Return what is there now and was not before; helpers of multiprocessing are no test's own."""
        new = [stat for key, stat in self.now().items() if key not in before]
        living = [stat for stat in new if not stat.is_zombie]
        if any(self._proc.argv(stat.pid) in (None, self._proc.argv(self._pid)) for stat in living):
            time.sleep(EXEC_S)  # it may be on its way to be something else
        living = [stat for stat in living if not self._is_helper(stat)]
        return Seen(tuple(_name(stat) for stat in new if stat.is_zombie), tuple(map(_name, living)))

    def _is_helper(self, stat: Stat) -> bool:
        argv = " ".join(self._proc.argv(stat.pid) or ())
        return any(name in argv for name in _HELPERS)


def _name(stat: Stat) -> str:
    return f"{stat.pid} {printable(stat.comm)}"


class Looks:
    """Looks after the call of each test. What it saw travels with the report, so that xdist's workers need not be asked."""

    def __init__(self, config: pytest.Config, why_not: str = "") -> None:
        self._config = config
        self._why_not = why_not  # there is no recording
        self._descendants = Descendants()
        self._seen: list[tuple[str, dict[str, Any]]] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse limits that there are not before anything runs."""
        for item in items:
            limits_of(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip what only a recording could tell, where one was asked for and cannot be had: it shall not pass unseen."""
        if self._why_not and limits_of(item).takes_a_recording:
            pytest.skip(f"forktrace cannot record: {self._why_not}")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Compare what is there after the test with what was there before."""
        limits = limits_of(item)
        before = self._descendants.now()
        seen: Seen | None = None
        try:
            result = yield
        finally:
            seen = self._descendants.left(before)
            item.stash[_SEEN] = {"zombies": seen.zombies, "running": seen.running, "untold": limits.takes_a_recording}
        self._hold(limits, seen)
        return result

    def _hold(self, limits: Left, seen: Seen) -> None:
        if broken := broken_counts(limits, len(seen.zombies), len(seen.running)):
            pytest.fail(f"forktrace: the test left {' and '.join(broken)}: {names(seen)}", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Put what was seen into the report."""
        report = yield
        if report.when == "call" and _SEEN in item.stash:
            report.forktrace = item.stash[_SEEN]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a test left."""
        if (seen := getattr(report, "forktrace", None)) and report.when == "call":
            self._seen.append((report.nodeid, seen))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the tests that left most."""
        terminalreporter.section("forktrace")
        if self._why_not:
            terminalreporter.line(f"nothing was recorded: {self._why_not}")
        left = [(nodeid, seen) for nodeid, seen in self._seen if seen["zombies"] or seen["running"]]
        left.sort(key=lambda one: (-len(one[1]["zombies"]), -len(one[1]["running"])))
        if not left:
            terminalreporter.line(f"none of {count(len(self._seen), 'test')} left a zombie or a running child")
        for nodeid, seen in left[:MOST_TESTS]:
            terminalreporter.line(f"{_numbers(seen)}  {printable(nodeid)}  ({names(Seen(seen['zombies'], seen['running']))})")
        if len(left) > MOST_TESTS:
            terminalreporter.line(f"and {count(len(left) - MOST_TESTS, 'more test')}")
        if untold := sum(seen["untold"] for _, seen in self._seen):
            terminalreporter.line(f"{count(untold, 'test')} with max= or stolen=: only --forktrace-record can tell")


_SEEN: Final = pytest.StashKey[dict[str, Any]]()


def names(seen: Seen) -> str:
    """Return who they are, the first of them."""
    every = [*(f"{name} (zombie)" for name in seen.zombies), *seen.running]
    return ", ".join(every[:MOST_NAMES]) + (f" and {len(every) - MOST_NAMES} more" if len(every) > MOST_NAMES else "")


def _numbers(seen: dict[str, Any]) -> str:
    return f"{count(len(seen['zombies']), 'zombie'):>12}, {len(seen['running'])} running"
