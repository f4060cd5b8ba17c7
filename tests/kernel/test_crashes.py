"""Whatever ends or stops a recorder: the trace can be read, the target goes on, nothing of ours stays behind."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from recorded import MARK, PATIENCE_S, Recorded, children, footprint, forktrace_command, processes_with, wait_until

import forktrace

pytestmark = pytest.mark.root

Workload = Callable[[str], str]

WARM = Path(__file__).parents[1] / "warm.py"
STORM_S = 1.0
# A killed recorder costs up to 200 ms, and what it had no processor for; half of them may have been in luck.
MEDIAN_LACK_MS = 250
_BPF, _MAP_GET_NEXT_ID = 321, 12  # bpf(2) on x86-64
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Round:
    """A recording of `reaps`, a storm of forks that keeps its own record."""

    folder: Path
    program: str

    @property
    def trace(self) -> Path:
        """The trace."""
        return self.folder / "t.arrows"

    def arguments(self, seconds: float = STORM_S) -> list[str]:
        """What forktrace is told."""
        return ["record", "-o", str(self.trace), "--", self.program, str(round(1000 * seconds)), str(self.folder / "reaped")]

    def ran(self) -> bool:
        """Whether the target has run, to its end and undisturbed: nothing less writes its record."""
        return (self.folder / "reaped").exists()

    def witnessed(self) -> list[tuple[int, int]]:
        """The children that the target has reaped, by number, each with the time."""
        pairs = [line.split() for line in (self.folder / "reaped").read_text().splitlines()]
        return [(int(pid), int(time_ns)) for pid, time_ns in pairs]

    def recorded(self) -> list[int]:
        """The children whose reaps the trace holds, by number, in their order. It is one that makes sense."""
        recording = forktrace.read(self.trace)
        table = recording.lifecycles()
        assert not recording.lost()
        assert recording.cut or recording.balance().holds
        gone = table[(table["state"] == "gone") & (table["origin"] == "forked")]
        assert (gone["exit_code"] == 3).all()
        return [int(pid) for pid in gone.sort_values("reap_ns")["pid"]]

    def lack_ms(self, killed_ns: int) -> float:
        """How much of the time before the kill the trace lacks. What it holds is the beginning of the storm, without a gap."""
        reaps, witnessed = self.recorded(), self.witnessed()
        assert reaps == [pid for pid, _ in witnessed][: len(reaps)]
        missing = [(killed_ns - reaped_ns) / 1e6 for _, reaped_ns in witnessed[len(reaps) :]]
        return max(0.0, *missing, 0.0)


@pytest.fixture
def new_round(open_folder: Path, workload: Workload) -> Callable[[], Round]:
    """Make an empty directory for a recording."""
    program = workload("reaps")

    def make() -> Round:
        folder = open_folder / str(uuid.uuid4())
        folder.mkdir()
        return Round(folder, program)

    return make


def recorder_of(launcher: int) -> int | None:
    """The recorder, which is made before the target."""
    return next(iter(children(launcher)), None)


def runs(pid: int) -> bool:
    """Whether there is such a process, and no zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def kill(pid: int | None, number: int = signal.SIGKILL) -> int:
    """Send a signal, if there is anybody to get it; return the time just before (CLOCK_BOOTTIME ns)."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with suppress(ProcessLookupError):
        if pid:
            os.kill(pid, number)
    return now


class Warm:
    """Starts recorders whose probes are compiled already, one at a time: tests/warm.py."""

    def __init__(self, orders: IO[str], answers: IO[str]) -> None:
        self._orders, self._answers = orders, answers
        self.launcher = 0
        self._family: list[int] = []

    def record(self, one: Round, seconds: float = STORM_S) -> None:
        """Begin."""
        print(json.dumps(one.arguments(seconds)), file=self._orders, flush=True)
        self.launcher = int(self._answers.readline())

    def recorder(self) -> int:
        """The recorder, once the target is there too."""
        wait_until(lambda: len(children(self.launcher)) == 2, "the target is there")
        return children(self.launcher)[0]

    def kill(self, of: str) -> int:
        """Kill the launcher or the recorder, wherever they are; return when."""
        self._family = children(self.launcher)
        return kill(self.launcher if of == "launcher" else recorder_of(self.launcher))

    def finish(self) -> None:
        """Wait until all has ended."""
        assert self._answers.readline() == "ended\n"
        wait_until(lambda: not any(map(runs, self._family)), "the recorder and the target end")
        print(file=self._orders, flush=True)


@pytest.fixture(scope="module")
def warm(environment: Mapping[str, str]) -> Iterator[Warm]:
    """Starts recorders at once."""
    pipe, marked = subprocess.PIPE, dict(environment) | {MARK: "warm"}
    with subprocess.Popen([sys.executable, WARM], env=marked, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as server:
        assert server.stdin
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        yield Warm(server.stdin, server.stdout)
        server.stdin.close()
        assert server.wait() == 0


class Lateness(threading.Thread):
    """How much later than they asked for a thread that sleeps is woken: on a busy machine all are, the recorder too."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most_ms = 0.0
        self.start()

    def run(self) -> None:
        """Sleep 20 ms, again and again."""
        while True:
            began = time.monotonic()
            time.sleep(0.02)
            self.most_ms = max(self.most_ms, (time.monotonic() - began) * 1e3 - 20)


