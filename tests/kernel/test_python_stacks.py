"""Python stacks: every interpreter that this machine has, against what the program itself sees, line by line."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from recorded import BUILT, DEBIAN, ROOT_IS_A_MOUNT, WORKLOADS, Line, Recorded, free_threaded, interpreters

from forktrace.trace.stacks import Frame, fold

pytestmark = pytest.mark.root

LIMIT, KILL_LIMIT = 1024, 128  # frames of a stack; of that of a kill, which is walked under locks
STACKS, RECYCLED = (str(WORKLOADS / name) for name in ("stacks.py", "recycled.py"))
KINDS = {"fork": "fork", "reap": "reap", "echild": "wait", "kill": "signal", "exit": "exit"}


PYTHONS = interpreters()
NEXT = dict(zip(PYTHONS, [*list(PYTHONS.values())[1:], *PYTHONS.values()], strict=False))  # which a case executes
MANY = {name: 10_000 if name.startswith(("3.11", "3.13")) else 2_000 for name in PYTHONS}
CASES = (
    *("module", "plain", "deep", "very_deep", "generators", "comprehensions", "lambdas", "callbacks", "classes", "handlers"),
    *("decorators", "traced", "strings", "file_names", "function_names", "long_functions", "far_lines", "new_syntax"),
    *("many_lines", "libraries", "threads", "generations", "siblings", "programs", "endings", "imported", "other_version"),
    "no_stack",
)
FAULTS_MOST = 3  # of some thousands, on an emulated machine
AWAY = ("for a moment", "for good", "in the same second", "in the next second")


class Witnessed:
    """A recording of stacks.py, and the comparison of its rows with what the program saw."""

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded
        self.lacks_crashes = any("at a crash" in lack for lack in recorded.recording.header["lacks"])
        self.is_emulated = BUILT in os.environ  # then a page may be away for longer than the walk waits
        self.faults = 0

    @cached_property
    def rows(self) -> dict[tuple[str, int], list[Any]]:
        """The rows of the trace by kind and process; of a wait in vain, by the number that it was for."""
        found = defaultdict(list)
        for row in self.recorded.raw.itertuples():
            number = row.target_pid if row.kind == "wait" else row.pid
            if number == number and number is not None:
                found[row.kind, int(number)].append(row)
        return found

    def differences(self, line: Line) -> list[str]:
        """What the trace says about a call that differs from what the program saw."""
        found = self.rows[KINDS[line["event"]], line["pid"]]
        if line["event"] in ("fork", "reap", "echild"):
            found = [row for row in found if row.by_tid == line["tid"]]
        about = f"{line['case']}: {line['event']} {line['pid']}"
        if line["event"] == "echild":
            found = [row for row in found if row.result == 10]
        elif len(found) != 1:
            return [f"{about}: {len(found)} rows"]
        if line["event"] == "exit" and self.lacks_crashes and int(found[0].status) & 0x7F:
            return [] if pd.isna(found[0].stack) else [f"{about}: this kernel has no stacks at a crash, but {found[0].stack}"]
        if self.is_emulated and all(row.stack_status == "read-fault" for row in found):
            self.faults += 1
            return [] if self.faults <= FAULTS_MOST else [f"{about}: {self.faults} read faults"]
        frames = [Frame(*frame) for frame in line["frames"]]
        limit = KILL_LIMIT if line["event"] == "kill" else LIMIT
        alike = [row for row in found if is_stack(row, frames, limit)]
        if alike:
            return []
        return [f"{about}: {len(alike)} of {len(found)} rows are as it saw\n  saw   {fold(frames)[-900:]}"] + [
            f"  trace {row.stack_status} {str(row.stack)[-900:]}" for row in found[:4]
        ]

    def assert_same(self, program: str, case: str) -> int:
        """Every call of a case is in the trace with its stack; returns how many there were."""
        lines = self.recorded.of(case, program, "stack")
        wrong = [text for line in lines for text in self.differences(line)]
        assert not wrong, f"{len(wrong)} lines:\n" + "\n".join(wrong[:40])
        return len(lines)


def is_stack(row: Any, frames: list[Frame], limit: int = LIMIT) -> bool:
    """The row holds these frames; of a stack that is too deep, the innermost."""
    status = "ok" if len(frames) <= limit else "truncated"
    return bool(row.stack_status == status and row.stack == fold(frames[-limit:]))


@pytest.fixture(scope="session")
def matrix(record: Callable[..., Recorded]) -> Witnessed:
    """One recording of stacks.py and recycled.py under every interpreter."""
    programs = [f"{name}={shlex.join([python, '-B', STACKS, NEXT[name]])}" for name, python in PYTHONS.items()]
    programs += [f"{name}={shlex.join([python, RECYCLED, str(MANY[name])])}" for name, python in PYTHONS.items()]
    recorded = record([sys.executable, str(WORKLOADS / "driver.py"), *programs], timeout_s=300)
    failed = [line["program"] for line in recorded.of("program") if line["status"] != 0]
    assert not failed, f"stacks.py failed under {failed}:\n{recorded.stderr[-4000:]}"
    return Witnessed(recorded)


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name in PYTHONS for case in CASES if (name[:3], case) != ("2.7", "new_syntax")]
)
def test_stacks(matrix: Witnessed, name: str, case: str) -> None:
    """Every fork, reap, wait in vain, kill and exit has the stack that the program saw at that call."""
    assert matrix.assert_same(name, case) > 0


@pytest.mark.parametrize("name", PYTHONS)
def test_too_deep(matrix: Witnessed, name: str) -> None:
    """Of more than 1,024 frames the innermost are there, and the row says that the others are not."""
    assert matrix.assert_same(name, "too_deep") == 9


@pytest.mark.parametrize("name", PYTHONS)
def test_recycled_code(matrix: Witnessed, name: str) -> None:
    """Functions that are made, called and freed one after the other at a handful of addresses all have their own lines."""
    assert matrix.assert_same(name, "recycled") == MANY[name]
    (line,) = matrix.recorded.of("recycled", name, "addresses")
    # Each was used 33 times at the least seen, mostly more than 50; free-threaded builds free later (once 5,974 of 10,000).
    assert line["addresses"] < MANY[name] / (1.25 if name in free_threaded() else 10)


@pytest.mark.parametrize("name", PYTHONS)
def test_no_stack(matrix: Witnessed, name: str) -> None:
    """Where there are no Python frames the row says why: a thread or an end without any, a program that is not Python."""
    lines = [line for line in matrix.recorded.lines if line.get("program") == name and line.get("what") == "status"]
    assert {line["status"] for line in lines} == {"no-thread-state", "not-python"}
    for line in lines:
        (row,) = matrix.rows[KINDS[line["event"]], line["pid"]]
        assert row.stack_status == line["status"], line
        assert pd.isna(row.stack), line


@pytest.mark.parametrize("name", PYTHONS)
def test_waits_in_vain_are_counted(matrix: Witnessed, name: str) -> None:
    """Of the waits for a child that is gone each place has a row, and the further ones are in its running total."""
    seen = Counter(
        (line["by"], fold(Frame(*frame) for frame in line["frames"]))
        for line in matrix.recorded.lines
        if line.get("program") == name and line.get("event") == "echild" and len(line["frames"]) <= LIMIT
    )
    raw = matrix.recorded.raw
    raw = raw[(raw["result"] == 10) & raw["by_pid"].isin({by for by, _ in seen}) & (raw["stack_status"] == "ok")]
    rows = Counter(zip(raw.loc[raw["kind"] == "wait", "by_pid"], raw.loc[raw["kind"] == "wait", "stack"], strict=True))
    place = ["by_pid", "stack"]
    totals = raw[raw["kind"] == "waits"].groupby([*place, "call", "target", "flags"], observed=True)["count"].max()
    rows.update(totals.groupby(place).sum().to_dict())
    assert rows == seen


@pytest.mark.parametrize("name", PYTHONS)
def test_exit_path(matrix: Witnessed, name: str) -> None:
    """How a program left is told for all that can be told apart; the rest is unknown."""
    lines = [line for line in matrix.recorded.lines if line.get("program") == name and "exit_path" in line]
    assert len(lines) == 28
    matrix.recorded.assert_agrees(lines)


def test_every_stack_of_a_python_program(matrix: Witnessed) -> None:
    """No fork of a Python process of the recording lacks its stack, but those of threads that Python does not know."""
    raw = matrix.recorded.raw
    forks = raw[(raw["kind"] == "fork") & (raw["stack_status"] != "not-python") & (raw["origin"] == "forked")]
    statuses = Counter(forks["stack_status"])
    assert statuses["no-thread-state"] == len(PYTHONS)
    faults = statuses.pop("read-fault", 0)
    assert faults <= (FAULTS_MOST if matrix.is_emulated else 0)
    assert set(statuses) == {"ok", "truncated", "no-thread-state"}


def test_runtimes(matrix: Witnessed) -> None:
    """Each interpreter is named with its version and the directories of its library."""
    raw = matrix.recorded.raw
    found = [json.loads(text) for text in raw.loc[raw["kind"] == "runtime", "detail"]]
    for python in PYTHONS.values():
        code = "import os, platform; print(platform.python_version()); print(os.path.realpath(os.path.dirname(os.__file__)))"
        version, library = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        (runtime,) = [each for each in found if each["version"] == version]
        assert library in [os.path.realpath(path) for path in runtime["libraries"]]


# Interpreters in odd places: $1 is a directory to put things in, $2 an interpreter, $3 and so on what it runs.
COPY = 'cp "$2" "$1/python"; for file in $LIBRARY; do cp "$file" "$1"; done; run="$1/python"'
MOUNTED = f'mount -t tmpfs none "$1"; {COPY}'
ROOTED = (
    'root=$1; mount -t tmpfs none "$root"; mkdir "$root/opt" "$root/usr" "$root/proc" "$root/work";'
    'cp -a /bin /lib /lib64 "$root"; mount --rbind /usr "$root/usr"; mount --rbind /proc "$root/proc";'
    'cp "$2" "$root/opt/python";'
    'cp "$3" "$root/work/stacks.py"; shift 3; exec chroot "$root" /opt/python -B /work/stacks.py "$@"'
)


def in_place(script: str, folder: Path, python: str, *arguments: str, mount: bool = True) -> str:
    """A command that runs an interpreter and its arguments as `script` says, in a mount namespace of its own."""
    code = "import os, sys, sysconfig as s; print(sys.prefix, os.path.realpath(sys.executable), s.get_config_var('LDLIBRARY'))"
    prefix, program, library = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    shared = [str(path) for path in Path(prefix, "lib").glob(f"{library}.*")] if library.endswith(".so") else []
    run = ["env", f"LIBRARY={' '.join(shared)}", f"LD_LIBRARY_PATH={folder}", f"PYTHONHOME={prefix}"]
    shell = ["sh", "-ec", script + '; shift 2; exec "$run" "$@"', "sh", str(folder), program, *arguments]
    return shlex.join([*(["unshare", "--mount"] if mount else []), *run, *shell])


@pytest.fixture(scope="session")
def places(record: Callable[..., Recorded], open_folder: Path) -> Witnessed:
    """One recording of interpreters in virtual environments, mount namespaces and a chroot, and of new ones in its middle."""
    if not ROOT_IS_A_MOUNT:
        pytest.skip("unshare --mount needs a root that is a mount, which this one is not")
    programs = []
    for name, python in two_kinds().items():
        folders = {place: open_folder / f"{place}-{name}" for place in ("venv", "mounted", "new", "rooted")}
        for folder in folders.values():
            folder.mkdir()
        subprocess.run([python, "-m", "venv", "--without-pip", folders["venv"]], check=True)
        there = ["-B", STACKS, python, "plain"]
        programs.append(f"venv {name}={shlex.join([str(folders['venv'] / 'bin/python'), *there])}")
        programs.append(f"mounted {name}={in_place(MOUNTED, folders['mounted'], python, *there)}")
        new = in_place(COPY, folders["new"], python, "-S", str(WORKLOADS / "first_line.py"), mount=False)
        programs.append(f"new {name}={new}")
        if name == "debian":  # all of it is in /usr
            programs.append(f"rooted {name}={in_place(ROOTED, folders['rooted'], python, STACKS, '/opt/python', 'plain')}")
    recorded = record([sys.executable, str(WORKLOADS / "driver.py"), *programs])
    failed = [line["program"] for line in recorded.of("program") if line["status"] != 0]
    assert not failed, f"these failed: {failed}:\n{recorded.stderr[-4000:]}"
    return Witnessed(recorded)


def two_kinds() -> dict[str, str]:
    """An interpreter with a shared library, the newest of pyenv, and a static one: Debian's."""
    names = sorted(
        (name for name in PYTHONS if name.startswith("3.")), key=lambda name: [int(part) for part in re.findall(r"\d+", name)]
    )
    return {name: PYTHONS[name] for name in [*names[-1:], "debian"] if name in PYTHONS}


