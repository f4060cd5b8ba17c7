"""The lifecycle table: each test is one rule of DESIGN.md, section 4."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from traces import BOOT_NS, MS, cells, recording, target

from forktrace.analysis.tables import lifecycles
from forktrace.errors import TraceError
from forktrace.trace import events as ev


def row(pid: int, *rows: ev.Row, of: int = 0, closed: bool = True) -> dict[str, Any]:
    """Return what the table says of the `of`-th process with this number, without what it does not say."""
    table = recording(*rows, closed=closed).lifecycles()
    found = table[table["pid"] == pid].iloc[of].to_dict()
    return {name: value for name, value in found.items() if not pd.isna(value)}


def says(found: dict[str, Any], **expected: Any) -> None:
    """Compare some columns; None: the row must not say anything there."""
    assert {name: found.get(name) for name in expected} == expected


def dead(pid: int, fork_ns: int = 10 * MS, exit_ns: int = 20 * MS, status: int = 0, **fork: Any) -> list[ev.Row]:
    """Return a child of the target that forks and becomes a zombie 1 ms after its exit."""
    rows = [ev.fork(fork_ns, pid, by=100, comm="child", **fork), ev.exit_(exit_ns, pid, status, parent=100)]
    return [*rows, ev.zombie(exit_ns + MS, pid, parent=100)]


def test_whole_row() -> None:
    """A child that was forked, ran a program, exited 3, was polled twice and reaped has every column that a trace can fill."""
    found = row(
        500,
        target(cgroup="/user"),
        ev.exec_(1 * MS, 100, ["python", "consumer.py"]),
        ev.fork(10 * MS, 500, by=100, by_tid=105, call="clone3", comm="python", cgroup="/user", ns_pid=7),
        ev.exec_(12 * MS, 500, ["sh", "-c", "exit 3"], file="/bin/sh", cgroup="/user/sh"),
        ev.exit_(20 * MS, 500, 3 << 8, parent=100, utime_ns=1_500_000, stime_ns=500_000, max_rss_kb=9000),
        ev.zombie(21 * MS, 500, parent=100),
        ev.reap(90 * MS, 500, by=100, by_tid=106, options=1 | 0x40000000, empty=2),
    )
    assert found == {
        "id": 1,
        "parent_id": 0,
        "pid": 500,
        "ns_pid": 7,
        "ppid": 100,
        "forker_pid": 100,
        "forker_tid": 105,
        "comm": "sh",
        "argv": "sh -c 'exit 3'",
        "cgroup": "/user/sh",
        "origin": "forked",
        "fork_time": pd.Timestamp(BOOT_NS + 10 * MS, tz="UTC"),
        "fork_ns": 10 * MS,
        "exec_ns": 12 * MS,
        "exit_ns": 20 * MS,
        "zombie_ns": 21 * MS,
        "reap_ns": 90 * MS,
        "run_ms": 10.0,
        "zombie_ms": 69.0,
        "own_zombie_ms": 69.0,
        "zombie_open": False,
        "fork_call": "clone3",
        "created_by": "unknown",
        "exit_code": 3,
        "core_dumped": False,
        "exit_path": "unknown",
        "reaper_pid": 100,
        "reaper_tid": 106,
        "reaper_id": 0,
        "reap_call": "wait4",
        "reap_target": "pid",
        "reap_options": "WNOHANG|__WALL",
        "reap_cause": "unknown",
        "empty_waits": 2,
        "utime_ms": 1.5,
        "stime_ms": 0.5,
        "max_rss_kb": 9000,
        "state": "gone",
        "carried": False,
        "complete": True,
    }


@pytest.mark.parametrize("rows", [[], [target(), *dead(500)]])
def test_columns_and_dtypes(rows: list[ev.Row]) -> None:
    """The columns are those of the contract, in order, with their dtypes, also of a trace without any process."""
    table = recording(*rows).lifecycles()
    expected = {name: "category" if isinstance(dtype, tuple) else dtype for name, dtype in lifecycles.COLUMNS.items()}
    assert {name: str(dtype) for name, dtype in table.dtypes.items()} == expected
    assert list(table.columns) == list(lifecycles.COLUMNS)
    assert len(table) == len({r["pid"] for r in rows})


def test_a_trace_without_stacks() -> None:
    """What follows from stacks is empty or unknown; a zombie that nobody reaped needs none."""
    table = recording(target(), *dead(500), *dead(501, 12 * MS), ev.reap(30 * MS, 501, by=100)).lifecycles()
    names = "fork_site fork_stack fork_stack_status exit_site killer_site reap_site reap_stack reap_stack_status".split()
    assert table[names].isna().all(axis=None)
    assert cells(table, "created_by", "exit_path", "reap_cause") == [
        (None, None, None),
        ("unknown", "unknown", "never"),
        ("unknown", "unknown", "unknown"),
    ]


def test_fork_order_is_the_order_of_starts() -> None:
    """Rows come in the order of their starts, and ids are positions."""
    table = recording(target(), ev.fork(30 * MS, 501, by=100), ev.fork(40 * MS, 400, by=100, start_ns=20 * MS)).lifecycles()
    assert table["pid"].tolist() == [100, 400, 501]
    assert table["id"].tolist() == [0, 1, 2]


def test_number_used_again() -> None:
    """A number that is used again names two processes; each gets its own exit, zombie and reap."""
    rows = [target(), *dead(500), ev.reap(30 * MS, 500, by=100), *dead(500, 40 * MS, 50 * MS, 9), ev.reap(60 * MS, 500, by=100)]
    says(row(500, *rows), fork_ns=10 * MS, exit_ns=20 * MS, reap_ns=30 * MS, exit_code=0, term_signal=None)
    says(row(500, *rows, of=1), fork_ns=40 * MS, exit_ns=50 * MS, reap_ns=60 * MS, exit_code=None, term_signal="SIGKILL")


def test_reap_arrives_after_the_number_is_used_again() -> None:
    """The wait returns after the kernel gave the number away: the reap belongs to the process that has exited."""
    rows = [target(), *dead(500), ev.fork(29 * MS, 500, by=100), ev.reap(30 * MS, 500, by=100)]
    says(row(500, *rows), reap_ns=30 * MS, state="gone")
    says(row(500, *rows, of=1), fork_ns=29 * MS, reap_ns=None, state="running")


def test_forker_and_parent_differ() -> None:
    """With CLONE_PARENT the real parent is the forker's parent; the forker is kept beside it."""
    rows = [target(), ev.fork(10 * MS, 200, by=100), ev.fork(20 * MS, 300, by=200, parent=100)]
    says(row(300, *rows), parent_id=0, ppid=100, forker_pid=200, forker_tid=200)


