"""A hostile program under record: it is recorded to its end, and what others do beside it has its stacks."""

from __future__ import annotations

import functools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest
from recorded import (
    DEBIAN,
    MARK,
    PATIENCE_S,
    WORKLOADS,
    Recorded,
    forktrace_command,
    kill_with,
    processes_with,
    python3s,
    wait_until,
)

import forktrace
from forktrace.system.procfs import CGROUP2, Proc

pytestmark = pytest.mark.root

ATTACKS = ("frames", "names", "scribbles", "codes", "libraries", "programs", "words", "bomb")
MEMORY_MOST_KB = 700 << 10
UNUSED_UID = 60_000 + os.getpid() % 5_000


def python_3_11() -> str:
    """An interpreter whose memory the attacks know."""
    found = [sys.executable] if sys.version_info[:2] == (3, 11) else []
    found += [path for version, path in python3s().items() if version[:2] == (3, 11)]
    if not found:
        pytest.skip("needs a Python 3.11")
    return found[0]


@pytest.fixture(scope="module")
def attacked(record: Callable[..., Recorded], workload: Callable[[str], str], open_folder: Path) -> Recorded:
    """One recording of all attacks, one after the other; between them another program forks."""
    folder = open_folder / "attacks"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    python, commands = python_3_11(), []
    for attack in ATTACKS:
        third = str(UNUSED_UID) if attack == "bomb" else workload("first")
        commands.append(f"{attack}={python} {WORKLOADS / 'attacks.py'} {attack} {folder} {third}")
    recorded = record([python, str(WORKLOADS / "driver.py"), *commands])
    shutil.rmtree(folder)
    return recorded


def rows_of(recorded: Recorded, attack: str) -> pd.DataFrame:
    """The children of an attack."""
    table = recorded.table
    (driver,) = table[table["origin"] == "target"]["id"]
    own = table[table["parent_id"] == driver]
    (leader,) = own[own["argv"].str.contains(f"attacks.py {attack} ", regex=False)]["id"]
    return table[table["parent_id"] == leader]


def test_every_attack_is_recorded(attacked: Recorded) -> None:
    """The recorder is there at the end, lost nothing, and no row is incomplete but those of orphans."""
    assert attacked.returncode == 0, attacked.stderr
    assert {line["program"]: line["status"] for line in attacked.of("program")} == dict.fromkeys(ATTACKS, 0)
    assert attacked.table.loc[attacked.table["reap_call"] != "unseen", "complete"].all()


def test_memory_of_the_recorder(attacked: Recorded) -> None:
    """No process that this test has run took more, the recorder among them."""
    assert attacked.path.exists()
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < MEMORY_MOST_KB


def test_others_have_their_stacks(attacked: Recorded) -> None:
    """Before, between and after the attacks the stacks of another program are there, with their lines."""
    table = attacked.table
    (driver,) = table[table["origin"] == "target"]["id"]
    own = table[table["parent_id"] == driver]
    assert len(own) == len(ATTACKS)
    assert set(own["fork_stack_status"]) == {"ok"}
    assert set(own["fork_site"]) == {"driver.py:10 <module>"}
    assert set(own["reap_stack_status"]) == {"ok"}


@pytest.mark.parametrize(
    ("attack", "count", "statuses"),
    [
        ("frames", 30, {"ok", "truncated", "read-fault"}),
        ("names", 216, {"ok", "read-fault"}),
        ("scribbles", 301, {"ok", "truncated", "read-fault"}),
        ("codes", 400, {"ok", "truncated", "lost"}),
    ],
)
def test_stacks_of_the_attacks(attack: str, count: int, statuses: set[str], attacked: Recorded) -> None:
    """Each fork is there, and its status says whether its stack could be read."""
    rows = rows_of(attacked, attack)
    assert len(rows) == count
    assert set(rows["fork_stack_status"]) <= statuses
    assert (rows["fork_stack_status"] == "ok").any()


def test_programs_of_which_there_are_too_many(attacked: Recorded) -> None:
    """Thousands of programs, each another file: that they are no interpreters is known, or of some not said."""
    rows = rows_of(attacked, "programs")
    ran = rows[rows["exec_ns"].notna()]
    children = attacked.table[attacked.table["parent_id"].isin(ran["id"])]
    assert len(ran) == len(children) == 2500
    assert set(children["fork_stack_status"]) <= {"not-python", "no-runtime"}
    assert set(ran["fork_stack_status"]) == {"ok"}


def test_names_are_what_they_are(attacked: Recorded) -> None:
    """Bytes that are no text become escapes; long names are cut, and said to be."""
    rows = rows_of(attacked, "words")
    cut = attacked.table[attacked.table["notes"].fillna("").str.contains("argv cut")]
    assert set(cut["argv"].str.len()) >= {len("true ") + 4090}
    assert rows["comm"].str.contains("\\xff\\xfe\\x80", regex=False).any()
    assert rows["comm"].str.contains("\x1b[2J", regex=False).any()


def test_a_bomb_within_a_limit(attacked: Recorded) -> None:
    """As many forks as the limit lets it, and those that failed at it."""
    failed = attacked.recording.failed_forks()
    assert set(failed["limit"].dropna()) == {"RLIMIT_NPROC"}
    assert len(rows_of(attacked, "bomb")) > 100


