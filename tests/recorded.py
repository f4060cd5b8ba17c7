"""A recording made by a test: what the command printed, what the trace says, and how the two are compared."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

import forktrace

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")  # the unit of times in /proc/PID/stat
BY_WAIT = ("wait4", "waitid", "io_uring", "kernel", "unseen")

WORKLOADS = Path(__file__).parent / "workloads"
DEBIAN = "/usr/bin/python3"
BUILT_PYTHONS = Path(__file__).parents[1] / ".cache" / "pythons"  # by tests/free_threaded.py
BUILT = "FORKTRACE_TEST_PROGRAMS"  # names where the workloads are compiled already: on a machine without a compiler
TESTED_PYTHONS = "FORKTRACE_TEST_PYTHONS"  # names those of `interpreters` that are tested, on a slow machine; nothing: all
MORE_OPTIONS = {"first": ("-nostdlib", "-static"), "away": ("-shared", "-fPIC", "-pthread")}  # of the workloads in C
MARK = "FORKTRACE_TEST_RUN"  # in the environment of everything that a recording starts
PATIENCE_S = 100  # for what takes seconds: the machine may be slow and busy, and a failure need not come soon
CLOCKS_NS = 50_000  # the clock of BPF may lag behind that of a process by microseconds (forktrace/analysis/log.py)

# A chroot's root may be a directory like any other; `unshare --mount` does not work there.
ROOT_IS_A_MOUNT = any(line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines())

Line = dict[str, Any]


def forktrace_command(*arguments: str) -> list[str]:
    """The command line of forktrace in this very Python."""
    return [sys.executable, "-m", "forktrace", *arguments]


@contextlib.contextmanager
def folder_of_mode(mode: int) -> Iterator[Path]:
    """Make a directory that others than this user may read, and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="forktrace-test-"))
    folder.chmod(mode)
    yield folder
    shutil.rmtree(folder)


def compiler_options(workload: str) -> tuple[str, ...]:
    """What a workload in C needs of its compiler."""
    return MORE_OPTIONS.get(workload, ("-pthread",))


def pyenv_versions() -> Path:
    """Where pyenv keeps its interpreters."""
    root = os.environ.get("PYENV_ROOT")
    if not root and shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout.strip()
    return Path(root or Path.home() / ".pyenv") / "versions"


def interpreters() -> dict[str, str]:
    """The interpreters of this machine by name: `3.11.7` of pyenv, `debian`, `3.9` of others that Debian has, `3.13t` built."""
    folders = [folder for folder in (pyenv_versions(), BUILT_PYTHONS) if os.access(folder, os.R_OK | os.X_OK)]
    found = {path.parts[-3]: str(path) for folder in folders for path in sorted(folder.glob("*/bin/python"))}
    others = [path for path in sorted(Path("/usr/bin").glob("python3.?*")) if re.fullmatch(r"python3\.\d+", path.name)]
    found |= {one.name.removeprefix("python"): str(one) for one in others if one.name != os.path.realpath(DEBIAN)[9:]}
    found |= {"debian": DEBIAN} if Path(DEBIAN).exists() else {}
    wanted = os.environ.get(TESTED_PYTHONS, "").split() or found
    return {name: path for name, path in found.items() if name in wanted}


def python3s() -> dict[tuple[int, ...], str]:
    """The releases of Python 3 that pyenv has, by version, the oldest first."""
    found = [(name, path) for name, path in interpreters().items() if re.fullmatch(r"3\.\d+\.\d+", name)]
    return dict(sorted((tuple(map(int, name.split("."))), path) for name, path in found))


def free_threaded() -> dict[str, str]:
    """The free-threaded interpreters by name: `3.13.5t`, `3.13t`."""
    return {name: path for name, path in interpreters().items() if re.fullmatch(r"[\d.]+t", name)}