@pytest.mark.parametrize(
    ("place", "name"), [*((place, name) for place in ("venv", "mounted") for name in two_kinds()), ("rooted", "debian")]
)
def test_places(places: Witnessed, place: str, name: str) -> None:
    """An interpreter is known wherever it is: behind a link, or in a file that cannot be seen from outside."""
    assert places.assert_same(f"{place} {name}", "plain") == 9


@pytest.mark.parametrize("name", two_kinds())
def test_new_in_the_middle(places: Witnessed, name: str) -> None:
    """An interpreter that comes up during the recording is learnt; what it did before has no stack, and says so."""
    first, again = places.recorded.of("first-line", f"new {name}", "stack")
    (row,) = places.rows["fork", first["pid"]]
    frames = [Frame(*frame) for frame in first["frames"]]
    assert is_stack(row, frames) or (pd.isna(row.stack) and row.stack_status == "no-runtime")
    (row,) = places.rows["fork", again["pid"]]
    assert is_stack(row, [Frame(*frame) for frame in again["frames"]])


def test_memory_that_is_away(record: Callable[..., Recorded], workload: Callable[[str], str]) -> None:
    """A page that is away for a moment is waited for, but for long at most once a second.

    A machine that is so busy that no moment is short has none to compare.
    """
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs a second processor, to bring the page back while the first one waits")
    recorded = record([sys.executable, str(WORKLOADS / "away.py"), workload("away")])
    of_pid = recorded.table.set_index("pid")["reap_stack_status"]
    found = {case: Counter(of_pid[line["pid"]] for line in recorded.of(case)) for case in AWAY}
    assert all(set(statuses) <= {"ok", "read-fault"} for statuses in found.values()), found
    assert set(found["for good"]) == {"read-fault"}
    for case in ("for a moment", "in the next second"):
        assert found[case]["ok"] >= found[case]["read-fault"], found
    assert found["in the same second"]["read-fault"] >= found["in the same second"]["ok"], found


def test_an_interpreter_that_is_not_walked(record: Callable[..., Recorded], tmp_path: Path) -> None:
    """The trace names it and says why its forks have no line."""
    program = tmp_path / "pypy3.11"
    shutil.copy(os.path.realpath(DEBIAN), program)
    code = "import os\nos.fork() or os._exit(0)\nos.wait()"
    recorded = record(["/usr/bin/env", f"PYTHONHOME={sys.base_prefix}", str(program), "-S", "-c", code])
    assert recorded.returncode == 0, recorded.stderr
    assert recorded.table["fork_stack_status"].tolist()[1] == "no-runtime"
    assert recorded.recording.not_walked == [(str(program), "it is PyPy")]
