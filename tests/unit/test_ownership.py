"""Whose processes may be recorded by who is not root, and what a number is worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from forktrace.errors import PermissionMissing
from forktrace.recorder import ownership
from forktrace.recorder.ownership import Ownership
from forktrace.system.procfs import TICK_NS, Proc, boottime_ns, time_namespace_ns

STAT = "{pid} (x) S 1 {pid} {pid} 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0" + " 0" * 28


def put(root: Path, pid: int, uids: str, start: int = 700) -> None:
    """Put a process into a tree like /proc."""
    (root / str(pid)).mkdir(exist_ok=True)
    (root / str(pid) / "stat").write_text(STAT.format(pid=pid, start=start))
    (root / str(pid) / "status").write_text(f"Name:\tx\nUid:\t{uids}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """Two processes of user 7, one of root's, and two on their way from one to the other."""
    for pid, uids in {11: "7\t7\t7\t7", 12: "0\t0\t0\t0", 13: "7\t0\t0\t0", 14: "7\t7\t0\t7", 15: "7\t7\t7\t7"}.items():
        put(tmp_path, pid, uids)
    return Proc(str(tmp_path))


def following(*processes: tuple[int, int]) -> np.ndarray:
    """What the probes say they follow: number and start in ticks."""
    rows = [(pid, start * TICK_NS + 5) for pid, start in processes]
    return np.array(rows, [("pid", "<u4"), ("start_ns", "<u8")])


def test_ones_own(proc: Proc) -> None:
    """A process is somebody's when all four of its user numbers are; one that is gone is nobody's."""
    assert Ownership(7, proc).allowed([11, 12, 13, 14, 15, 16]) == [11, 15]
    assert Ownership(None, proc).allowed([11, 12, 16]) == [11, 12]
    Ownership(None, proc).require([11, 12, 16])
    Ownership(7, proc).require([11, 15])
    for pid in (12, 13, 14, 16):
        with pytest.raises(PermissionMissing, match=f"process {pid} is not yours"):
            Ownership(7, proc).require([11, pid])


def test_a_number_with_a_new_owner(proc: Proc) -> None:
    """What is followed by a number that was allowed has to be the process that it named then."""
    own = Ownership(7, proc)
    own.check(following((11, 3)))
    own.require([11, 15])
    own.check(following((11, 700), (99, 3)))
    with pytest.raises(PermissionMissing, match="process 15 has ended"):
        own.check(following((11, 700), (15, 701)))
    own.allowed([11])
    own.check(following((15, 701)))
    Ownership(None, proc).check(following((11, 3)))


def test_a_number_with_a_new_owner_in_the_same_tick(proc: Proc, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start is worth something when its tick is over: until then another process can have the number, and the same start."""
    now = boottime_ns() // TICK_NS
    put(Path(proc.root), 11, "7\t7\t7\t7", now)
    monkeypatch.setattr(ownership, "boottime_ns", lambda: now * TICK_NS)

    def pass_by(_: float) -> None:
        put(Path(proc.root), 11, "0\t0\t0\t0", now)
        monkeypatch.setattr(ownership, "boottime_ns", lambda: (now + 1) * TICK_NS)

    monkeypatch.setattr(ownership.time, "sleep", pass_by)
    assert Ownership(7, proc).allowed([11, 15]) == [15]


def test_arguments_of_a_number_with_a_new_owner(proc: Proc) -> None:
    """They are not taken for those of the process that had it before, which /proc may have shown and the new one not."""
    (Path(proc.root) / "11" / "cmdline").write_bytes(b"mysql\0-psecret\0")
    assert proc.argv_text(11, 700 * TICK_NS - time_namespace_ns()) == "mysql\0-psecret"
    assert proc.argv_text(11, 699 * TICK_NS - time_namespace_ns()) is None
    assert proc.argv_text(16, 700 * TICK_NS) is None
