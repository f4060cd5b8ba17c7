"""Fixtures that record: `record` runs a command under forktrace as a user would, `workload` compiles a C program."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import browser
import pytest
from hypothesis import HealthCheck, settings
from recorded import (
    BUILT,
    MARK,
    PATIENCE_S,
    WORKLOADS,
    Recorded,
    compiler_options,
    folder_of_mode,
    footprint,
    forktrace_command,
    interpreters,
    kill_with,
)

GCC = ("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-clobbered")
SCREEN = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "TTY_INTERACTIVE")
SUDO = ("SUDO_COMMAND", "SUDO_GID", "SUDO_UID", "SUDO_USER", "SUDO_HOME")  # sudo make test: what is started is root's own

# Examples may take as long as a busy machine needs; in CI they are the same ones each time.
slow_machine = [HealthCheck.too_slow]
settings.register_profile("any-machine", deadline=None, derandomize="CI" in os.environ, suppress_health_check=slow_machine)
settings.load_profile("any-machine")


def pytest_configure() -> None:
    """Begin as a program in a terminal does, whatever started the tests: no signal ignored or blocked, no wish for a screen.

    And nobody called sudo.
    """
    ours = (signal.SIGPIPE, signal.SIGXFSZ)  # which every Python ignores
    for number in signal.valid_signals() - set(ours):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for name in (*SCREEN, *SUDO):
        os.environ.pop(name, None)


# Markers of tests that only run when asked for: what the option of that name does, and why they are skipped without it.
ON_REQUEST = {
    "kafka": ("fetch Apache Kafka and test with it", "Apache Kafka is not asked for: make test-kafka"),
    "collector": (
        "build an OpenTelemetry Collector and test with it",
        "an OpenTelemetry Collector is not asked for: make test-otel",
    ),
    "witness": (
        "compare over all of CPython's own tests of processes",
        "all of CPython's tests are not asked for: make test-witness",
    ),
    "libraries": (
        "fetch other people's libraries from PyPI and record them",
        "other people's libraries are not asked for: make test-libraries",
    ),
    "pages": ("open pages of all traces and of large ones", "pages of large traces are not asked for: make test-page"),
    "fleet": (
        "ask many hosts: a server of S3, several workers",
        "a server of S3 and several workers are not asked for: make test-fleet",
    ),
    "prometheus": (
        "fetch Debian's Prometheus and have it read metrics",
        "Debian's Prometheus is not asked for: make test-prometheus",
    ),
    "systemd": (
        "boot a machine with systemd and try the unit of docs/service.md",
        "a machine with systemd is not asked for: make test-systemd",
    ),
    "kernels": (
        "boot other kernels: all tests on all of them, or with `smoke` what CI does",
        "other kernels are not asked for: make test-kernels",
    ),
}
OF_KERNELS = {"nargs": "?", "const": "all", "choices": ("all", "smoke")}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make test-kafka` and others ask for what nothing else needs."""
    for name, (does, _) in ON_REQUEST.items():
        parser.addoption(f"--{name}", help=does, **(OF_KERNELS if name == "kernels" else {"action": "store_true"}))
    parser.addoption("--crashes", type=int, default=20, help="how many recorders to kill (make test-crashes: 100)")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs root where there is none, except in CI, where it has to run; and what has a `make` target of its own."""
    for name, (_, why) in ON_REQUEST.items():
        if item.get_closest_marker(name) and not item.config.getoption(f"--{name}"):
            pytest.skip(why)
    if item.get_closest_marker("browser") and browser.program() is None and not os.environ.get("CI"):
        pytest.skip("opens pages: needs Chromium (make setup)")
    if item.get_closest_marker("root") and os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip("records real processes: needs root (sudo make test)")


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A directory that every user can read and write, unlike pytest's own."""
    with folder_of_mode(0o777) as folder:
        yield folder


@pytest.fixture(scope="session")
def workload(open_folder: Path) -> Callable[[str], str]:
    """Compile tests/workloads/NAME.c once and return the path of the program or library."""

    def build(name: str) -> str:
        if built := os.environ.get(BUILT):
            return str(Path(built) / name)
        program = open_folder / name
        if not program.exists():
            subprocess.run([*GCC, *compiler_options(name), "-o", program, WORKLOADS / f"{name}.c"], check=True)
        return str(program)

    return build


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a recording: this one; forktrace is found where these tests are, and expects their interpreters."""
    folders = [os.environ.get("PATH", os.defpath), *dict.fromkeys(os.path.dirname(one) for one in interpreters().values())]
    return dict(os.environ) | {"PYTHONPATH": str(WORKLOADS.parent.parent), "PATH": os.pathsep.join(folders)}


@pytest.fixture(scope="session")
def record(open_folder: Path, environment: Mapping[str, str]) -> Callable[..., Recorded]:
    """Record a command to its end; check what always holds: the balance, a closed trace, nothing left behind."""

    def run(
        command: Sequence[str], *options: str, timeout_s: float = 3 * PATIENCE_S, quiet: bool = True, **more: object
    ) -> Recorded:
        mark = f"{MARK}={uuid.uuid4()}"
        path = open_folder / f"{uuid.uuid4()}.arrows"
        line = forktrace_command("record", *(["-q"] if quiet else []), "-o", str(path), *options, "--", *command)
        marked = dict(environment) | {MARK: mark.partition("=")[2]}
        before = footprint()
        # Files, not pipes: a descendant that outlives the recording would hold a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
            try:
                done = subprocess.run(line, env=marked, stdout=out, stderr=errors, timeout=timeout_s, check=False, **more)
            finally:
                left = kill_with(mark)
            out.seek(0)
            errors.seek(0)
            recorded = Recorded(path, done.returncode, out.read(), errors.read())
        assert path.exists(), recorded.stderr
        assert not left, f"left behind: {left}"
        assert footprint() == before
        recorded.assert_balanced()
        recorded.assert_whole()
        return recorded

    return run