def test_parent_outside_the_recording() -> None:
    """The target's parent has a number and no row, even when a followed process had that number and is gone."""
    says(row(100, target()), parent_id=None, ppid=50, forker_pid=50)
    used = [target(), *dead(500), ev.reap(30 * MS, 500, by=100), ev.fork(40 * MS, 600, by=100, parent=500)]
    says(row(600, *used), parent_id=None, ppid=500)


def test_argv_is_inherited_over_generations() -> None:
    """Who never ran a program has the arguments that its forker had at the fork, however far back these were set."""
    rows = [
        target(),
        ev.fork(5 * MS, 90, by=100),
        ev.exec_(10 * MS, 100, ["a b", "1"]),
        ev.fork(20 * MS, 200, by=100),
        ev.exec_(25 * MS, 100, ["later"]),
        ev.fork(30 * MS, 300, by=200),
        ev.fork(40 * MS, 400, by=300),
    ]
    table = recording(*rows).lifecycles().set_index("pid")
    assert table["argv"].fillna("?").to_dict() == {100: "later", 90: "?", 200: "'a b' 1", 300: "'a b' 1", 400: "'a b' 1"}


def test_last_program_and_name_count() -> None:
    """After two execs the second is the one; a name in the exit row is later still."""
    rows = [target(), ev.exec_(1 * MS, 100, ["env"]), ev.exec_(2 * MS, 100, ["python", "x.py"])]
    says(row(100, *rows), comm="python", argv="python x.py", exec_ns=2 * MS)
    says(row(100, *rows, ev.exit_(3 * MS, 100, comm="renamed")), comm="renamed")


def test_the_name_is_that_of_the_leader() -> None:
    """Threads have names of their own: that of one that died last is not the process's."""
    rows = [target(), ev.exec_(1 * MS, 100, ["python", "x.py"])]
    says(row(100, *rows, ev.exit_(3 * MS, 100, comm="worker-3", by_tid=103)), comm="python")
    says(row(100, *rows, ev.exit_(3 * MS, 100, comm="renamed", by_tid=100)), comm="renamed")
    assert recording(*rows, ev.exit_(3 * MS, 100, comm="worker-3", by_tid=103)).processes_at(3 * MS)["comm"].tolist() == [
        "python"
    ]


def test_what_the_forker_was() -> None:
    """Its name when it forked, where it has run another program since; else nothing."""
    rows = [target(), ev.exec_(1 * MS, 100, ["bash"]), ev.fork(2 * MS, 500, by=100), ev.fork(2 * MS + 1, 501, by=500)]
    rows += [ev.exec_(3 * MS, 100, ["python3"]), ev.fork(4 * MS, 502, by=100), ev.exec_(5 * MS, 500, ["sleep"])]
    table = recording(*rows).lifecycles().set_index("pid")
    assert table["fork_comm"].fillna("").to_dict() == {100: "", 500: "bash", 501: "", 502: ""}


def test_arguments_that_were_cut() -> None:
    """Arguments beyond 4 KiB are marked, and the row stays complete."""
    says(row(100, target(), ev.exec_(1 * MS, 100, ["x"], detail="argv cut")), notes="argv cut", complete=True)


@pytest.mark.parametrize(
    ("status", "code", "signal", "core"),
    [(0, 0, None, False), (255 << 8, 255, None, False), (15, None, "SIGTERM", False), (0x8B, None, "SIGSEGV", True)],
)
def test_wait_status(status: int, code: int | None, signal: str | None, core: bool) -> None:
    """A wait status becomes a code or a signal, never both."""
    says(row(500, target(), *dead(500, status=status)), exit_code=code, term_signal=signal, core_dumped=core)


def test_open_zombie_ages_until_the_end() -> None:
    """A zombie that nobody reaped is open, and its age so far is its time."""
    found = row(500, target(), *dead(500), ev.end(121 * MS), closed=False)
    says(found, zombie_ns=21 * MS, zombie_ms=100.0, zombie_open=True, reap_ns=None, reap_call=None, state="zombie")