def test_a_killed_recorder(warm: Warm, new_round: Callable[[], Round], pytestconfig: pytest.Config) -> None:
    """At whatever moment: the trace is read up to some 200 ms before, without a gap; the target goes on, undisturbed."""
    lacks, lateness, late = [], Lateness(), 0.0
    for number in range(pytestconfig.getoption("--crashes")):
        one, moment = new_round(), random.Random(number).uniform(0, STORM_S)
        warm.record(one)
        if number % 4:  # else from the first moment of the recording on
            warm.recorder()
        time.sleep(moment)
        killed_ns = warm.kill("recorder")
        warm.finish()
        late, lateness.most_ms = max(late, lateness.most_ms), 0.0
        if not one.ran():  # there was no target yet
            assert not one.trace.exists()
            continue
        lack = one.lack_ms(killed_ns)
        if killed_ns < one.witnessed()[-1][1]:
            lacks.append(lack)
    spread = [round(value) for value in sorted(lacks)]
    print(f"{len(lacks)} recorders killed under a storm; ms that each trace lacks: {spread}")
    assert len(lacks) >= pytestconfig.getoption("--crashes") // 4
    assert statistics.median(lacks) < MEDIAN_LACK_MS + 3 * late, (spread, late)


def test_a_killed_launcher(warm: Warm, new_round: Callable[[], Round]) -> None:
    """The recorder closes the trace; the target goes on, undisturbed."""
    recorded = 0
    for number in range(5):
        one, moment = new_round(), random.Random(number).uniform(0, STORM_S)
        warm.record(one)
        if number:
            warm.recorder()
        time.sleep(moment)
        killed_ns = warm.kill("launcher")
        warm.finish()
        if one.ran():
            assert forktrace.read(one.trace).cut is None
            one.lack_ms(killed_ns)
            recorded += 1
    assert recorded


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP])
def test_a_recorder_that_is_signalled(warm: Warm, new_round: Callable[[], Round], number: int) -> None:
    """It goes on: who ends a whole group, a session or a service wants to see how the target ends."""
    one = new_round()
    warm.record(one)
    kill(warm.recorder(), number)
    warm.finish()
    assert forktrace.read(one.trace).cut is None
    assert one.recorded() == [pid for pid, _ in one.witnessed()]


def test_a_recorder_that_is_stopped(warm: Warm, new_round: Callable[[], Round]) -> None:
    """For 3 s of a storm: what does not fit into the ring is counted as lost, and no event is invented."""
    one = new_round()
    warm.record(one, 4.5)
    recorder = warm.recorder()
    time.sleep(0.5)
    kill(recorder, signal.SIGSTOP)
    time.sleep(3)
    kill(recorder, signal.SIGCONT)
    warm.finish()
    recording = forktrace.read(one.trace)
    table, lost = recording.lifecycles(), recording.lost()
    assert recording.cut is None
    forked = table[table["origin"] == "forked"]
    seen = Counter(forked.loc[forked["state"] == "gone", "pid"].tolist())
    witnessed = Counter(pid for pid, _ in one.witnessed())
    assert not seen - witnessed, "processes that there never were"
    assert lost or seen == witnessed, "a loss that nobody counted"
    whole = forked[forked["complete"]]
    assert (whole["state"] == "gone").all()
    assert (whole["exit_code"] == 3).all()
    assert recording.balance().holds or lost


