"""The words with which record closes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traces import MS, recording, target

from forktrace.kernel.bpf_maps import Records
from forktrace.kernel.layout import layouts
from forktrace.recorder.closing import Closing, ending_of_zombie, unseen_reap, vanished
from forktrace.system.procfs import TICK_NS, Proc
from forktrace.trace import events as ev


@pytest.mark.parametrize(
    ("by", "call", "words"),
    [
        (3200, "wait4", "until 3200 reaped it with wait4"),
        (0, "waitid", "until another process reaped it with waitid"),
        (1, "unseen", "until 1 reaped it; that was not seen and may have been earlier"),
        (7, "kernel", "until the kernel released it: its PID namespace died"),
        (0, "", "and still is: nobody reaped it"),
    ],
)
def test_the_end_of_the_worst_zombie(by: int, call: str, words: str) -> None:
    """Who reaped it and how, as far as it is known."""
    assert ending_of_zombie(by, call) == words


def still(*rows: tuple[int, int, int, str]) -> Records:
    """The probes' entries of processes: number, start in clock ticks, exit (0: runs), what the parent does with SIGCHLD."""
    made = np.zeros(len(rows), layouts()["process"])
    for one, (pid, start_ticks, exit_ns, disposition) in zip(made, rows, strict=True):
        one["pid"], one["start_ns"], one["exit_ns"], one["zombie_ns"] = pid, start_ticks * TICK_NS + 5, exit_ns, exit_ns
        one["disposition"] = ev.DISPOSITIONS.index(disposition)
        one["parent_name"]["pid"], one["parent_name"]["start_ns"] = 100, 7
    return made


def test_zombies_that_nobody_saw_go(tmp_path: Path) -> None:
    """One whose number is free, or another's, is gone; what runs, is there, cannot be seen or needs no wait is left alone."""
    for pid in (500, 501):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (x) Z 1 {' '.join(['0'] * 17)} 30 {' '.join(['0'] * 40)}\n")
    (tmp_path / "506").mkdir()
    (tmp_path / "506" / "stat").mkdir()
    seen = still((500, 30, 9, "default"), (501, 29, 9, "default"), (502, 30, 9, "handler"), (503, 30, 0, "default"))
    seen = np.concatenate([seen, still((504, 30, 9, "ignored"), (505, 30, 9, "nocldwait"), (0, 30, 9, "default"))])
    assert [int(one["pid"]) for one in vanished(seen, Proc(str(tmp_path)))] == [501, 502]


def test_their_rows() -> None:
    """Such a reap is by its last parent, at the latest at the end of the recording: unseen, and not complete."""
    (one,) = still((500, 0, 20 * MS, "default"))
    rows = [
        target(),
        ev.fork(MS, 500, by=100, start_ns=5),
        ev.exit_(20 * MS, 500, parent=100),
        ev.zombie(20 * MS, 500, parent=100),
    ]
    made = recording(*rows, unseen_reap(one, 90 * MS) | {"by_start_ns": None}, ev.end(90 * MS)).lifecycles().set_index("pid")
    found = made.loc[500]
    assert (found.state, found.reap_call, found.reaper_pid, found.zombie_ms) == ("gone", "unseen", 100, 70.0)
    assert (found.complete, found.notes) == (False, "reap not seen; time is an upper bound")


def test_the_worst_is_not_one_that_is_gone() -> None:
    """The sentence is about a zombie that is still there."""
    closing, seen = Closing(), still((500, 30, 10 * MS, "default"), (501, 30, 20 * MS, "default"))
    closing.forget([(500, 30 * TICK_NS + 5)])
    closing.note_open(seen, 90 * MS)
    assert closing.worst() == "501 was a zombie for 70 ms, and still is: nobody reaped it"