def test_running_at_the_end() -> None:
    """A process that still runs has neither exit nor zombie time."""
    found = row(500, target(), ev.fork(10 * MS, 500, by=100))
    says(found, state="running", run_ms=None, zombie_ms=None, zombie_open=False, complete=True)


def test_later_notifications_are_hand_overs() -> None:
    """The first zombie event is the one; the second tells the adopter."""
    rows = [target(), *dead(500), ev.zombie(40 * MS, 500, parent=1), ev.reap(50 * MS, 500, by=1)]
    says(row(500, *rows), zombie_ns=21 * MS, zombie_ms=29.0)


def test_no_exit_signal() -> None:
    """Without an exit signal nobody is notified: the zombie counts from its exit, and that is exact."""
    rows = [target(), ev.fork(10 * MS, 500, by=100, signal=0), ev.exit_(20 * MS, 500), ev.reap(30 * MS, 500, by=100)]
    says(row(500, *rows), zombie_ns=20 * MS, zombie_ms=10.0, notes="no exit signal", complete=True)


def test_notification_that_was_not_seen() -> None:
    """A reaped child without a zombie event counts from its exit, and says that this is a stand-in."""
    rows = [target(), ev.fork(10 * MS, 500, by=100), ev.exit_(20 * MS, 500), ev.reap(30 * MS, 500, by=100)]
    note = "notification not seen; zombie counted from the exit"
    says(row(500, *rows), zombie_ns=20 * MS, zombie_ms=10.0, notes=note, complete=False)


def test_ignored_sigchld_leaves_no_zombie() -> None:
    """Under a parent that ignores SIGCHLD a child is never a zombie: no zombie time, released at the autoreap, by nobody."""
    rows = [target(), ev.fork(10 * MS, 500, by=100), ev.exit_(20 * MS, 500, disposition="ignored"), ev.autoreap(21 * MS, 500)]
    found = row(500, *rows)
    says(found, zombie_ns=None, zombie_ms=None, zombie_open=False, reap_ns=21 * MS, reap_call="autoreap", state="gone")
    says(found, reaper_pid=None, reaper_tid=None, reap_target=None, reap_options=None, complete=True, notes=None)


def test_ignored_sigchld_without_its_autoreap() -> None:
    """When only the disposition tells, the process is gone, the moment unknown and the row not complete."""
    found = row(500, target(), ev.fork(10 * MS, 500, by=100), ev.exit_(20 * MS, 500, disposition="ignored"))
    says(found, state="gone", reap_call="autoreap", reap_ns=None, zombie_ns=None, zombie_open=False, complete=False)
    assert found["notes"] == "release not seen; inferred from the ignored SIGCHLD"


def test_ignored_sigchld_means_nothing_to_another_exit_signal() -> None:
    """The kernel looks at SIGCHLD's disposition only when SIGCHLD is the exit signal."""
    rows = [target(), ev.fork(10 * MS, 500, by=100, signal=10), ev.exit_(20 * MS, 500, disposition="ignored")]
    says(row(500, *rows), state="zombie", reap_call=None)


def test_zombie_before_an_autoreap() -> None:
    """A zombie can end as an autoreap: when the adopter that inherits it ignores SIGCHLD."""
    says(row(500, target(), *dead(500), ev.autoreap(40 * MS, 500)), zombie_ms=19.0, reap_call="autoreap", state="gone")


def test_real_reap_beats_later_guesses() -> None:
    """`unseen` and `kernel` give way to a wait that was seen, before or after."""
    for guess in ("unseen", "kernel"):
        late = [target(), *dead(500), ev.reap(30 * MS, 500, by=100), ev.reap(45 * MS, 500, by=100, call=guess)]
        says(row(500, *late), reap_ns=30 * MS, reap_call="wait4", complete=True, notes=None)
        early = [target(), *dead(500), ev.reap(30 * MS, 500, by=100, call=guess), ev.reap(31 * MS, 500, by=100)]
        says(row(500, *early), reap_ns=31 * MS, reap_call="wait4", complete=True, notes=None)


def test_unseen_reap() -> None:
    """A reap that was not seen is the last parent's, at an upper bound, by a thread that is not known."""
    found = row(500, target(), *dead(500), ev.reap(45 * MS, 500, by=100, call="unseen", target=None))
    says(found, reap_ns=45 * MS, zombie_ms=24.0, reap_call="unseen", reaper_pid=100, reaper_id=0, reaper_tid=None)
    says(found, reap_target=None, reap_options=None, complete=False, notes="reap not seen; time is an upper bound")