def test_a_target_that_is_stopped(warm: Warm, new_round: Callable[[], Round]) -> None:
    """And continued: the recording goes on through it, and shows it."""
    one = new_round()
    warm.record(one)
    warm.recorder()
    target = children(warm.launcher)[1]
    wait_until(lambda: "reaps" in Path(f"/proc/{target}/comm").read_text(), "the target runs")
    kill(target, signal.SIGSTOP)
    time.sleep(1)
    kill(target, signal.SIGCONT)
    warm.finish()
    recording = forktrace.read(one.trace)
    assert one.recorded() == [pid for pid, _ in one.witnessed()]
    stops = recording.signals()
    assert stops.loc[stops["id"] == 0, "signal"].tolist() == ["SIGSTOP"]
    assert recording.lifecycles()["exit_code"].tolist()[0] == 7


@pytest.mark.parametrize(("how", "words"), [("rm -r", "was removed"), ("truncate -s 100", "was cut by somebody else")])
def test_a_trace_that_vanishes(new_round: Callable[[], Round], environment: Mapping[str, str], how: str, words: str) -> None:
    """With its directory, or its contents: one line and 125 once the command has ended, which goes on."""
    one = new_round()
    place = one.folder / "place"
    place.mkdir()
    trace = place / "t.arrows"
    victim = place if how == "rm -r" else trace
    script = f"{how} {victim}; i=0; while [ $i -lt 20 ]; do /bin/true; sleep 0.05; i=$((i+1)); done; echo the target is done"
    line = forktrace_command("record", "-o", str(trace), "--", "/bin/sh", "-c", script)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (125, "the target is done\n"), done.stderr
    assert done.stderr.splitlines()[0] == f"forktrace: {trace} {words} while it was written"


def test_a_disk_that_is_full_from_the_start(open_folder: Path, environment: Mapping[str, str]) -> None:
    """The command does not run, and there is no trace that were none."""
    disk = open_folder / "full"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", disk], check=True)
    try:
        (disk / "fills").write_bytes(bytes(4096))
        line = forktrace_command("record", "-o", str(disk / "t.arrows"), "--", "/bin/echo", "ran")
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        left = [path.name for path in disk.iterdir()]
    finally:
        subprocess.run(["umount", disk], check=True)
    assert (done.returncode, done.stdout, left) == (125, "", ["fills"])
    assert "cannot write the trace: No space left on device" in done.stderr


def maps_of(pid: int) -> set[int]:
    """The identities of the BPF maps that a process and its descendants hold. A program keeps its maps, a link its program."""
    found: set[int] = set()
    with suppress(OSError):  # the process has ended
        for one in os.listdir(f"/proc/{pid}/fdinfo"):
            with suppress(OSError):  # the file is closed
                about = Path(f"/proc/{pid}/fdinfo", one).read_text()
                found |= {int(number) for number in re.findall(r"^map_id:\s+(\d+)$", about, re.MULTILINE)}
    return found.union(*(maps_of(child) for child in children(pid)))


def is_there(bpf_map: int) -> bool:
    """Whether there is a BPF map of this identity.

    It is not opened for that: a program array is emptied later when its last descriptor is closed (kernel/bpf/arraymap.c,
    prog_array_map_clear), and one that is closed once more until then is never freed.
    """
    attributes = (ctypes.c_uint32 * 3)(bpf_map - 1, 0, 0)
    if _libc.syscall(_BPF, _MAP_GET_NEXT_ID, ctypes.byref(attributes), ctypes.sizeof(attributes)) < 0:
        assert ctypes.get_errno() == errno.ENOENT, os.strerror(ctypes.get_errno())
        return False
    return attributes[1] == bpf_map


