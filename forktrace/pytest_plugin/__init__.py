"""What each test leaves behind comes in, failed tests and a table go out. Until it is asked it imports pytest alone."""

from __future__ import annotations

import pytest

MARKER = "limit_zombies(unreaped=N, running=N, max='5s', stolen=N): fail where the test leaves more (forktrace)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("forktrace", "forktrace: zombies and children that tests leave behind")
    group.addoption("--forktrace", action="store_true", help="look for them after each test, in /proc")
    group.addoption("--forktrace-record", action="store_true", help="record the whole session, which takes root or sudo -n")
    group.addoption("--forktrace-required", action="store_true", help="fail where --forktrace-record cannot record")
    parser.addini("forktrace_unreaped", "how many zombies a test without a marker may leave [any number]", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to look, if that was asked for."""
    config.addinivalue_line("markers", MARKER)
    if config.getoption("forktrace_record"):
        from forktrace.pytest_plugin.recorded import register

        register(config)
    elif config.getoption("forktrace_required"):
        raise pytest.UsageError("--forktrace-required is for --forktrace-record")
    elif config.getoption("forktrace"):
        from forktrace.pytest_plugin.looks import Looks

        config.pluginmanager.register(Looks(config), "forktrace-looks")
