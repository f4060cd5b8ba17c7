"""Scene `methods`: whose children fork, spawn and forkserver make, and who reaps them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pandas as pd
import pytest
from recorded import Recorded

from forktrace.scenes import scene

pytestmark = pytest.mark.root

SPEED = 2
PAUSE_MS = 500 / SPEED  # how long each child works, and how long nobody looks at it then


@pytest.fixture(scope="module")
def methods(record: Callable[..., Recorded]) -> Recorded:
    """The scene, recorded."""
    recorded = record([sys.executable, str(scene("methods").program), "--speed", str(SPEED)])
    assert recorded.returncode == 0, recorded.stderr
    return recorded


def children(methods: Recorded, method: str) -> pd.DataFrame:
    """The rows of the two children of a method, and `told_ppid`: whose children they said they are."""
    told = re.findall(rf"^(\d+) {method}: child of (\d+), at work", methods.stdout, re.MULTILINE)
    assert len(told) == 2
    rows = pd.DataFrame([methods.row(int(pid)) for pid, _ in told])
    return rows.assign(told_ppid=[int(ppid) for _, ppid in told])


def main_id(methods: Recorded) -> int:
    """The row of the program itself."""
    return methods.id_of(methods.recording.header["target_pid"])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_own_children(methods: Recorded, method: str) -> None:
    """Fork and spawn: children of the program, zombies until it joins them; only spawn starts a new Python."""
    rows = children(methods, method)
    assert rows["ppid"].tolist() == rows["told_ppid"].tolist()
    assert rows["parent_id"].tolist() == rows["reaper_id"].tolist() == [main_id(methods)] * 2
    assert rows["created_by"].tolist() == ["multiprocessing"] * 2
    assert rows["exec_ns"].notna().tolist() == [method == "spawn"] * 2
    assert rows["reap_cause"].tolist() == ["join"] * 2
    assert (rows["zombie_ms"] >= PAUSE_MS).all()
    assert (rows["run_ms"] >= PAUSE_MS).all()


def test_children_of_the_fork_server(methods: Recorded) -> None:
    """Forkserver: children of one server, a child of the program; it reaps them before the program's join."""
    rows = children(methods, "forkserver")
    assert rows["ppid"].tolist() == rows["told_ppid"].tolist()
    servers = rows["parent_id"].unique().tolist()
    assert len(servers) == 1
    server = methods.table.loc[servers[0]]
    assert server["parent_id"] == main_id(methods)
    assert pd.notna(server["exec_ns"])
    assert rows["reaper_id"].tolist() == servers * 2
    assert rows["created_by"].tolist() == rows["reap_cause"].tolist() == ["forkserver"] * 2
    assert rows["exec_ns"].isna().all()
    assert (rows["run_ms"] >= PAUSE_MS).all()


@pytest.mark.parametrize(("method", "before"), [("fork", "Z"), ("spawn", "Z"), ("forkserver", "gone")])
def test_what_the_program_saw(methods: Recorded, method: str, before: str) -> None:
    """In /proc: a zombie until join(), or gone already; `exitcode` is known all the same."""
    for pid in children(methods, method)["pid"]:
        seen = re.findall(rf"{method}: {pid} (before|after) join\(\): (.*)", methods.stdout)
        assert seen == [("before", before), ("after", "gone, exitcode 0")]


def test_helpers(methods: Recorded) -> None:
    """Beside its six children the program starts two helpers, at the first start that needs them: tracker and fork server."""
    program = main_id(methods)
    own = [*children(methods, "fork")["pid"], *children(methods, "spawn")["pid"]]
    helpers = methods.table[(methods.table["parent_id"] == program) & ~methods.table["pid"].isin(own)]
    assert helpers["created_by"].tolist() == ["multiprocessing", "forkserver"]
    tracker, server = helpers["fork_ns"].tolist()
    assert tracker < children(methods, "spawn")["fork_ns"].min()
    assert children(methods, "spawn")["fork_ns"].max() < server < children(methods, "forkserver")["fork_ns"].min()


def test_methods_of_starts(methods: Recorded) -> None:
    """The table of starts names the method of each child, and none for the helpers."""
    table = methods.recording.starts().set_index("start_id")["method"]
    for method in ("fork", "spawn", "forkserver"):
        assert table[children(methods, method)["id"]].tolist() == [method] * 2
    assert table.isna().sum() == 2