def processes_with(mark: str) -> list[int]:
    """The numbers of the living processes that have `mark` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended, or is not ours to look at
    return found


def kill_with(mark: str) -> list[int]:
    """Kill those; return their numbers."""
    found = processes_with(mark)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def footprint() -> tuple[list[str], list[str]]:
    """What could stay behind without a process: mounts of tracefs, and BPF programs and maps that were pinned."""
    pinned = [str(path) for path in Path("/sys/fs/bpf").rglob("*")]
    return [line for line in Path("/proc/self/mounts").read_text().splitlines() if "tracefs" in line], pinned


def children(pid: int) -> list[int]:
    """The children of a process that its main thread made, the first made first; none when it is gone."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Program:
    """A program that does as it is told, a line at a time, and says a line of JSON to each; the first has its number."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = int(self.told()["pid"])

    def told(self) -> dict[str, Any]:
        """What it says next."""
        assert self.process.stdout
        return dict(json.loads(self.process.stdout.readline()))

    def tell(self, what: str) -> dict[str, Any]:
        """Make it do something; what it says to that."""
        assert self.process.stdin
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        return self.told()


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Return when `condition` holds; fail, naming `what`, when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.01)


@dataclass(frozen=True)
class Recorded:
    """One finished `forktrace record`."""

    path: Path
    returncode: int
    stdout: str
    stderr: str

    @cached_property
    def recording(self) -> Any:
        """The trace as a user reads it."""
        return forktrace.read(self.path)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The lifecycle table."""
        return self.recording.lifecycles()

    @cached_property
    def raw(self) -> pd.DataFrame:
        """The rows of the trace file itself."""
        return self.recording.trace.table.to_pandas()

    @cached_property
    def lines(self) -> list[Line]:
        """What the workload witnessed."""
        return [json.loads(line) for line in self.stdout.splitlines() if line.startswith("{")]

    def of(self, case: str, program: str | None = None, what: str | None = None) -> list[Line]:
        """The witness lines of a case; without `what` those that are about its children."""
        found = [line for line in self.lines if line["case"] == case and line.get("what") == what]
        return [line for line in found if program in (None, line.get("program"))]

    @cached_property
    def _starts(self) -> dict[int, dict[int, int]]:
        """The start in clock ticks of each row of the lifecycle table, by pid and then by the row's place in the table."""
        ticks = (self.table["fork_ns"] // TICK_NS).fillna(-1).tolist()
        places = self.table.groupby("pid").indices
        return {pid: {place: ticks[place] for place in found} for pid, found in places.items()}

    def row(self, pid: int, starttime: int | None = None) -> pd.Series:
        """The one row of the lifecycle table with that number, and that start in clock ticks when it is given."""
        starts = self._starts.get(pid, {})
        places = [place for place, ticks in starts.items() if starttime in (None, ticks)]
        assert len(places) == 1, f"{len(places)} rows for pid {pid} started at tick {starttime}; it has {starts}"
        return self.table.iloc[places[0]]

    def id_of(self, pid: int) -> int:
        """The key of the one row with that number."""
        return int(self.row(pid)["id"])

    def events_of(self, pid: int, *kinds: str) -> pd.DataFrame:
        """The rows of the trace file about that process, of these kinds."""
        return self.raw[(self.raw["pid"] == pid) & self.raw["kind"].isin(kinds)]

    def assert_agrees(self, lines: Iterable[Line]) -> None:
        """Each line is a partial row of the table: the same values, and moments within those that it saw."""
        wrong = [text for line in lines for text in self._differences(line)]
        assert not wrong, "\n".join(wrong)

    def _differences(self, line: Line) -> list[str]:
        row = self.row(line["pid"], line.get("starttime"))
        about = f"{line['case']} {line['pid']}"
        wrong = [key for key in line if _differs(row, line, key)]
        texts = [f"{about}: {key} is {_plain(row[key])!r}, the witness says {line[key]!r}" for key in wrong]
        texts += [f"{about}: {text}" for text in _out_of_order(row, line)]
        if not row["complete"] and line.get("complete", True) is not None:
            texts.append(f"{about}: not complete: {row['notes']}")
        return texts

    def assert_balanced(self) -> None:
        """Every process that was started is reaped, released by itself, a zombie or running; nothing was lost."""
        table, raw = self.table, self.raw
        lost = int(raw.loc[raw["kind"] == "lost", "count"].sum())
        assert lost == 0, f"{lost} events lost: {raw[raw['kind'] == 'lost'][['count', 'detail']]}"
        started = raw[raw["kind"] == "fork"]
        assert not started.duplicated(["pid", "start_ns"]).any(), "a process was started twice"
        counts = {
            "reaped": int(table["reap_call"].isin(BY_WAIT).sum()),
            "autoreaped": int((table["reap_call"] == "autoreap").sum()),
            "zombie": int((table["state"] == "zombie").sum()),
            "running": int((table["state"] == "running").sum()),
        }
        assert len(started) == len(table) == sum(counts.values()) + lost, f"{len(started)} started, {len(table)} rows, {counts}"
        released = raw[raw["kind"].isin(["reap", "autoreap"]) & raw["start_ns"].notna()]
        twice = released[released.duplicated(["pid", "start_ns"], keep=False)]
        assert twice.empty, f"released twice:\n{twice[['time_ns', 'kind', 'pid', 'by_pid', 'call']]}"
        ended = raw[raw["kind"] == "exit"]
        assert not ended.duplicated(["pid", "start_ns"]).any(), "a process exited twice"

    def assert_whole(self) -> None:
        """The trace was closed, and its totals are those of its rows."""
        assert self.recording.cut is None, self.recording.cut
        ends = self.raw[self.raw["kind"] == "end"]
        assert len(ends) == 1
        totals = json.loads(ends.iloc[0]["detail"])
        assert totals["processes"] == len(self.table)
        assert totals["still_running"] == int((self.table["state"] == "running").sum())
        assert not any(totals["lost"].values()), totals["lost"]


def _plain(value: Any) -> Any:
    """A table's value as JSON has it."""
    if pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def _differs(row: pd.Series, line: Line, key: str) -> bool:
    return key in row.index and key != "complete" and _plain(row[key]) != line[key]


def _out_of_order(row: pd.Series, line: Line) -> list[str]:
    """The moments of a row that contradict one another, or what the witness saw on the clock."""
    moments = {name: _plain(row[name]) for name in ("fork_ns", "exit_ns", "zombie_ns", "reap_ns")}
    order = [("fork_ns", "exit_ns"), ("exit_ns", "zombie_ns"), ("exit_ns", "reap_ns"), ("zombie_ns", "reap_ns")]
    order += [("before_fork_ns", "fork_ns"), ("fork_ns", "after_fork_ns"), ("before_exit_ns", "exit_ns")]
    order += [("before_reap_ns", "reap_ns"), ("reap_ns", "after_reap_ns")]
    known = moments | {name: value for name, value in line.items() if name.startswith(("before_", "after_"))}
    pairs = [(early, late) for early, late in order if known.get(early) is not None and known.get(late) is not None]
    texts = [
        f"{early} {known[early]} is after {late} {known[late]}"
        for early, late in pairs
        if known[early] > known[late] + CLOCKS_NS
    ]
    if "least_zombie_ms" in line and not row["zombie_ms"] >= line["least_zombie_ms"]:
        texts.append(f"a zombie for {row['zombie_ms']} ms, the witness says at least {line['least_zombie_ms']}")
    return texts