def test_unseen_reap_that_names_nobody() -> None:
    """Where the trace does not name the reaper it is the last parent: here pid 1, which adopted the orphan."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), ev.fork(10 * MS, 500, by=200), ev.exit_(15 * MS, 200, adopter=1)]
    rows += [ev.zombie(15 * MS, 200), ev.exit_(20 * MS, 500, parent=1), ev.zombie(21 * MS, 500, parent=1)]
    says(row(500, *rows, ev.reap(45 * MS, 500, call="unseen")), reaper_pid=1, reaper_id=None, adopter_pid=1)


def test_kernel_reap() -> None:
    """The kernel itself waits when a PID namespace dies, and before its init becomes a zombie, however late that is told."""
    released = [target(), *dead(500), ev.reap(30 * MS, 500, by=100, call="kernel")]
    says(row(500, *released), reap_call="kernel", reap_ns=30 * MS, complete=True)
    says(row(500, *released, ev.exit_(24 * MS, 100), ev.zombie(25 * MS, 100)), reap_ns=25 * MS, zombie_ms=4.0)
    says(row(500, *released, ev.exit_(31 * MS, 100), ev.zombie(32 * MS, 100)), reap_ns=30 * MS)


def test_wait_without_a_name_explains_an_unseen_reap() -> None:
    """A waitid that did not say which child it took is the reaper of the zombie that turns out to be gone."""
    rows = [target(), *dead(500), ev.wait(30 * MS, None, by=100, call="waitid", target="any", flags=4)]
    found = row(500, *rows, ev.reap(45 * MS, 500, by=100, call="unseen"))
    says(found, reap_ns=30 * MS, reap_call="waitid", reap_target="any", reap_options="WEXITED", reaper_tid=100)
    says(found, complete=False, notes="reap inferred: the wait did not name its child")


def test_wait_with_a_bad_pointer_explains_an_unseen_reap() -> None:
    """wait4 that returns EFAULT has released the child all the same; of several zombies the one it asked for."""
    rows = [target(), *dead(500), *dead(501), ev.wait(30 * MS, None, by=100, result=14, target_pid=501)]
    rows += [ev.reap(45 * MS, one, by=100, call="unseen") for one in (500, 501)]
    says(row(501, *rows), reap_ns=30 * MS, reap_call="wait4")
    says(row(500, *rows), reap_ns=45 * MS, reap_call="unseen")


def test_each_wait_without_a_name_takes_one_zombie() -> None:
    """Two such waits explain two zombies, the first forked first; the third zombie stays unseen."""
    rows = [target(), *dead(500, 10 * MS), *dead(501, 11 * MS), *dead(502, 12 * MS)]
    rows += [ev.wait(time * MS, None, by=100, call="waitid", target="any", flags=4) for time in (30, 31)]
    rows += [ev.reap(45 * MS, one, by=100, call="unseen") for one in (500, 501, 502)]
    table = recording(*rows).lifecycles().set_index("pid")
    assert (table["reap_ns"] // MS).dropna().to_dict() == {500: 30, 501: 31, 502: 45}


@pytest.mark.parametrize(
    "wait",
    [
        ev.wait(30 * MS, None, by=100, result=10),
        ev.wait(30 * MS, None, by=100, call="waitid", flags=0x1000004),
        ev.wait(19 * MS, None, by=100, target="any"),
        ev.wait(30 * MS, None, by=200, target="any"),
        ev.wait(30 * MS, None, by=100, target_pid=501),
        ev.wait(50 * MS, None, by=100, target="any"),
    ],
    ids=["ECHILD", "WNOWAIT", "before the death", "somebody else's", "for another child", "too late"],
)
def test_waits_that_explain_nothing(wait: ev.Row) -> None:
    """A wait that failed, peeked, came too early or was meant for others did not take the zombie."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), *dead(500), wait, ev.reap(45 * MS, 500, by=100, call="unseen")]
    says(row(500, *rows), reap_call="unseen", reap_ns=45 * MS)


def test_a_wait_of_the_adopter_explains_an_unseen_reap() -> None:
    """The zombie may be one that the waiting process adopted; what waits outside explains nothing."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), *dead(500, parent=200), ev.exit_(25 * MS, 200, adopter=100)]
    rows += [ev.zombie(26 * MS, 200), ev.wait(30 * MS, None, by=100, call="waitid", target="any", flags=4)]
    says(row(500, *rows, ev.reap(45 * MS, 500, by=100, call="unseen")), reap_ns=30 * MS, reaper_id=0)
    outside = [target(), ev.exit_(20 * MS, 100), ev.wait(30 * MS, None, by=77, target="any")]
    says(row(100, *outside, ev.reap(45 * MS, 100, by=50, call="unseen")), reap_call="unseen", reaper_pid=50)


def test_a_reap_beats_an_ignored_sigchld() -> None:
    """What was reaped by a wait was a zombie, whatever its parent's disposition was."""
    rows = [
        target(),
        ev.fork(10 * MS, 500, by=100),
        ev.exit_(20 * MS, 500, disposition="ignored"),
        ev.reap(30 * MS, 500, by=100),
    ]
    says(row(500, *rows), zombie_ns=20 * MS, zombie_ms=10.0, reap_call="wait4")


def test_no_negative_times() -> None:
    """Two CPUs may write a reap just before the notification: that is no time at all."""
    rows = [target(), ev.fork(10 * MS, 500, by=100), ev.exit_(20 * MS, 500), ev.reap(21 * MS, 500, by=100)]
    says(row(500, *rows, ev.zombie(21 * MS + 900, 500)), zombie_ms=0.0, reap_ns=21 * MS)


def test_a_tracers_wait_is_no_reap() -> None:
    """Stops, continues, peeks and what a tracer is told are `wait` rows: the zombie stays until its reap."""
    rows = [target(), ev.fork(10 * MS, 500, by=100), ev.wait(15 * MS, 500, by=100, status=0x137F)]
    rows += [ev.exit_(20 * MS, 500), ev.zombie(21 * MS, 500), ev.wait(22 * MS, 500, by=100, call="waitid", flags=0x1000004)]
    says(row(500, *rows, ev.reap(40 * MS, 500, by=100)), reap_ns=40 * MS, zombie_ms=19.0)


def test_empty_waits_of_a_living_child() -> None:
    """Of a child that was never reaped the polls are in its running total, of which the last counts."""
    rows = [target(), ev.fork(10 * MS, 500, by=100), ev.waits(20 * MS, 3, pid=500), ev.waits(30 * MS, 8, pid=500)]
    says(row(500, *rows), empty_waits=8)


