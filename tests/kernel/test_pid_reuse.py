"""Numbers that are given out again and again, and that differ between PID namespaces: which process is which stays certain."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recorded import (
    CLOCKS_NS,
    MARK,
    PATIENCE_S,
    ROOT_IS_A_MOUNT,
    Recorded,
    forktrace_command,
    kill_with,
    processes_with,
    wait_until,
)

from forktrace.kernel.btf import Btf

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare, of util-linux")]

CHILDREN = 100_000
NUMBERS = 400  # the kernel keeps those below 300 for the first round
FEW_NUMBERS = 302
NAMESPACE = ["unshare", "--pid", "--fork"]
WITNESS = ["ns_pid", "parent", "exit_code", "before_ns", "after_ns"]  # of a line of tests/workloads/recycler.c


@pytest.fixture(scope="module")
def own_pid_max() -> None:
    """Each PID namespace has a pid_max of its own; before Linux 6.14, to change it would change it for all."""
    if "pid_max" not in Btf().members("pid_namespace"):
        pytest.skip("pid_max is one for all PID namespaces here")


@pytest.mark.usefixtures("own_pid_max")
def test_numbers_that_are_used_again(record: Callable[..., Recorded], workload: Callable[[str], str], tmp_path: Path) -> None:
    """100,000 processes share 400 numbers: parent, reaper, exit code and times of each are those that its parent saw."""
    log = tmp_path / "log"
    recorded = record([*NAMESPACE, workload("recycler"), str(CHILDREN), str(NUMBERS), str(log)], timeout_s=5 * PATIENCE_S)
    assert recorded.returncode == 0, recorded.stderr
    saw = pd.DataFrame(np.fromfile(log, np.int64).reshape(-1, len(WITNESS)), columns=WITNESS)
    assert len(saw) == CHILDREN
    assert saw["ns_pid"].nunique() < NUMBERS
    table = recorded.table
    table["parent"] = table["parent_id"].map(table["ns_pid"])
    found = table[table["parent"].isin(saw["parent"])].sort_values(["parent", "fork_ns"])  # each parent has one child at a time
    saw = saw.sort_values(["parent", "before_ns"])
    for column in ("ns_pid", "parent", "exit_code"):
        assert found[column].astype("int64").tolist() == saw[column].tolist(), column
    assert found["complete"].all()
    assert found["reap_call"].value_counts()["wait4"] == CHILDREN
    assert (found["reaper_id"] == found["parent_id"]).all()
    assert (found["fork_ns"].to_numpy("int64") >= saw["before_ns"].to_numpy() - CLOCKS_NS).all()
    assert (found["reap_ns"].to_numpy("int64") <= saw["after_ns"].to_numpy() + CLOCKS_NS).all()


@pytest.mark.usefixtures("own_pid_max")
def test_a_wait_that_comes_back_late(record: Callable[..., Recorded], workload: Callable[[str], str]) -> None:
    """Between the release of a child and the return of the wait that did it, another process gets the child's number."""
    recorded = record([*NAMESPACE, workload("late"), str(FEW_NUMBERS)])
    if recorded.returncode == 77:
        pytest.skip("userfaultfd is not available")
    assert recorded.returncode == 0, recorded.stderr
    lines = recorded.of("late") + recorded.of("late", what="taker")
    assert [line["ns_pid"] for line in lines] == [300, 300]
    recorded.assert_agrees(lines)


USER = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]


@pytest.mark.parametrize("outermost", [NAMESPACE, USER], ids=["root", "user"])
def test_both_sides(outermost: list[str], open_folder: Path, environment: Mapping[str, str]) -> None:
    """A PID namespace in another, each with a /proc of its own, in a user namespace or not: each number is that of its side."""
    procs = ["--mount-proc"] if ROOT_IS_A_MOUNT else []
    if subprocess.run([*outermost, *procs, "true"], check=False).returncode:
        pytest.skip("no such namespace can be made here")
    path, mark = open_folder / f"{uuid.uuid4()}.arrows", str(uuid.uuid4())
    inner = [*NAMESPACE, *procs, "sh", "-c", "sleep 1000 & one=$!; sleep 1000 & read line; kill $one $!; wait"]
    line = forktrace_command("record", "-q", "-o", str(path), "--", *outermost, *procs, *inner)
    marked = dict(environment) | {MARK: mark}
    with subprocess.Popen(line, env=marked, stdin=subprocess.PIPE) as recorder:
        assert recorder.stdin is not None
        try:
            wait_until(lambda: len(_deepest(mark)) == 3, "the innermost processes")
            said = _deepest(mark)
            recorder.stdin.close()
            assert recorder.wait(PATIENCE_S) == 0
        finally:
            recorder.kill()
            kill_with(f"{MARK}={mark}")
    recorded = Recorded(path, 0, "", "")
    recorded.assert_balanced()
    for pid, ns_pid in said.items():
        assert recorded.row(pid)["ns_pid"] == ns_pid
    assert sorted(said.values()) == [1, 2, 3]
    middle = recorded.row(int(recorded.row(min(said, key=said.__getitem__))["ppid"]))
    assert middle["ns_pid"] in (1, 2)
    assert middle["pid"] not in said


def _deepest(mark: str) -> dict[int, int]:
    """The marked processes that are two PID namespaces down: their numbers here and there."""
    found = {}
    for pid in processes_with(f"{MARK}={mark}"):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        numbers = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
        if len(numbers) == len(Path("/proc/self/status").read_text().partition("NSpid:")[2].splitlines()[0].split()) + 2:
            found[pid] = int(numbers[-1])
    return found
