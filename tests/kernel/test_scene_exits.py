"""Scene `exits`: what still runs when a Python process leaves, as it was printed, and how it left, as it was recorded."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from recorded import Recorded, python3s

from forktrace.scenes import scene

pytestmark = pytest.mark.root

CODES = {"return": 0, "sys.exit": 3, "os._exit": 4, "exception": 1, "signal": -15, "abort": -6}
AT_ONCE = ("os._exit", "signal", "abort")  # nothing runs any more
PATHS = {
    "return": "main-return",
    "sys.exit": "sys-exit",
    "os._exit": "os-exit",
    "exception": "exception",
    "signal": "signal",
    "abort": "abort",
}
CREATORS = {"main": "posix-spawn", "multiprocessing": "multiprocessing", "os.fork": "os-fork"}
UNTOLD = (3, 13, 15)  # from here on, and from 3.14.7, the ways return and exception end alike (docs/causes.md)
NEWEST = list(python3s().items())[-1:]


class Line(NamedTuple):
    """One line that the scene printed."""

    place: str
    way: str
    pid: int
    code: int
    ran: tuple[str, ...]  # finally, atexit, stdout, file
    parent: str


class Exits(NamedTuple):
    """The scene, recorded with one Python."""

    recorded: Recorded
    version: tuple[int, ...]
    lines: list[Line]


@pytest.fixture(scope="module", params=["this", "newest"])
def exits(request: pytest.FixtureRequest, record: Callable[..., Recorded]) -> Exits:
    """The scene, recorded with this Python and with the newest one here, which does more."""
    if request.param == "newest" and not NEWEST:
        pytest.skip("no release of Python 3 here (pyenv)")
    version, python = NEWEST[0] if request.param == "newest" else (sys.version_info[:3], sys.executable)
    recorded = record([python, str(scene("exits").program), "--speed", "20"])
    assert recorded.returncode == 0, recorded.stderr
    cells = [line.split() for line in recorded.stdout.splitlines()[1:]]
    lines = [Line(place, way, int(pid), int(code), tuple(ran), parent) for place, way, pid, code, *ran, parent in cells]
    return Exits(recorded, version, lines)


def expected(line: Line, version: tuple[int, ...]) -> tuple[tuple[str, ...], str]:
    """What runs then: `finally`, atexit handlers, stdout's buffer, a file's; and what of the parent's once more."""
    if line.way in AT_ONCE:
        return ("-",) * 4, "-"
    if line.place == "multiprocessing":
        return ("yes", "yes" if version >= (3, 13) else "-", "yes", "-"), "-"
    return ("yes",) * 4, "stdout+atexit" if line.place == "os.fork" else "-"


def test_every_way_from_every_place(exits: Exits) -> None:
    """Six ways out of a main program, a child of multiprocessing and one of os.fork."""
    assert [(line.place, line.way, line.code) for line in exits.lines] == [
        (place, way, code) for place in CREATORS for way, code in CODES.items()
    ]


def test_what_still_runs(exits: Exits) -> None:
    """Nothing after os._exit, a signal and abort; a child of multiprocessing drops what files hold; one of os.fork does its
    parent's part too.
    """
    wrong = [line for line in exits.lines if (line.ran, line.parent) != expected(line, exits.version)]
    assert not wrong


def test_wait_status_and_way_are_recorded(exits: Exits) -> None:
    """The recording has the exit code or the signal that the parent saw, the same wait status, and the way itself."""
    for line in exits.lines:
        row = exits.recorded.row(line.pid)
        left = row["exit_code"] if line.code >= 0 else -signal.Signals[row["term_signal"]]
        assert left == line.code
        status = line.code << 8 if line.code >= 0 else -line.code
        assert exits.recorded.events_of(line.pid, "exit")["status"].tolist() == [status]
        assert row["created_by"] == CREATORS[line.place]
        path = "bootstrap" if line.place == "multiprocessing" and line.way not in AT_ONCE else PATHS[line.way]
        untold = exits.version >= UNTOLD and path in ("main-return", "exception")
        assert row["exit_path"] == ("unknown" if untold else path), line
