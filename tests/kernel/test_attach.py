"""Recording what runs already: nothing of it is missed or taken twice, and it does not notice."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recorded import (
    BUILT,
    PATIENCE_S,
    TICK_NS,
    WORKLOADS,
    Program,
    Recorded,
    footprint,
    forktrace_command,
    free_threaded,
    python3s,
    wait_until,
)

import forktrace
from forktrace.trace.words import count

pytestmark = pytest.mark.root

ATTACHES = 10 if BUILT in os.environ else 50  # fewer where the machine is emulated
OLDEST = 4  # zombies of storm.c that it reaps at its end
RECORD = np.dtype([("before_ns", "<i8"), ("after_ns", "<i8"), ("pid", "<i4"), ("parent", "<i4")])

# Attaches to one storm after another, as the recorder does it, and writes who is followed since.
PROGRAM = """
import ctypes, os, subprocess, sys, time
from forktrace.kernel.loading import Loading
from forktrace.kernel.probes import Probes
from forktrace.recorder.task_passes import TaskPasses
from forktrace.recorder.interpreters import Interpreters
from forktrace.recorder.rows import split
from forktrace.system.procfs import boottime_ns
import json

def start_ns(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[19]) * 10_000_000

def reap_orphans():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass

ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: a machine's init may take seconds
storm, folder, attaches = sys.argv[1], sys.argv[2], int(sys.argv[3])
probes = Probes(Loading(stacks=False, attach=True))
for number in range(attaches):
    log = f"{folder}/{number}"
    process = subprocess.Popen([storm, log], stdin=subprocess.PIPE)
    while not os.path.exists(log) or os.path.getsize(log) < 24 * 100:
        time.sleep(0.001)
    pending = TaskPasses(probes, Interpreters()).join({process.pid: start_ns(process.pid)}, [])
    joined_ns = boottime_ns()
    size = os.path.getsize(log)
    while os.path.getsize(log) < size + 24 * 200:
        time.sleep(0.001)
    process.communicate()
    while len(probes.following()):  # until the last descendants are gone
        reap_orphans()
        time.sleep(0.001)
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
    assert old >= OLDEST * ATTACHES


def test_every_end_is_told_once(storms: list[tuple[dict[str, Any], Any]]) -> None:
    """Nobody exits twice: once seen and once found dead."""
    for recorded, _ in storms:
        exits = [tuple(each) for each in recorded["exits"]]
        assert len(set(exits)) == len(exits)


class Consumer(Program):
    """A Python program that has zombies already and does as it is told."""

    def __init__(self, python: str, environment: Mapping[str, str]) -> None:
        line = [python, str(WORKLOADS / "attached.py")]
        super().__init__(subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment))
        self.start_ticks = int(Path(f"/proc/{self.pid}/stat").read_text().split()[21])

    def untouched(self) -> dict[str, str]:
        """What of its state an observer could change."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        names = ("TracerPid", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Seccomp")
        return dict(line.split(":\t") for line in lines if line.startswith(names))

    def end(self) -> int:
        """Let it end; its exit status."""
        assert self.process.stdin
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)


@contextmanager
def consumers(*pythons: str) -> Iterator[list[Consumer]]:
    """Programs that run, one for each interpreter."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    running = [Consumer(python, plain) for python in pythons]
    try:
        yield running
    finally:
        statuses = [one.end() for one in running]
    assert not any(statuses)


