"""Holds a recording of the session against the limits of each test, when all of them have run.

While they run it only notes which process ran which test from when to when; the table, the failures and the `why` of the worst
zombie follow from the trace.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from forktrace.pytest_plugin.limits import Left, limits_of
from forktrace.pytest_plugin.looks import MOST_TESTS, Looks
from forktrace.pytest_plugin.session import CannotRecord, Session
from forktrace.system.procfs import kernel_boottime_ns
from forktrace.trace.words import count, duration, printable

_NOTE: Final = pytest.StashKey[dict[str, Any]]()


def register(config: pytest.Config) -> None:
    """Record, or where that cannot be look in /proc, unless the recording is required.

    Raises:
        UsageError: it is required.
    """
    if hasattr(config, "workerinput"):  # one of xdist's: its controller records
        why_not = config.workerinput.get("forktrace_why_not", "")
        config.pluginmanager.register(Looks(config, why_not) if why_not else Notes(), "forktrace-notes")
        return
    try:
        session = Session(_folder(config), os.getpid())
    except CannotRecord as error:
        if config.getoption("forktrace_required"):
            raise pytest.UsageError(f"forktrace cannot record: {error}; forktrace doctor says what it takes") from None
        config.pluginmanager.register(Looks(config, str(error)), "forktrace-looks")
        config.pluginmanager.register(Controller(str(error)), "forktrace-controller")
        return
    config.pluginmanager.register(Notes(), "forktrace-notes")
    config.pluginmanager.register(Controller(""), "forktrace-controller")
    config.pluginmanager.register(Verdicts(config, session), "forktrace-verdicts")


def _folder(config: pytest.Config) -> Path:
    """Where the trace goes: pytest's cache, so that the commands that a failure names find it."""
    cache = getattr(config, "cache", None)
    return Path(cache.mkdir("forktrace")) if cache else Path(tempfile.mkdtemp(prefix="forktrace-pytest-"))


class Controller:
    """Tells xdist's workers whether there is a recording."""

    def __init__(self, why_not: str) -> None:
        self._why_not = why_not

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Put it into what a worker is given."""
        node.workerinput["forktrace_why_not"] = self._why_not


class Notes:
    """Notes of each test which process ran it, from when to when on the clock of the trace, and its limits."""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Refuse limits that there are not before anything runs."""
        for item in items:
            limits_of(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Note the times of the call."""
        note = {"pid": os.getpid(), "begin_ns": kernel_boottime_ns(), "limits": tuple(limits_of(item))}
        try:
            return (yield)
        finally:
            item.stash[_NOTE] = note | {"end_ns": kernel_boottime_ns()}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """Put the note into the report."""
        report = yield
        if report.when == "call" and _NOTE in item.stash:
            report.forktrace = item.stash[_NOTE]
        return report


class Found(NamedTuple):
    """What a test left, and what of it is beyond its limits."""

    report: pytest.TestReport
    zombies: int
    running: int
    longest_ms: float
    broken: list[str]
    worst: int | None


class Verdicts:
    """Ends the recording with the session, fails the tests that broke a limit, and adds to all that failed what happened."""

    def __init__(self, config: pytest.Config, session: Session) -> None:
        self._config = config
        self._session = session
        self._reports: list[pytest.TestReport] = []
        self._found: list[Found] = []
        self._why_not = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what has a note."""
        if report.when == "call" and isinstance(getattr(report, "forktrace", None), dict) and report not in self._reports:
            self._reports.append(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Read the recording and hold it against the limits."""
        reports = list(self._reports)
        try:
            judged = self._judge(reports)
        except Exception as error:  # a defect of ours must not look like tests that hold their limits
            self._why_not = f"{type(error).__name__}: {error}" if not isinstance(error, CannotRecord) else str(error)
            judged = [Found(one, 0, 0, 0.0, [f"cannot be told: {self._why_not}"] * _has_limits(one), None) for one in reports]
        self._found = judged
        broken = [one for one in judged if one.broken and one.report.passed]
        for one in broken:
            self._fail(one)
        if broken and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _judge(self, reports: list[pytest.TestReport]) -> list[Found]:
        from forktrace.pytest_plugin.judging import Judge

        judge = Judge(self._session.end())
        found = []
        for report in reports:
            note: dict[str, Any] = report.forktrace
            left = judge.left(note["pid"], note["begin_ns"], note["end_ns"])
            broken = judge.broken(left, Left(*note["limits"]))
            if left.worst is not None and (broken or report.failed):
                report.sections.append(("forktrace why", judge.why(left.worst)))
            found.append(Found(report, len(left.unreaped), len(left.running), left.longest_ms, broken, left.worst))
        return found

    def _fail(self, one: Found) -> None:
        """Report a test that had passed as failed; the report that it passed is taken back."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if terminal and one.report in terminal.stats.get("passed", []):
            terminal.stats["passed"].remove(one.report)
        failed = copy.copy(one.report)
        failed.outcome = "failed"
        failed.longrepr = f"forktrace: the test left too much: {'; '.join(one.broken)}"
        del failed.forktrace
        self._config.hook.pytest_runtest_logreport(report=failed)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the tests that left most, and where the recording is."""
        terminalreporter.section("forktrace")
        if self._why_not:
            terminalreporter.line(f"the recording cannot be held against anything: {self._why_not}", red=True)
            return
        left = [one for one in self._found if one.zombies or one.running or one.longest_ms >= 1]
        left.sort(key=lambda one: (-one.zombies, -one.running, -one.longest_ms))
        if not left:
            terminalreporter.line(f"none of {count(len(self._found), 'test')} left a zombie or a running child")
        for one in left[:MOST_TESTS]:
            numbers = f"{count(one.zombies, 'zombie'):>12}, {one.running} running, longest {duration(one.longest_ms)}"
            terminalreporter.line(f"{numbers}  {printable(one.report.nodeid)}")
        if len(left) > MOST_TESTS:
            terminalreporter.line(f"and {count(len(left) - MOST_TESTS, 'more test')}")
        terminalreporter.line(f"recorded: {self._session.path}")


def _has_limits(report: pytest.TestReport) -> bool:
    return any(limit is not None for limit in report.forktrace["limits"])