@pytest.mark.parametrize("of", ["recorder", "launcher"])
def test_nothing_is_left(
    new_round: Callable[[], Round], environment: Mapping[str, str], pytestconfig: pytest.Config, of: str
) -> None:
    """Of a recording that is killed at whatever moment, from its first: no process, no BPF program, map or link, no mount."""
    before, started_s = footprint(), 0.0
    for number in range(max(2, pytestconfig.getoption("--crashes") // 10)):
        one, mark = new_round(), f"{MARK}={uuid.uuid4()}"
        marked = dict(environment) | dict([mark.split("=")])
        with subprocess.Popen(forktrace_command(*one.arguments()), env=marked, stderr=subprocess.DEVNULL) as launcher:
            begin = time.monotonic()
            if number:
                time.sleep(random.Random(number).uniform(0, started_s + STORM_S))
                maps = maps_of(launcher.pid)
            else:
                wait_until(lambda one=one: one.trace.exists() and one.trace.stat().st_size, "it records")
                started_s, maps = time.monotonic() - begin, maps_of(launcher.pid)
                assert maps
            kill(launcher.pid if of == "launcher" else recorder_of(launcher.pid))
            launcher.wait(PATIENCE_S)
        wait_until(lambda mark=mark: not processes_with(mark), "all has ended")
        wait_until(lambda maps=maps: not any(map(is_there, maps)), "the kernel has freed the maps")
        if one.ran():
            one.lack_ms(0)
        else:
            assert not one.trace.exists() or of == "launcher"
    assert footprint() == before


CLOCKED = "import time; print(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())"


ZOMBIES = """
import os, time
os.fork() or os._exit(0)
print("started", flush=True)
time.sleep(600)
"""


def test_zombies_in_a_time_namespace(environment: Mapping[str, str], open_folder: Path) -> None:
    """A zombie that is there to the end of a recording, which /proc shows by another start, is one to its end."""
    path, mark = open_folder / f"{uuid.uuid4()}.arrows", str(uuid.uuid4())
    line = forktrace_command("record", "-q", "-d", "2", "-o", str(path), "--", sys.executable, "-c", ZOMBIES)
    apart = ["unshare", "--time", "--boottime", "5000000", "--fork", *line]
    marked = dict(environment) | {MARK: mark}
    with (open_folder / mark).open("w+") as said:  # no pipe: the program, which goes on, would hold it open
        subprocess.run(apart, env=marked, stdout=subprocess.DEVNULL, stderr=said, check=False, timeout=PATIENCE_S)
        said.seek(0)
        stderr = said.read()
    for pid in processes_with(f"{MARK}={mark}"):
        os.kill(pid, signal.SIGKILL)
    if "unshare" in stderr:
        pytest.skip(f"no time namespaces here: {stderr.strip()}")
    assert forktrace.read(path).lifecycles()["state"].tolist() == ["running", "zombie"]


def test_in_a_time_namespace(environment: Mapping[str, str], open_folder: Path) -> None:
    """Where processes see another time since boot than the kernel, the trace has one clock, and the right time of day."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    line = forktrace_command("record", "-q", "-o", str(path), "--", sys.executable, "-c", CLOCKED)
    apart = ["unshare", "--time", "--boottime", "5000000", "--fork", *line]
    done = subprocess.run(apart, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    if "unshare" in done.stderr:
        pytest.skip(f"no time namespaces here: {done.stderr.strip()}")
    recorded = Recorded(path, done.returncode, done.stdout, done.stderr)
    recorded.assert_whole()
    header, row = recorded.recording.header, recorded.table.iloc[0]
    in_ns, wall_ns = map(int, done.stdout.split())
    assert abs(in_ns - 5_000_000 * 10**9 - row["fork_ns"]) < PATIENCE_S * 10**9
    assert header["start_ns"] <= row["exec_ns"] <= row["exit_ns"] <= recorded.recording.end_ns
    assert abs(row["exec_ns"] + header["clock_offset_ns"] - wall_ns) < PATIENCE_S * 10**9
