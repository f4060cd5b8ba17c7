"""The words with which record closes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traces import MS

from forktrace.kernel.bpf_maps import Records
from forktrace.kernel.layout import layouts
from forktrace.recorder.closing import Closing, ending_of_zombie, vanished
from forktrace.system.procfs import TICK_NS, Proc, Stat
from forktrace.trace import events as ev


@pytest.mark.parametrize(
    ("by", "call", "words"),
    [
        (3200, "wait4", "until 3200 reaped it with wait4"),
        (0, "waitid", "until another process reaped it with waitid"),
        (1, "unseen", "until 1 reaped it; that was not seen and may have been earlier"),
        (7, "kernel", "until the kernel released it: its PID namespace died"),
        (0, "", "and still is: nobody reaped it"),
        (0, "left", "until its parent ended without a wait"),
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


class Hidden(Proc):
    """A /proc that hides 506, as with hidepid."""

    def stat(self, pid: int) -> Stat | None:
        """Say what there is of a process."""
        if pid == 506:
            raise PermissionError
        return super().stat(pid)


def test_zombies_that_nobody_saw_go(tmp_path: Path) -> None:
    """One whose number is free, or another's, is gone; what runs, is there, or cannot be seen is left alone."""
    for pid in (500, 501):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} (x) Z 1 {' '.join(['0'] * 17)} 30 {' '.join(['0'] * 40)}\n")
    seen = still((500, 30, 9, "default"), (501, 29, 9, "default"), (502, 30, 9, "handler"), (503, 30, 0, "default"))
    seen = np.concatenate([seen, still((504, 30, 9, "ignored"), (506, 30, 9, "default"), (0, 30, 9, "default"))])
    assert sorted(pid for pid, _ in vanished(seen, Hidden(str(tmp_path)))) == [501, 502, 504]


def waits(*rows: dict[str, int | str]) -> Records:
    """The probes' records of waits: who reaps whom after how long, with which call, at which stack."""
    made = np.zeros(len(rows), layouts()["wait_record"])
    for one, row in zip(made, rows, strict=True):
        one["head"]["by"]["pid"], one["head"]["process"]["pid"] = row["by"], row["child"]
        one["ns_pid"] = one["target_pid"] = row["child"]
        one["head"]["time_ns"], one["zombie_ns"] = MS * (1 + int(row.get("ms", 0))), MS
        one["target"] = ev.TARGETS.index(str(row.get("target", "pid")))
        one["call"] = ev.CALLS.index(str(row.get("call", "wait4")))
        one["error"], one["head"]["stack"] = row.get("error", 0), row.get("stack", 0)
        one["head"]["stack_status"] = 0 if one["head"]["stack"] else ev.STACK_STATUSES.index("not-python")
    return made


def test_a_healthy_program_is_told_so() -> None:
    """What forktrace itself reaps says nothing of the program, and what the machine's init reaps when it likes says little."""
    closing = Closing(recorder=50, init=1)
    assert closing.words() == ["no zombie lasted longer than 10 ms"]
    closing.note(waits({"by": 50, "child": 100, "ms": 40}, {"by": 1, "child": 500, "ms": 8}))
    closing.note(waits({"by": 100, "child": 501, "ms": 9}))
    assert (closing.words(), closing.has_zombies) == (["no zombie lasted longer than 10 ms"], False)
    closing.note(waits({"by": 1, "child": 500, "ms": 3000}))
    elsewhere = "no zombie lasted longer than 10 ms but for what was reaped outside the recording, after at most 3.000 s"
    assert (closing.words(), closing.has_zombies) == ([elsewhere], False)
    late, one = Closing(), still((500, 0, 10 * MS, "default"))
    one["start_ns"] = 0
    late.note_late(one)
    late.note(waits({"by": 100, "child": 500, "ms": 3000, "call": "unseen"}))
    assert late.words() == [elsewhere]
    assert Closing(init=0).words() == ["no zombie lasted longer than 10 ms"]
    closing.note(waits({"by": 100, "child": 502, "ms": 11}))
    assert closing.words() == ["502 was a zombie for 11 ms, until 100 reaped it with wait4"]
    assert closing.has_zombies


