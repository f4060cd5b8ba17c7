"""Which processes were there at a moment, and how that is shown."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from traces import BOOT_NS, MS, cells, child, recording, target

from forktrace.errors import UsageError
from forktrace.trace import events as ev
from forktrace.views.text.moment import doubts, elapsed, headline, lines

ROWS = [
    target(),
    ev.exec_(1 * MS, 100, ["python", "a b.py"]),
    *child(500, 10, 20),
    ev.fork(15 * MS, 600, by=100, comm="python"),
    ev.exec_(40 * MS, 600, ["/bin/sl\x1bep", "9"]),
    ev.reap(50 * MS, 500, by=100),
    ev.exit_(60 * MS, 600, parent=100),
    ev.zombie(62 * MS, 600, parent=100),
    ev.end(70 * MS),
]


def shown(time_ms: float, *rows: ev.Row, **more: object) -> list[tuple[object, ...]]:
    """The processes of a moment: number, parent's number, state, name."""
    table = recording(*(rows or ROWS), **more).processes_at(int(time_ms * MS))
    return cells(table, "pid", "ppid", "state", "comm")


def test_who_was_there() -> None:
    """A process is there from its fork to its release, both to the nanosecond; a zombie from the notification on."""
    assert shown(9.9) == [(100, 50, "running", "python")]
    assert shown(10) == [(100, 50, "running", "python"), (500, 100, "running", "child")]
    assert shown(20) == [(100, 50, "running", "python"), (500, 100, "zombie", "child"), (600, 100, "running", "python")]
    assert shown(49.999999)[1] == (500, 100, "zombie", "child")
    assert shown(50) == [(100, 50, "running", "python"), (600, 100, "running", "sl\x1bep")]
    assert shown(61)[1] == (600, 100, "running", "sl\x1bep")
    assert shown(70)[1] == (600, 100, "zombie", "sl\x1bep")


def test_columns() -> None:
    """Ages, and the command line of then: until its exec a process has that of its forker."""
    made = recording(*ROWS)
    table = made.processes_at(30 * MS)
    assert cells(table, "id", "parent_id", "elapsed_ms", "zombie_ms", "argv", "complete", "notes") == [
        (0, None, 30.0, None, "python 'a b.py'", True, None),
        (1, 0, 20.0, 10.0, "python 'a b.py'", True, None),
        (2, 0, 15.0, None, "python 'a b.py'", True, None),
    ]
    assert table.index.tolist() == table["id"].tolist()
    assert made.processes_at(45 * MS).loc[2, "argv"] == "'/bin/sl\x1bep' 9"
    assert cells(made.of(2).processes_at(45 * MS), "pid") == [(600,)]


def test_moments_outside_the_recording() -> None:
    """Before it began and after its end nothing is known, and that is no empty table."""
    made = recording(*ROWS)
    assert len(made.processes_at(0)) == 1
    for time_ns in (-1, 70 * MS + 1):
        with pytest.raises(UsageError, match="has no moment") as error:
            made.processes_at(time_ns)
        assert "from 0.000000s to 0.070000s" in error.value.hint


def test_parents_of_the_moment() -> None:
    """After its parent's death a process has the adopter; one that the trace does not name is not known."""
    family = [target(), ev.fork(1 * MS, 200, by=100), ev.fork(2 * MS, 300, by=200)]
    death = [ev.zombie(11 * MS, 200, parent=100), ev.end(20 * MS)]
    named = [*family, ev.exit_(10 * MS, 200, parent=100, adopter=1), *death]
    assert [row[1] for row in shown(10.5, *named)] == [50, 100, 200]
    assert [row[1] for row in shown(11, *named)] == [50, 100, 1]
    unnamed = [*family, ev.exit_(10 * MS, 200, parent=100), *death]
    assert [row[1] for row in shown(12, *unnamed)] == [50, 100, None]
    (line,) = doubts(recording(*unnamed), 12 * MS)
    assert line == "not known: the new parent of 300"


def test_a_handing_over_that_nobody_saw() -> None:
    """The target's parent is outside: that it died is known from the target's own end, when it did is not."""
    rows = [target(), ev.exit_(10 * MS, 100, parent=1), ev.zombie(11 * MS, 100, parent=1), ev.end(20 * MS)]
    assert shown(5, *rows) == [(100, None, "running", "python")]
    assert shown(12, *rows) == [(100, 1, "zombie", "python")]


def test_what_is_not_certain() -> None:
    """An exit that was not seen leaves the state open, and a loss what it may have hidden, from where it may have begun."""
    rows = [
        target(),
        ev.lost(5 * MS, 0, "exit"),
        ev.fork(6 * MS, 200, by=100, comm="x"),
        ev.lost(20 * MS, 3, "exit"),
        ev.reap(30 * MS, 200, by=100),
        ev.end(40 * MS),
    ]
    made = recording(*rows)
    assert shown(10, *rows)[1] == (200, 100, None, "x")
    assert not [line for line in doubts(made, 5 * MS) if line.startswith("lost")]
    *_, last = doubts(made, 6 * MS)
    assert last.startswith("lost before or around this moment: 3 of exit")
    assert "not certain: 200 (exit not seen; events were lost while it lived)" in doubts(made, 6 * MS)
    assert [line.split()[:3] for line in lines(made, 10 * MS)][2] == ["200", "100", "?"]


def test_lines() -> None:
    """As `ps` has them: a zombie has no arguments, nothing steers the terminal, numbers keep to the right."""
    assert list(lines(recording(*ROWS), 45 * MS)) == [
        "PID  PPID  STAT  ELAPSED  COMMAND",
        "100    50  -       00:00  python a b.py",
        "500   100  Z       00:00  [child] <defunct>",
        "600   100  -       00:00  /bin/sl\\x1bep 9",
    ]
    assert list(lines(recording(target()), 0))[1].endswith("[python]")


def test_headline() -> None:
    """The moment in both clocks, and how many."""
    clock = datetime.fromtimestamp(BOOT_NS // 10**9, UTC).astimezone()
    assert headline(recording(*ROWS), 45 * MS) == f"+0.045 s, {clock:%Y-%m-%d %H:%M:%S}.045: 3 processes, 1 zombie"


def test_elapsed() -> None:
    """ELAPSED as ps writes it."""
    assert [elapsed(s * 1000) for s in (0, 5.999, 61, 3661, 86400, 4 * 86400 + 3723)] == [
        "00:00",
        "00:05",
        "01:01",
        "01:01:01",
        "1-00:00:00",
        "4-01:02:03",
    ]