def test_adopter_is_the_last_parent() -> None:
    """When the parent dies first its adopter is the last parent, over a chain of adopters."""
    rows = [
        target(),
        ev.fork(5 * MS, 200, by=100),
        ev.fork(6 * MS, 300, by=200),
        ev.fork(10 * MS, 500, by=300),
        ev.exit_(20 * MS, 300, adopter=200),
        ev.zombie(21 * MS, 300),
        ev.exit_(30 * MS, 200, adopter=1),
        ev.zombie(31 * MS, 200),
    ]
    says(row(500, *rows), ppid=300, parent_id=2, adopter_pid=1, adopter_id=None)
    says(row(300, *rows), adopter_pid=1)
    says(row(500, *rows[:6]), adopter_pid=200, adopter_id=1)


def test_reaped_before_the_parent_died() -> None:
    """Who was reaped before the parent's own notification was never reparented."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), ev.fork(10 * MS, 500, by=200), ev.exit_(11 * MS, 500)]
    rows += [ev.zombie(12 * MS, 500), ev.reap(13 * MS, 500, by=200), ev.exit_(14 * MS, 200, adopter=1), ev.zombie(15 * MS, 200)]
    says(row(500, *rows), adopter_pid=None, adopter_id=None)


def test_the_kernels_word_beats_the_derived_adopter() -> None:
    """The parent in the child's own exit row is the real one, whatever its dead parent's exit row named."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), ev.fork(10 * MS, 500, by=200), ev.exit_(14 * MS, 200, adopter=1)]
    rows += [ev.zombie(15 * MS, 200), ev.exit_(20 * MS, 500, parent=100)]
    says(row(500, *rows), adopter_pid=100, adopter_id=0)


def test_adopters_that_name_each_other() -> None:
    """A trace that contradicts itself ends the chain where an adopter is no ancestor."""
    rows = [target(), *(ev.fork(pid, pid, by=100) for pid in (200, 300, 400)), ev.fork(10 * MS, 500, by=200)]
    rows += [ev.exit_(15 * MS, 400, adopter=300), ev.exit_(20 * MS, 200, adopter=300)]
    rows += [ev.exit_(30 * MS, 300, adopter=400, adopter_start_ns=400)]
    says(row(500, *rows), adopter_pid=300)


def overtaken() -> list[ev.Row]:
    """500's parent names an adopter that dies before it hands its children over: it goes to the adopter of that one."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), ev.fork(6 * MS, 300, by=200), ev.fork(7 * MS, 500, by=300)]
    rows += [ev.exit_(20 * MS, 300, adopter=200), ev.exit_(21 * MS, 200, adopter=100), ev.zombie(22 * MS, 200)]
    return [*rows, ev.zombie(23 * MS, 300)]


def test_an_adopter_that_dies_meanwhile() -> None:
    """Between a parent's exit and the handing over of its children the adopter that it named can die."""
    says(row(500, *overtaken()), adopter_pid=100, adopter_id=0)


def test_an_adopter_whose_death_nobody_was_told_of() -> None:
    """Its exit is not yet its handing over of children, so it may have had them; the last parent is who reaps."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), ev.fork(6 * MS, 300, by=200), ev.fork(7 * MS, 500, by=300)]
    rows += [ev.exit_(20 * MS, 300, adopter=200), ev.exit_(21 * MS, 200, adopter=100), ev.zombie(22 * MS, 300)]
    rows += [ev.autoreap(21 * MS, 200), ev.reap(30 * MS, 500, by=100)]
    made = recording(*rows)
    assert cells(made.orphans(), "id", "adopter_id")[-2:] == [(3, 1), (3, 0)]
    says(row(500, *rows), adopter_pid=100, adopter_id=0)


def test_an_adopter_that_becomes_one_meanwhile() -> None:
    """Between a parent's exit and the handing over of its children a nearer ancestor can become a subreaper."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), ev.fork(6 * MS, 300, by=200), ev.fork(7 * MS, 400, by=300)]
    rows += [ev.fork(8 * MS, 500, by=400), ev.exit_(10 * MS, 400, adopter=200), ev.zombie(11 * MS, 400)]
    rows += [ev.exit_(12 * MS, 200, adopter=100), ev.zombie(12 * MS, 200), ev.exit_(13 * MS, 500, parent=300)]
    rows += [ev.zombie(13 * MS, 500, parent=300), ev.exit_(14 * MS, 300, adopter=100), ev.zombie(14 * MS, 300)]
    made = recording(*rows, ev.reap(30 * MS, 500, by=100))
    orphans = made.orphans()
    assert cells(orphans[orphans["id"] == 4], "adopter_pid") == [(300,), (100,)]


