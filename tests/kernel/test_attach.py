"""Recording what runs already: nothing of it is missed or taken twice, and it does not notice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recorded import PATIENCE_S

pytestmark = pytest.mark.root

ATTACHES = 50
RECORD = np.dtype([("before_ns", "<i8"), ("after_ns", "<i8"), ("pid", "<i4"), ("parent", "<i4")])

# Attaches to one storm after another, as the recorder does it, and writes who is followed since.
PROGRAM = """
import os, subprocess, sys, time
from forktrace.live.bpf import Probes
from forktrace.live.joining import Joining
from forktrace.live.pythons import Registry
from forktrace.live.records import split
from forktrace.live.recorder import mount_tracefs
from forktrace.live.procfs import boottime_ns
import json

storm, folder, attaches = sys.argv[1], sys.argv[2], int(sys.argv[3])
mount_tracefs()
probes = Probes(stacks=False, attach=True)
for number in range(attaches):
    log = f"{folder}/{number}"
    process = subprocess.Popen([storm, log], stdin=subprocess.PIPE)
    while not os.path.exists(log) or os.path.getsize(log) < 24 * 100:
        time.sleep(0.001)
    pending = Joining(probes, Registry()).join([process.pid], [])
    joined_ns = boottime_ns()
    size = os.path.getsize(log)
    while os.path.getsize(log) < size + 24 * 200:
        time.sleep(0.001)
    process.communicate()
    time.sleep(0.1)  # until the last descendants are gone
    records, _ = split(probes.read())
    who = lambda part: [[int(one["pid"]), int(one["start_ns"])] for one in part["head"]["process"]]
    found = {kind: who(part) for kind, part in records.items()}
    forks = records["fork"]
    rows = [[int(each) for each in row] for row in zip(
        forks["head"]["process"]["pid"], forks["head"]["process"]["start_ns"], forks["origin"], forks["head"]["time_ns"])]
    print(json.dumps({"pid": process.pid, "pending": pending, "joined_ns": joined_ns, "forks": rows,
        "exits": found.get("exit", []), "reaps": found.get("reap", []), "lost": probes.losses()}))
"""


@pytest.fixture(scope="module")
def storms(
    workload: Callable[[str], str], environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[dict[str, Any], Any]]:
    """What was recorded of each storm, and what it wrote itself."""
    folder = tmp_path_factory.mktemp("storms")
    line = [sys.executable, "-c", PROGRAM, workload("storm"), str(folder), str(ATTACHES)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=3 * PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    assert len(lines) == ATTACHES
    return [(line, np.fromfile(folder / str(number), RECORD)) for number, line in enumerate(lines)]


def test_a_storm_loses_no_child(storms: list[tuple[dict[str, Any], Any]]) -> None:
    """Of 50 attaches amid forks at full speed: each child that is forked since its parent is followed is there, and once."""
    raced = 0
    for recorded, log in storms:
        assert not any(recorded["lost"].values())
        assert recorded["pending"] == 0
        forks = pd.DataFrame(recorded["forks"], columns=["pid", "start_ns", "origin", "time_ns"])
        assert not forks.duplicated(["pid", "start_ns"]).any()
        since_ns = dict(zip(forks["pid"], forks["time_ns"], strict=True))
        made = log[log["parent"] != 0]
        for pid, parent, before_ns, after_ns in zip(
            *(made[name].tolist() for name in ("pid", "parent", "before_ns", "after_ns")), strict=True
        ):
            if parent not in since_ns or before_ns < since_ns[parent]:
                continue
            here = forks[(forks["pid"] == pid) & forks["start_ns"].between(before_ns - 50_000, after_ns)]
            assert len(here) == 1, f"{pid} of {parent}, forked from {before_ns} to {after_ns}: {len(here)} rows"
            raced += before_ns < recorded["joined_ns"]
    assert raced > ATTACHES, "the storm did not fork while it was attached to"


def test_a_storm_keeps_its_zombies(storms: list[tuple[dict[str, Any], Any]]) -> None:
    """Each child of the attached process that was reaped after the attach is there, however old, with its exit and its reap."""
    old = 0
    for recorded, log in storms:
        forks = {pid: start_ns for pid, start_ns, _, _ in recorded["forks"]}
        exits, reaps = ({tuple(each) for each in recorded[kind]} for kind in ("exits", "reaps"))
        reaped = log[(log["parent"] == 0) & (log["before_ns"] > recorded["joined_ns"])]
        assert len(reaped)
        for pid in reaped["pid"].tolist():
            identity = (pid, forks[pid])
            assert identity in exits
            assert identity in reaps
            old += identity[1] < recorded["forks"][0][3]
    assert old > ATTACHES


def test_every_end_is_told_once(storms: list[tuple[dict[str, Any], Any]]) -> None:
    """Nobody exits twice: once seen and once found dead."""
    for recorded, _ in storms:
        exits = [tuple(each) for each in recorded["exits"]]
        assert len(set(exits)) == len(exits)
