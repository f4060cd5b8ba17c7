"""The places that wait, and the signals."""

from __future__ import annotations

from traces import MS, cells, child, recording, target

from forktrace.trace import events as ev


def test_one_row_per_process_call_target_and_options() -> None:
    """Reaps, failures and the last running total of each place add up per process, call, target and options."""
    rows = [
        target(),
        *child(500, 1, 10),
        *child(501, 2, 10),
        ev.reap(20 * MS, 500, by=100, options=0),
        ev.reap(21 * MS, 501, by=100, options=0),
        ev.wait(22 * MS, None, by=100, result=10),
        ev.wait(23 * MS, 500, by=100, status=0x137F),
        ev.waits(24 * MS, 5, by=100, target="any", call="wait4", flags=1),
        ev.waits(25 * MS, 9, by=100, target="any", call="wait4", flags=1),
        ev.waits(25 * MS, 2, by=100, target="any", call="wait4", flags=1, result=4),
        ev.waits(25 * MS, 1, by=100, target="any", call="wait4", flags=1, result=10, by_tid=101),
        ev.waits(25 * MS, 3, by=100, target="any", call="wait4", flags=1, by_tid=101),
        ev.wait(26 * MS, 500, by=100, call="waitid", target="pidfd", flags=0x1000005),
    ]
    table = recording(*rows).waits()
    assert cells(table) == [
        (0, None, "wait4", "pid", "", 4, 2, 0, 0, 1),
        (0, None, "wait4", "any", "WNOHANG", 15, 0, 12, 2, 1),
        (0, None, "waitid", "pidfd", "WNOHANG|WEXITED|WNOWAIT", 1, 0, 0, 0, 0),
    ]
    names = "id site call target options calls reaps empty interrupted no_child".split()
    assert list(table.columns) == names


def test_polls_are_counted_once() -> None:
    """The empty calls for one very child are in the total of the place; what its reap counts is not added to them."""
    total = ev.waits(15 * MS, 5, by=100, call="wait4", target="pid", flags=1)
    rows = [target(), *child(500, 1, 10), total, ev.reap(20 * MS, 500, by=100, options=1, empty=5)]
    assert cells(recording(*rows).waits(), "calls", "reaps", "empty") == [(6, 1, 5)]


def test_options_that_both_calls_name_differently() -> None:
    """Bit 2 is WUNTRACED for wait4 and WSTOPPED for waitid; a bit without a name is a number."""
    rows = [ev.wait(MS, None, by=100, flags=0x2), ev.wait(MS, None, by=100, call="waitid", flags=0x2 | 0x100, result=22)]
    assert cells(recording(target(), *rows).waits(), "call", "options") == [
        ("wait4", "WUNTRACED"),
        ("waitid", "WSTOPPED|0x100"),
    ]


def test_all_options_have_names() -> None:
    """Also those whose bit the kernel sign-extends."""
    rows = [ev.wait(MS, None, by=100, flags=-0x80000000), ev.wait(MS, None, by=100, flags=0x2000000C | 0x40000000)]
    assert cells(recording(target(), *rows).waits(), "options") == [("__WCLONE",), ("WEXITED|WCONTINUED|__WNOTHREAD|__WALL",)]


def test_reaps_from_outside_are_no_place() -> None:
    """Who is not followed has no row."""
    rows = [target(), ev.exit_(5 * MS, 100), ev.zombie(5 * MS, 100), ev.reap(6 * MS, 100, by=50)]
    assert recording(*rows).waits().empty


def test_signals() -> None:
    """One row per signal; `fatal` is the one that ended the process; a sender only where one is known."""
    rows = [
        target(),
        ev.fork(1 * MS, 500, by=100),
        ev.signal(2 * MS, 500, 15, by=100),
        ev.signal(3 * MS, 500, 15, by=100, by_tid=101, disposition="handler"),
        ev.exit_(4 * MS, 500, 15),
        ev.signal(5 * MS, 100, 11, sent_by="kernel"),
        ev.signal(6 * MS, 100, 36, by=77),
    ]
    table = recording(*rows).signals()
    assert cells(table) == [
        (2 * MS, 1, "SIGTERM", False, "process", 0, 100, 100, None, None, "default"),
        (3 * MS, 1, "SIGTERM", True, "process", 0, 100, 101, None, None, "handler"),
        (5 * MS, 0, "SIGSEGV", False, "kernel", None, None, None, None, None, "default"),
        (6 * MS, 0, "SIGRTMIN+2", False, "process", None, 77, 77, None, None, "default"),
    ]
    columns = "time_ns id signal fatal kind sender_id sender_pid sender_tid sender_site sender_stack disposition"
    assert list(table.columns) == columns.split()


def test_places_are_lines() -> None:
    """Two lines are two places, stacks that differ only in the library are one; of each stack the last total counts."""
    poll = {"call": "wait4", "target": "pid", "flags": 1, "stack_status": "ok"}
    first, second, third = (
        f"/srv/a.py:{line} main;/usr/lib/python3.11/subprocess.py:{inner} poll" for line, inner in ((7, 1), (7, 2), (8, 1))
    )
    rows = [
        target(),
        *child(500, 1, 10),
        ev.waits(15 * MS, 5, by=100, **poll, stack=first),
        ev.waits(16 * MS, 9, by=100, **poll, stack=first),
        ev.waits(17 * MS, 3, by=100, **poll, stack=second),
        ev.waits(17 * MS, 2, by=100, **poll, stack=third),
        ev.waits(18 * MS, 1, by=100, **poll | {"stack_status": "lost"}),
        ev.reap(20 * MS, 500, by=100, options=1, stack=first, stack_status="ok"),
    ]
    assert cells(recording(*rows).waits(), "site", "calls", "reaps", "empty") == [
        (None, 1, 0, 1),
        ("a.py:7 main", 13, 1, 12),
        ("a.py:8 main", 2, 0, 2),
    ]


def test_the_line_of_the_sender() -> None:
    """A signal has the site of the thread that sent it."""
    rows = [target(), ev.fork(MS, 500, by=100), ev.signal(2 * MS, 500, 15, by=100, stack="/srv/a.py:7 stop", stack_status="ok")]
    assert cells(recording(*rows).signals(), "sender_site", "sender_stack") == [("a.py:7 stop", "/srv/a.py:7 stop")]