def test_who_reaps_is_the_parent() -> None:
    """A wait call takes only children of the caller, whatever the exit rows say of adopters."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), ev.fork(6 * MS, 300, by=200), ev.fork(7 * MS, 500, by=300)]
    rows += [ev.exit_(20 * MS, 300, adopter=200), ev.zombie(21 * MS, 300), ev.exit_(22 * MS, 500, parent=200)]
    reaped = ev.reap(30 * MS, 500, by=100)
    says(row(500, *rows, ev.zombie(23 * MS, 500, parent=200), reaped), adopter_pid=100, adopter_id=0)
    says(row(500, *rows, ev.reap(30 * MS, 500, by=100, call="unseen")), adopter_pid=200, adopter_id=1)


def test_the_own_part_of_a_zombie_time() -> None:
    """What a process outside reaped was the program's until it inherited it; an unseen reap until the last reparenting."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), ev.fork(10 * MS, 500, by=200), ev.exit_(20 * MS, 500, parent=200)]
    rows.append(ev.zombie(21 * MS, 500, parent=200))
    inherited = [ev.exit_(60 * MS, 200, adopter=1), ev.zombie(60 * MS, 200), ev.zombie(60 * MS, 500, parent=1)]
    for call in ("wait4", "unseen"):
        says(row(500, *rows, *inherited, ev.reap(90 * MS, 500, by=1, call=call)), zombie_ms=69.0, own_zombie_ms=39.0)
    says(row(500, *rows, ev.reap(90 * MS, 500, by=200)), zombie_ms=69.0, own_zombie_ms=69.0)
    says(row(500, *rows, ev.reap(90 * MS, 500, by=200, call="unseen")), zombie_ms=69.0, own_zombie_ms=0.0)
    within = [ev.exit_(60 * MS, 200, adopter=100), ev.zombie(60 * MS, 200), ev.zombie(60 * MS, 500, parent=100)]
    says(row(500, *rows, *within, ev.reap(90 * MS, 500, by=100)), own_zombie_ms=69.0)
    says(row(500, *rows, *inherited, ev.end(99 * MS), closed=False), zombie_ms=78.0, own_zombie_ms=78.0, zombie_open=True)
    says(row(500, *rows[:3], ev.end(99 * MS), closed=False), own_zombie_ms=None)


def test_released_at_the_handing_over() -> None:
    """A zombie that its adopter dropped as it got it, just before the parent's own notification, was reparented."""
    rows = [
        target(),
        ev.fork(5 * MS, 200, by=100),
        ev.fork(10 * MS, 500, by=200),
        ev.exit_(11 * MS, 500),
        ev.zombie(11 * MS, 500),
    ]
    rows += [ev.exit_(20 * MS, 200, adopter=1), ev.autoreap(21 * MS, 500), ev.zombie(22 * MS, 200)]
    says(row(500, *rows), adopter_pid=1, reap_call="autoreap", zombie_ms=10.0)


def test_ignored_by_its_parent_and_by_who_inherits() -> None:
    """Gone before its parent died a child is nobody's orphan; one that was not is released by its adopter."""
    born = [
        target(),
        ev.fork(5 * MS, 200, by=100),
        ev.fork(10 * MS, 500, by=200),
        ev.exit_(20 * MS, 500, disposition="ignored"),
    ]
    dead = [ev.exit_(21 * MS, 200, adopter=100, disposition="ignored"), ev.autoreap(21 * MS, 200)]
    before = row(500, *born, ev.autoreap(20 * MS, 500, parent_pid=200), *dead)
    says(before, adopter_pid=None, adopter_id=None, reap_call="autoreap", notes=None)
    after = row(500, *born, *dead, ev.autoreap(21 * MS, 500, parent_pid=100))
    says(after, adopter_pid=100, adopter_id=0, reap_call="autoreap", notes=None)


def test_parent_that_died_unseen() -> None:
    """The target's own parent may die outside: the parent in its exit row is the last."""
    says(row(100, target(), ev.exit_(20 * MS, 100, parent=1)), ppid=50, adopter_pid=1, adopter_id=None)


def test_notified_while_the_parent_dies() -> None:
    """A child that dies while its adopter dies still belongs to that one, and then to the next."""
    rows = [target(), ev.fork(5 * MS, 200, by=100), ev.fork(6 * MS, 300, by=200), ev.fork(10 * MS, 500, by=300)]
    rows += [ev.exit_(20 * MS, 300, adopter=200), ev.zombie(21 * MS, 300), ev.exit_(30 * MS, 200, adopter=1)]
    rows += [ev.exit_(31 * MS, 500, parent=200), ev.zombie(31 * MS, 500, parent=200), ev.zombie(32 * MS, 200)]
    says(row(500, *rows), adopter_pid=1, adopter_id=None)


def test_killer() -> None:
    """The killer sent the last signal of the number that ended the process, up to its exit."""
    rows = [
        target(),
        ev.fork(5 * MS, 200, by=100),
        ev.fork(10 * MS, 500, by=100),
        ev.signal(11 * MS, 500, 15, by=100),
        ev.signal(12 * MS, 500, 15, by=200),
        ev.signal(13 * MS, 500, 9, by=100),
        ev.exit_(20 * MS, 500, 15),
        ev.signal(21 * MS, 500, 15, by=100),
    ]
    says(row(500, *rows), term_signal="SIGTERM", killer_kind="process", killer_pid=200, killer_id=1)


def test_killer_of_one_that_caught_it() -> None:
    """A process that exits with a code was not killed, whatever was sent."""
    says(
        row(500, target(), ev.fork(MS, 500, by=100), ev.signal(2 * MS, 500, 15, by=100), ev.exit_(3 * MS, 500)),
        killer_kind=None,
    )


