"""Start method `forkserver`, the default from Python 3.14 on: each child is of the line that asked for it."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Callable

import pandas as pd
import pytest
from recorded import WORKLOADS, Line, Recorded, interpreters

pytestmark = pytest.mark.root

PROGRAM = str(WORKLOADS / "fork_servers.py")
PYTHONS = {name: path for name, path in interpreters().items() if not name.startswith("2.")}
SURE_CASES = ("plain", "restarted", "thread", "same line", "above", "nested", "pool", "manager", "after all of it")


@pytest.fixture(scope="module")
def servers(record: Callable[..., Recorded]) -> Recorded:
    """One recording of the workload under each interpreter."""
    programs = [f"{name}={shlex.join([python, PROGRAM])}" for name, python in PYTHONS.items()]
    recorded = record([sys.executable, str(WORKLOADS / "driver.py"), *programs])
    assert recorded.returncode == 0, recorded.stderr[-4000:]
    failed = [line["program"] for line in recorded.of("program") if line["status"] != 0]
    assert not failed, f"the workload failed under {failed}:\n{recorded.stderr[-4000:]}"
    return recorded


def told(servers: Recorded, name: str) -> list[tuple[Line, pd.Series]]:
    """What the workload said of each child, and its row."""
    return [
        (line, servers.row(line["pid"]))
        for case in {line["case"] for line in servers.lines} - {"program"}
        for line in servers.of(case, name)
    ]


@pytest.mark.parametrize("name", PYTHONS)
def test_each_child_is_of_the_line_that_asked(servers: Recorded, name: str) -> None:
    """Whatever thread or process asks, and whichever server it asks."""
    found = [(line, row) for line, row in told(servers, name) if line["certain"]]
    assert {line["case"] for line, _ in found} >= set(SURE_CASES)
    wrong = [(line, row["start_site"], row["fork_site"]) for line, row in found if row["start_site"] != line["site"]]
    assert not wrong


@pytest.mark.parametrize("name", PYTHONS)
def test_it_is_none_or_the_right_one(servers: Recorded, name: str) -> None:
    """Of two threads that ask from two lines at once it may not be known; it is never the other's."""
    found = [(line["site"], row["start_site"]) for line, row in told(servers, name) if not line["certain"]]
    assert len(found) == 10
    assert [pair for pair in found if not pd.isna(pair[1]) and pair[0] != pair[1]] == []


@pytest.mark.parametrize("name", PYTHONS)
def test_the_stack_goes_on_into_the_library(servers: Recorded, name: str) -> None:
    """From the program's line through Process.start to the connect; the fork's own stack is the server's."""
    for line, row in told(servers, name):
        if line["case"] == "plain":
            functions = [frame.rpartition(" ")[2] for frame in row["start_stack"].split(";")]
            assert functions[-2:] == ["_launch", "connect_to_new_process"]
            assert Counter(functions)["start"] == 1
            assert row["fork_site"].endswith(" main")


def test_nothing_was_lost(servers: Recorded) -> None:
    """Every event arrived."""
    servers.assert_whole()
    servers.assert_balanced()


def test_which_connections_are_recorded(record: Callable[..., Recorded]) -> None:
    """Those to addresses of multiprocessing's that succeed, whole; with the stack that says what they were for."""
    recorded = record([sys.executable, str(WORKLOADS / "connects.py")])
    assert recorded.returncode == 0, recorded.stderr
    requests = recorded.raw[recorded.raw["kind"] == "request"]
    wanted = [line["address"] for line in recorded.of("connect") if line["is_request"]]
    assert requests["file"].tolist() == wanted
    assert len(wanted) == 4
    assert requests["stack_status"].tolist() == ["ok"] * 4
    assert all(" connect" in stack and "connects.py" in stack for stack in requests["stack"])