def test_a_file_that_nobody_can_read(open_folder: Path, environment: Mapping[str, str]) -> None:
    """A libpython on a file system that never answers the recorder: it goes on, and its helper does not stay behind."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")
    folder, path = open_folder / "silent", open_folder / f"{uuid.uuid4()}.arrows"
    folder.mkdir()
    mark = str(uuid.uuid4())
    line = forktrace_command("record", "-q", "-o", str(path), "--", python_3_11(), str(WORKLOADS / "silent.py"), str(folder))
    marked = dict(environment) | {MARK: mark}
    with subprocess.Popen(line, env=marked, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as recorder:
        assert recorder.stdin is not None
        assert recorder.stdout is not None
        try:
            said = recorder.stdout.readline()
            if not said:
                pytest.skip("a FUSE cannot be mounted here")
            shown = functools.partial(forks_in, path)
            wait_until(lambda: shown() == 2 + json.loads(said)["forks"], "forks in the trace while the file is asked about")
            recorder.stdin.close()
            assert recorder.wait(PATIENCE_S) == 0
        finally:
            recorder.kill()
            kill_with(f"{MARK}={mark}")
            subprocess.run(["umount", "-l", folder], stderr=subprocess.DEVNULL, check=False)
    recorded = Recorded(path, 0, said, "")
    recorded.assert_balanced()
    recorded.assert_whole()
    forked = recorded.table[recorded.table["origin"] == "forked"]
    assert set(forked["fork_stack_status"]) <= {"ok", "no-runtime"}
    wait_until(lambda: not processes_with(f"{MARK}={mark}"), "the end of the helper")


REACHES = """
import ctypes, json, os, signal
libc = ctypes.CDLL(None, use_errno=True)
pids = [int(one) for one in os.listdir("/proc") if one.isdigit()]
parents = {}
for pid in pids:
    try:
        parents[pid] = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    except OSError:
        pass
launcher = os.getppid()
reached = []
for pid in [launcher] + [one for one, parent in parents.items() if parent == launcher and one != os.getpid()]:
    for number in (signal.SIGKILL, signal.SIGSTOP):
        try:
            os.kill(pid, number)
            reached.append(pid)
        except PermissionError:
            pass
    if libc.ptrace(16, pid, 0, 0) == 0:
        reached.append(pid)
    for name in ("mem", "environ", "fd/3"):
        try:
            os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
            reached.append(pid)
        except OSError:
            pass
recorders = list(parents.values()).count(launcher) - 1
print(json.dumps({"case": "reaches", "recorders": recorders, "reached": reached, "uid": os.getuid()}))
"""


def test_an_ordinary_user_does_not_reach_the_recorder(record: Callable[..., Recorded]) -> None:
    """Neither a signal nor ptrace nor /proc gets from the command of an ordinary user to the processes of forktrace."""
    if not Path(DEBIAN).exists():
        pytest.skip("needs an interpreter that every user can execute")
    recorded = record([DEBIAN, "-c", REACHES], "--user", "nobody", cwd="/")
    (line,) = recorded.of("reaches")
    assert line["uid"] != 0
    assert line["recorders"] == 1
    assert line["reached"] == []


def test_a_group_is_the_one_that_was_meant() -> None:
    """The group of a process that has got another's number, or has moved, is not taken for the one that was recorded."""
    mount = next((one for one in CGROUP2 if Path(one, "cgroup.controllers").exists()), None)
    own = Proc().cgroup(os.getpid(), os.stat(mount).st_ino if mount else 0)
    if mount is None or own != "/":
        pytest.skip("needs cgroup v2, and its root as the group of this test")
    group = Path(mount, f"forktrace-test-{os.getpid()}")
    group.mkdir()
    try:
        assert Proc().cgroup(os.getpid(), group.stat().st_ino) is None
        with subprocess.Popen(["sleep", "1000"]) as other:
            (group / "cgroup.procs").write_text(str(other.pid))
            assert Proc().cgroup(other.pid, group.stat().st_ino) == f"/{group.name}"
            assert Proc().cgroup(other.pid, os.stat(mount).st_ino) is None
            other.kill()
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text(), "an empty group")
        group.rmdir()


def test_names_that_are_said(open_folder: Path, environment: Mapping[str, str]) -> None:
    """The name of a process that runs on is said without what a terminal would obey."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    program = "import ctypes, os, time\nif os.fork() == 0:\n"
    program += " ctypes.CDLL(None).prctl(15, b'\\x1b[2Jname', 0, 0, 0)\n print(os.getpid(), flush=True)\n time.sleep(1000)\n"
    program += "else: time.sleep(0.5)"
    line = forktrace_command("record", "-o", str(path), "--", sys.executable, "-c", program)
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        assert recorder.stderr is not None
        child = int(recorder.stdout.readline())
        said = b""
        while b"still following" not in said:
            said = recorder.stderr.readline()
        os.kill(child, signal.SIGKILL)
        recorder.communicate(timeout=PATIENCE_S)
    assert b"\x1b" not in said
    assert b"\\x1b[2Jname" in said


def forks_in(path: Path) -> int:
    """How many processes a trace has that is still being written."""
    return int((forktrace.read(path).trace.table.to_pandas()["kind"] == "fork").sum())