def test_killed_by_the_kernel_or_oom() -> None:
    """A fault is the kernel's doing; a SIGKILL of the kernel is the OOM killer's where that chose the process."""
    start = [target(), ev.fork(1 * MS, 500, by=100)]
    fault = [*start, ev.signal(2 * MS, 500, 11, sent_by="kernel"), ev.exit_(3 * MS, 500, 0x8B)]
    says(row(500, *fault), killer_kind="kernel", killer_pid=None)
    oom = [*start, ev.signal(2 * MS, 500, 9, sent_by="kernel"), ev.oom(2 * MS, 500), ev.exit_(3 * MS, 500, 9)]
    says(row(500, *oom), killer_kind="oom", killer_pid=None)
    survived = [*start, ev.oom(2 * MS, 500), ev.signal(3 * MS, 500, 9, by=100), ev.exit_(4 * MS, 500, 9)]
    says(row(500, *survived), killer_kind="process", killer_pid=100)


@pytest.mark.parametrize(
    ("origin", "note"), [("attached", "started before the recording"), ("adopted", "forked outside the recording")]
)
def test_origins_that_are_not_complete(origin: str, note: str) -> None:
    """What a process did before it was followed is not in the trace."""
    found = row(500, target(), ev.fork(90 * MS, 500, parent=100, origin=origin, start_ns=5 * MS, call=None))
    says(found, origin=origin, fork_ns=5 * MS, forker_pid=0, fork_call=None, notes=note, complete=False)


FOUND = [
    ev.fork(90 * MS, 100, origin="attached", start_ns=1 * MS, call=None, argv="python3\0consumer.py"),
    ev.fork(90 * MS, 500, parent=100, origin="attached", start_ns=5 * MS, call=None),
]


@pytest.mark.parametrize(
    ("detail", "note"),
    [
        (ev.FOUND_DEAD[0], "found as a zombie; its exit time is an upper bound"),
        (ev.FOUND_DEAD[1], "found as a zombie; its exit time is estimated"),
    ],
)
@pytest.mark.parametrize("disposition", ["default", "ignored"])
def test_zombies_that_were_there(detail: str, note: str, disposition: str) -> None:
    """A zombie found at the attach is one since its exit, also where its parent ignores SIGCHLD by now or hands it on."""
    rows = [*FOUND, ev.exit_(60 * MS, 500, 0x300, parent=100, detail=detail, disposition=disposition)]
    note = f"started before the recording; {note}"
    found = row(500, *rows, ev.exit_(95 * MS, 100, adopter=1), ev.zombie(96 * MS, 500, parent=1), ev.end(100 * MS))
    says(found, exit_ns=60 * MS, zombie_ns=60 * MS, exit_code=3, notes=note, complete=False, state="zombie")
    reaped = row(500, *rows, ev.reap(98 * MS, 500, by=100))
    says(reaped, zombie_ms=38.0, state="gone", reap_call="wait4", reap_cause="unknown", notes=note)


def test_program_of_what_ran_already() -> None:
    """The arguments come with the first row of an attached process, and its children have them; those of a zombie are gone."""
    rows = [*FOUND, ev.fork(95 * MS, 501, by=100), ev.fork(96 * MS, 502, by=100), ev.exec_(97 * MS, 502, ["true"])]
    table = recording(*rows).lifecycles().set_index("pid")
    assert table["argv"].fillna("?").to_dict() == {
        100: "python3 consumer.py",
        500: "?",
        501: "python3 consumer.py",
        502: "true",
    }


def test_loss_marks_who_was_forked_before_it() -> None:
    """A loss lies anywhere between its row and the one before of the same kind: only who was forked after it is complete."""
    rows = [target(), *dead(500, 1 * MS, 2 * MS), ev.reap(4 * MS, 500, by=100), ev.lost(5 * MS, 1, "zombie")]
    rows += [
        *dead(501, 6 * MS, 7 * MS),
        ev.reap(9 * MS, 501, by=100),
        *dead(502, 10 * MS, 11 * MS),
        ev.lost(12 * MS, 2, "exit"),
    ]
    rows += [ev.lost(15 * MS, 3, "exit"), *dead(503, 16 * MS, 17 * MS)]
    table = recording(*rows).lifecycles().set_index("pid")
    assert table["complete"].to_dict() == {100: False, 500: False, 501: False, 502: False, 503: True}
    assert table["notes"].dropna().unique().tolist() == ["events were lost while it lived"]
    ending = [target(), ev.lost(5 * MS, 1, "exit"), *dead(501, 6 * MS, 7 * MS), ev.reap(9 * MS, 501, by=100)]
    says(row(501, *ending, *dead(502, 10 * MS, 11 * MS), ev.lost(20 * MS, 1, "exit")), complete=False)
    says(row(501, *ending, ev.lost(20 * MS, 1, "reap"), ev.lost(20 * MS, 0, "exit")), complete=False)


def test_fork_that_was_lost() -> None:
    """A process whose fork was lost is known by its number and start, with the parent of its exit."""
    rows = [
        target(),
        ev.exit_(20 * MS, 500, start_ns=10 * MS, parent=100),
        ev.zombie(21 * MS, 500),
        ev.lost(22 * MS, 1, "fork"),
    ]
    found = row(500, *rows)
    says(found, id=1, fork_ns=10 * MS, ppid=100, parent_id=0, origin=None, run_ms=10.0, complete=False)
    assert found["notes"] == "fork not seen; events were lost while it lived"


def test_exit_that_was_lost() -> None:
    """A reap without an exit still releases the process."""
    rows = [target(), ev.fork(10 * MS, 500, by=100), ev.reap(20 * MS, 500, by=100), ev.lost(22 * MS, 1, "exit")]
    says(row(500, *rows), state="gone", exit_ns=None, zombie_ns=None, zombie_ms=None, reap_ns=20 * MS, complete=False)