def test_a_zombie_that_its_parent_left() -> None:
    """It is the program's until its parent ended, though init reaped it much later, and though nobody saw that."""
    left = ["500 was a zombie for 900 ms, until its parent ended without a wait"]
    closing = Closing(init=1)
    notified = np.zeros(2, layouts()["zombie_record"])
    notified["head"]["process"]["pid"], notified["head"]["time_ns"], notified["parent"]["pid"] = 500, (MS, 901 * MS), (100, 1)
    closing.note_inherited(notified)
    closing.note(waits({"by": 1, "child": 500, "ms": 3000}))
    assert (closing.words(), closing.has_zombies) == (left, True)
    late, one = Closing(init=1), still((500, 0, 10 * MS, "default"))
    one["start_ns"], one["notified_ns"] = 0, 901 * MS
    late.note_late(one)
    late.note(waits({"by": 100, "child": 500, "ms": 3000, "call": "unseen"}))
    assert (late.words(), late.has_zombies) == (left, True)


def test_what_init_inherited_and_was_never_seen_to_reap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones are kept alone: a recording of days has no end of them."""
    monkeypatch.setattr("forktrace.recorder.closing.MOST_KEPT", 2)
    closing, notified = Closing(init=1), np.zeros(5, layouts()["zombie_record"])
    notified["head"]["process"]["pid"], notified["head"]["time_ns"], notified["parent"]["pid"] = range(500, 505), 901 * MS, 1
    closing.note_inherited(notified)
    assert [pid for pid, _ in closing._inherited_ns] == [503, 504]


def test_what_matters_most_is_said() -> None:
    """A stolen exit status and zombies that nobody reaped come before the longest zombie that was reaped."""
    closing = Closing()
    closing.note(waits({"by": 100, "child": 500, "ms": 2000}, {"by": 100, "child": 501, "target": "any", "stack": 7}))
    closing.note_open(still((502, 30, 10 * MS, "default"), (503, 30, 20 * MS, "default")), 90 * MS)
    open_ = "502 was a zombie for 80 ms, and still is: nobody reaped it, one of 2"
    assert closing.words() == [open_]
    closing.note_waits(waits({"by": 100, "child": 501, "error": ev.ECHILD, "stack": 8}))
    assert closing.words() == ["1 exit status stolen: a wait for any child came first", open_]


@pytest.mark.parametrize(
    ("reap", "wait"),
    [
        ({"target": "pid", "stack": 7}, {"stack": 8}),  # it was asked for
        ({"target": "any", "stack": 7}, {"stack": 7}),  # the same line asks again
        ({"target": "any", "stack": 7}, {"stack": 8, "by": 101}),  # another process's number
        ({"target": "any", "stack": 7}, {"stack": 8, "error": 4}),  # interrupted
        ({"target": "any", "stack": 7}, {"stack": 8, "target": "any"}),
        ({"target": "any"}, {}),  # no Python
    ],
)
def test_what_is_no_theft(reap: dict[str, int | str], wait: dict[str, int | str]) -> None:
    """Only a wait for any child takes from another line, which then asks for that very child in vain."""
    closing = Closing()
    closing.note(waits({"by": 100, "child": 500} | reap))
    closing.note_waits(waits({"by": 100, "child": 500, "error": ev.ECHILD} | wait))
    assert "stolen" not in closing.words()[0]


def test_a_number_that_is_used_again_is_another_child() -> None:
    """A child that was asked for is taken from nobody, though one with its number was before."""
    closing = Closing()
    closing.note(waits({"by": 100, "child": 500, "target": "any", "stack": 7}))
    closing.note(waits({"by": 100, "child": 500, "stack": 9}))
    closing.note_waits(waits({"by": 100, "child": 500, "error": ev.ECHILD, "stack": 8}))
    assert "stolen" not in closing.words()[0]
