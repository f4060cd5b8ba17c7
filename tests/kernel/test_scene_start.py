"""Scene `start`: its four moments, as the program saw them in /proc and as the recording has them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable

import pandas as pd
import pytest
from recorded import CLOCKS_NS, TICK_NS, Recorded, forktrace_command

from forktrace.scenes import scene

pytestmark = pytest.mark.root

SPEED = 5
MS = 1_000_000  # what the program prints is rounded to that
STATES = [["S"], ["Z"], ["gone", "S"], ["gone", "Z"]]


@pytest.fixture(scope="module")
def start(record: Callable[..., Recorded]) -> Recorded:
    """The scene, recorded."""
    recorded = record([sys.executable, str(scene("start").program), "--speed", str(SPEED)])
    assert recorded.returncode == 0, recorded.stderr
    return recorded


@pytest.fixture(scope="module")
def children(start: Recorded) -> pd.DataFrame:
    """The rows of the two children, the first and the second."""
    pids = re.findall(r"started (\d+)", start.stdout)
    assert len(pids) == 2
    return pd.DataFrame([start.row(int(pid)) for pid in pids])


def moments(start: Recorded) -> list[tuple[int, list[tuple[int, str]]]]:
    """When each moment was, in ns since the start, and what the program saw of which child then."""
    lines = re.findall(r"^([\d.]+)s i = \d+: .*: (.*)$", start.stdout, re.MULTILINE)
    pairs = [[one.split() for one in states.split(", ")] for _, states in lines]
    return [
        (int(float(age) * 1e9), [(int(pid), state) for pid, state in seen]) for (age, _), seen in zip(lines, pairs, strict=True)
    ]


def state_at(row: pd.Series, time_ns: int) -> str:
    """What the recording says of a child at that time."""
    if row["reap_ns"] <= time_ns:
        return "gone"
    return "Z" if row["zombie_ns"] <= time_ns else "S"


def test_four_moments(start: Recorded) -> None:
    """A child that runs, its zombie, the second that runs while the first is gone, its zombie: in /proc as in the recording."""
    seen = moments(start)
    assert [[state for _, state in pairs] for _, pairs in seen] == STATES
    begin_ns = start.recording.start_ns
    for time_ns, pairs in seen:
        assert [state_at(start.row(pid), begin_ns + time_ns) for pid, _ in pairs] == [state for _, state in pairs]


def test_ps_at_the_four_moments(start: Recorded) -> None:
    """`forktrace ps --at`, at the times that the program printed, shows what the article's screenshots do."""
    program = int(start.stdout.split()[1])
    for time_ns, pairs in moments(start):
        line = forktrace_command("ps", str(start.path), "--at", f"{time_ns}ns")
        shown = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
        there = [(pid, state) for pid, state in pairs if state != "gone"]
        assert [row.split()[0] for row in shown] == [str(program), *(str(pid) for pid, _ in there)]
        assert [row.split()[1:3] for row in shown[1:]] == [[str(program), "Z" if state == "Z" else "-"] for _, state in there]
        assert [row.endswith("<defunct>") for row in shown[1:]] == [state == "Z" for _, state in there]


def test_the_second_start_clears_the_first(children: pd.DataFrame) -> None:
    """Nobody joins: the first is a zombie until the start of the second, and the second until the program ends."""
    first, second = children.iloc[0], children.iloc[1]
    assert first["cleared_by_id"] == second["id"]
    assert children["reap_cause"].tolist() == ["next-start", "exit-handler"]
    assert (children["exit_code"] == 0).all()
    assert (children["run_ms"] >= 5000 / SPEED).all()
    assert first["zombie_ns"] < first["reap_ns"] <= second["fork_ns"] + CLOCKS_NS
    assert second["reaper_id"] == second["parent_id"]


def test_times_are_those_of_the_recording(start: Recorded, children: pd.DataFrame) -> None:
    """Each fork is between the ages that the program prints before and after it, which a clock tick makes larger at most."""
    lines = start.stdout.splitlines()
    ages_ns = [round(float(line.partition("s ")[0]) * 1e9) for line in lines]
    started = [number for number, line in enumerate(lines) if "started" in line]
    for number, fork_ns in zip(started, children["fork_ns"], strict=True):
        age_ns = fork_ns - start.recording.start_ns
        assert ages_ns[number - 1] - TICK_NS - MS <= age_ns <= ages_ns[number] + MS


def test_three_steps_of_the_second_start(start: Recorded, children: pd.DataFrame) -> None:
    """It polls the one child in the set and reaps it, then forks, then has the new child in the set, where the end finds it."""
    table = start.recording.starts()
    first, second = children["id"]
    assert table["start_id"].tolist() == [first, second]
    assert table["polled"].tolist() == [0, 1]
    assert table["cleared_id"].tolist() == [pd.NA, first]
    assert table["cleared_ns"].tolist() == [pd.NA, children.iloc[0]["reap_ns"]]
    assert table["method"].tolist() == ["fork", "fork"]
    assert table["children"].tolist() == [1, 1]
    assert table["found_by"].tolist() == ["next-start", "exit-handler"]