@pytest.mark.parametrize(
    "rows",
    [
        [ev.exit_(1 * MS, 500), ev.fork(5 * MS, 500, by=100)],
        [ev.exit_(1 * MS, 500, start_ns=5 * MS), ev.fork(5 * MS, 500, by=100)],
        [ev.reap(1 * MS, 500, by=100), ev.fork(5 * MS, 500, by=100)],
        [ev.zombie(1 * MS, 500)],
    ],
    ids=["exit", "exit with its start", "reap", "no fork at all"],
)
def test_event_before_its_fork(rows: list[ev.Row]) -> None:
    """An event before its process's fork in a trace that lost nothing is an error; after a loss it is not."""
    with pytest.raises(TraceError, match="comes before its fork, and nothing was lost"):
        recording(target(), *rows).lifecycles()
    recording(target(), *rows, ev.lost(9 * MS, 1, "fork")).lifecycles()
    recording(target(), *rows, closed=False).lifecycles()


def test_clocks_may_differ_a_little() -> None:
    """The clock of events may lag behind that of starts by less than a millisecond."""
    says(row(500, target(), ev.fork(5 * MS, 500, by=100), ev.exit_(5 * MS - 900_000, 500)), exit_code=0, state="zombie")


@pytest.mark.parametrize("role", ["by", "parent"])
def test_nobody_descends_from_himself(role: str) -> None:
    """Parents and forkers are older than their children: a ring of them is damage, and so is one's own child."""
    ring = [
        ev.fork(MS, 500, **{role: 501, f"{role}_start_ns": 2 * MS}),
        ev.fork(2 * MS, 501, **{role: 500, f"{role}_start_ns": MS}),
    ]
    with pytest.raises(TraceError, match="row 1: process 500 has a parent, 501, that is not older than it"):
        recording(target(), *ring).lifecycles()
    with pytest.raises(TraceError, match="500 has a parent, 500"):
        recording(target(), ev.fork(MS, 500, **{role: 500, f"{role}_start_ns": MS})).lifecycles()
    reused = recording(target(), ev.fork(MS, 500, by=500, parent=500))  # one outside had that number before
    assert cells(reused.lifecycles(), "parent_id", "ppid")[1] == (None, 500)


def test_heirs_of_heirs_have_an_end() -> None:
    """Each of 400 processes leaving all others to the next would be 80,000 handings over: such a trace is damage."""
    rows = [ev.fork(i, 1000 + i, by=999 if i == 0 else 1000, parent=1000) for i in range(400)]
    for i in range(399):
        rows += [
            ev.exit_(1000 + 10 * i, 1000 + i, parent=999, adopter=1001 + i),
            ev.zombie(1001 + 10 * i, 1000 + i, parent=999),
        ]
    with pytest.raises(TraceError, match="its orphans are reparented more than"):
        recording(*rows).lifecycles()


def test_a_call_that_cannot_be() -> None:
    """A fork by wait4 has no call."""
    assert cells(recording(target(), ev.fork(MS, 500, by=100, call="wait4")).lifecycles(), "fork_call")[1] == (None,)


def test_a_number_that_is_another_process_s() -> None:
    """Who had it before is gone, when is not known, though its release was lost."""
    rows = [target(), *dead(500, 10 * MS, 20 * MS), ev.fork(30 * MS, 500, by=100), ev.lost(40 * MS, 1, "reap"), ev.end(50 * MS)]
    table = recording(*rows, closed=False).lifecycles()
    assert cells(table, "state", "reap_ns", "zombie_ms", "zombie_open")[1] == ("gone", None, None, False)
    assert table["notes"][1] == "gone; when is not known; events were lost while it lived"
    assert cells(table, "state")[2] == ("running",)


def test_the_end_says_who_was_still_there() -> None:
    """Where events were lost, it names them: others that were there before are gone, and who had ended is a zombie."""
    rows = [target(), *(ev.fork(pid * MS, pid, by=100) for pid in (500, 501, 502, 503)), *dead(504, 504 * MS, 505 * MS)]
    still = {"at_ns": 503 * MS, "processes": [[100, 0, 0], [501, 501 * MS, 1]]}
    rows += [ev.lost(506 * MS, 9, "exit"), ev.end(507 * MS, json.dumps({"processes": 6, "still": still}))]
    made = recording(*rows, closed=False)
    states = dict(cells(made.lifecycles(), "pid", "state"))
    assert states == {100: "running", 500: "gone", 501: "zombie", 502: "gone", 503: "running", 504: "zombie"}
    assert (made.balance().lost, made.balance().holds, made.balance().unexplained) == (2, False, 2)
    rows[-2]["detail"] = "reap"
    assert recording(*rows, closed=False).balance().holds


@pytest.mark.parametrize(
    "still", ["[]", "7", '{"at_ns": "x"}', '{"at_ns": 9, "processes": [[1, 2]]}', '{"at_ns": 1e400, "processes": []}']
)
def test_an_end_that_makes_no_sense(still: str) -> None:
    """What it says of who was there is not believed."""
    rows = [target(), ev.fork(MS, 500, by=100), ev.end(9 * MS, f'{{"still": {still}}}')]
    assert cells(recording(*rows, closed=False).lifecycles(), "state") == [("running",)] * 2