class Attached:
    """A `forktrace record` of what runs already."""

    def __init__(self, trace: Path, environment: Mapping[str, str], *options: str) -> None:
        self._trace = trace
        line = forktrace_command("record", "-o", str(trace), *options)
        self._process = subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True)
        self.said = ""
        while "Ctrl-C detaches" not in self.said:
            assert self._process.stderr
            line_said = self._process.stderr.readline()
            assert line_said, self.said
            self.said += line_said

    def tell(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def done(self) -> Recorded:
        """Wait for its end."""
        _, rest = self._process.communicate(timeout=PATIENCE_S)
        recorded = Recorded(self._trace, self._process.returncode, "", self.said + rest)
        assert recorded.returncode == 0, recorded.stderr
        recorded.assert_balanced()
        recorded.assert_whole()
        return recorded


def all_pythons() -> list[str]:
    """An interpreter of each kind that forktrace walks: of Debian, old and new, with and without a libpython."""
    return list(dict.fromkeys(["/usr/bin/python3", *python3s().values(), *free_threaded().values()]))


def test_consumers_that_run(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """Zombies from before are rows with what can be known; later children have lines and causes; no process notices."""
    before = footprint()
    with consumers(*all_pythons()) as running:
        old = [(one, one.tell("start")) for one in running]
        state = [one.untouched() for one in running]
        attached = Attached(tmp_path / "run.arrows", environment, "-p", ",".join(str(one.pid) for one in running))
        attached_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        new = [(one, one.tell("start")) for one in running]
        left = [one.tell("start") for one in running]
        attached.tell(signal.SIGINT)
        recorded = attached.done()
        assert [one.untouched() for one in running] == state
    assert footprint() == before
    zombies = count(len(old), "zombie")
    assert f"attached to {2 * len(running)} processes, {zombies} among them (Ctrl-C detaches)" in recorded.stderr

    for one in running:
        row = recorded.row(one.pid)
        assert (row.origin, row.state, row.complete) == ("attached", "running", False)
        assert row.notes == "started before the recording"
        assert row.argv.endswith("attached.py")
        assert row.fork_ns // TICK_NS == one.start_ticks
    for one, witness in old:
        row = recorded.row(witness["pid"])
        assert (row.origin, row.ppid, row.exit_code) == ("attached", one.pid, witness["exit_code"])
        assert witness["before_fork_ns"] - 50_000 <= row.fork_ns <= row.exit_ns <= attached_ns
        assert row.exit_ns <= witness["after_exit_ns"] + 50_000_000  # an estimate; the age of the attach is far more
        assert row.zombie_ns == row.exit_ns
        assert (row.reap_cause, row.reaper_pid, row.complete) == ("next-start", one.pid, False)
        assert row.notes == "started before the recording; found as a zombie; its exit time is estimated"
        assert pd.isna(row.fork_site)
        assert row.reap_site.endswith("attached.py:28 start")
    for one, witness in new:
        row = recorded.row(witness["pid"])
        assert (row.origin, row.ppid, row.exit_code, row.reaper_pid) == ("forked", one.pid, witness["exit_code"], one.pid)
        assert (row.fork_site, row.reap_site) == ("attached.py:28 start", "attached.py:28 start")
        assert (row.created_by, row.reap_cause, row.complete) == ("multiprocessing", "next-start", True)
        swept = recorded.table.loc[recorded.table["cleared_by_id"] == row["id"], "pid"].tolist()
        assert swept == [each["pid"] for owner, each in old if owner is one]
    assert [recorded.row(witness["pid"]).state for witness in left] == ["zombie"] * len(left)


def test_a_zombie_leads_to_its_parent(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """`-p` of a zombie attaches to its parent and says so; when the last process is gone, the recording is over."""
    with consumers(sys.executable) as (one,):
        zombie = one.tell("start")["pid"]
        attached = Attached(tmp_path / "run.arrows", environment, "-p", str(zombie))
        assert f"{zombie} is a zombie; attached to its parent {one.pid}, which alone can reap it" in attached.said
        one.tell("clear")
        one.end()
        recorded = attached.done()
    assert recorded.row(zombie).reap_cause == "active-children"
    assert recorded.row(one.pid).exit_code == 0
    assert re.search(rf"{zombie} was a zombie for about [^ ]+ m?s, until {one.pid} reaped it with wait4", recorded.stderr)


def test_duration(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """After -d the recording is over and the target runs on; SIGTERM does the same."""
    with consumers(sys.executable) as (one,):
        recorded = Attached(tmp_path / "a.arrows", environment, "-p", str(one.pid), "-d", "0.5").done()
        assert recorded.row(one.pid).state == "running"
        attached = Attached(tmp_path / "b.arrows", environment, "-p", str(one.pid))
        attached.tell(signal.SIGTERM)
        assert attached.done().row(one.pid).state == "running"
        assert one.tell("start")["exit_code"] == 0


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of our own."""
    folder = Path("/sys/fs/cgroup")
    folder = (folder / "pids" if (folder / "pids").is_dir() else folder) / f"forktrace-attach-{os.getpid()}"
    folder.mkdir()
    yield folder
    if folder.exists():
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), "the group is empty")
        folder.rmdir()


def test_a_control_group(tmp_path: Path, environment: Mapping[str, str], group: Path) -> None:
    """The processes of a group are recorded, and those that come to it later, until the group is removed."""
    path = tmp_path / "run.arrows"
    with consumers(sys.executable) as (first,):
        (group / "cgroup.procs").write_text(str(first.pid))
        attached = Attached(path, environment, "--cgroup", f"/{group.name}")
        children = [first.tell("start")["pid"]]
    with consumers(sys.executable) as (later,):
        (group / "cgroup.procs").write_text(str(later.pid))
        wait_until(lambda: later.pid in forktrace.read(path).lifecycles()["pid"].tolist(), "it is seen")
        children.append(later.tell("start")["pid"])
    wait_until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
    group.rmdir()
    recorded = attached.done()
    assert [recorded.row(pid).origin for pid in (first.pid, later.pid, *children)] == ["attached"] * 2 + ["forked"] * 2
    assert [recorded.row(pid).fork_site for pid in children] == ["attached.py:28 start"] * 2


NUMBERS = """
import json, subprocess
from forktrace.kernel.loading import Loading
from forktrace.kernel.probes import Probes

probes = Probes(Loading(stacks=False, attach=True))
process = subprocess.Popen(["sleep", "600"])
start_ns = int(open(f"/proc/{process.pid}/stat").read().rpartition(")")[2].split()[19]) * 10_000_000
followed = []
for since_ns in (start_ns - 10_000_000, start_ns + 10_000_000, start_ns):
    probes.want({process.pid: since_ns}, [])
    probes.pass_tasks()
    followed.append(probes.following()["pid"].tolist() == [process.pid])
keys, _ = probes._wanted.items()
process.kill()
print(json.dumps({"followed": followed, "wanted": keys.tolist()}))
"""


def test_a_number_is_not_enough(environment: Mapping[str, str]) -> None:
    """The process with this number and start is followed; a later process that gets the number is not."""
    done = subprocess.run([sys.executable, "-c", NUMBERS], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"followed": [False, False, True], "wanted": []}
