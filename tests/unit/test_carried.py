"""What the next file of a rotation repeats is what its processes are known by, and no more."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from traces import HEADER, MS, child, target

from forktrace.errors import UsageError
from forktrace.recorder.protocol.channel import Channel, pair
from forktrace.recorder.protocol.orders import Order
from forktrace.recorder.trace_output import RotationOutput
from forktrace.trace import events as ev
from forktrace.trace.batches import batch_of, carried_over
from forktrace.trace.carried import FEWEST, MOST_BATCHES, Carried


def repeated(*rows: ev.Row, drops: int = 1, **more: Any) -> list[tuple[str, int | None, int | None]]:
    """Kind, number and time in ms of the rows that are repeated after these, which come in order."""
    return [(row["kind"], row["pid"], row["time_ns"] // MS) for row in kept(*rows, drops=drops, **more)]


def kept(*rows: ev.Row, drops: int = 1, **more: Any) -> list[dict[str, Any]]:
    """The rows that are repeated."""
    carried = Carried()
    for row in rows:
        starts = {f"{role}start_ns": row.get(f"{role}start_ns") or born.get(row.get(f"{role}pid")) for role in ("", "by_")}
        carried.add(batch_of([row | starts]))
    for _ in range(drops):
        carried.drop(**more)
    table, mask = carried_over(pa.Table.from_batches(list(carried.parts())))
    assert mask.all()
    return table.to_pylist()


born = {100: 0, 501: 2 * MS, 502: 3 * MS}


def test_who_lives_and_how_it_came_to_be() -> None:
    """Fork, last program, and of a zombie its end; nothing of who is gone."""
    rows = [target(), ev.exec_(MS, 100, ["sh"]), *child(501, 2, 20), *child(502, 3, 30), ev.exec_(9 * MS, 100, ["python"])]
    expected = [("fork", 100, 0), ("fork", 502, 3), ("exec", 100, 9), ("exit", 502, 30), ("zombie", 502, 30)]
    rows = [*sorted(rows, key=lambda row: row["time_ns"]), ev.reap(40 * MS, 501, by=100)]
    assert repeated(*rows) == expected
    assert repeated(*rows, drops=3) == expected


def test_a_program_whose_forker_is_gone() -> None:
    """A daemon has its command line from a parent that ended long ago."""
    rows = [target(), ev.exec_(MS, 100, ["daemon", "-f"]), ev.fork(2 * MS, 501, by=100), ev.fork(3 * MS, 502, by=501)]
    rows += [row for pid in (501, 100) for row in (ev.exit_(9 * MS, pid), ev.reap(9 * MS, pid, by=1))]
    (left,) = kept(*rows)
    assert (left["kind"], left["pid"], left["argv"]) == ("fork", 502, "daemon\0-f")


def test_a_program_that_the_forker_has_left() -> None:
    """Its forker runs another one since, and the child still the old one."""
    rows = [target(), ev.exec_(MS, 100, ["old"]), ev.fork(2 * MS, 501, by=100), ev.exec_(3 * MS, 100, ["new"])]
    assert [row["argv"] for row in kept(*rows)] == [None, "old", "new"]


def test_totals_interpreters_and_lines() -> None:
    """The last total of each place of who lives; every interpreter and source line, once."""
    totals = [ev.waits(time_ns * MS, time_ns, by=by) for time_ns, by in ((5, 100), (6, 501), (7, 100), (8, 501))]
    rows = [target(), ev.fork(2 * MS, 501, by=100), ev.runtime(3 * MS, "python", "3.11", []), ev.source(4 * MS, "a.py", 1, "x")]
    rows += [*totals, ev.reap(9 * MS, 501, by=100)]
    assert repeated(*rows) == [("fork", 100, 0), ("runtime", None, 3), ("source", None, 4), ("waits", None, 7)]


def test_losses_as_long_as_somebody_lives_who_saw_them() -> None:
    """Their sum, so that no row claims more than is known."""
    rows = [target(), ev.lost(5 * MS, 2, "exec"), ev.lost(6 * MS, 3, "exec"), ev.lost(7 * MS, 1, "exit")]
    assert [(row["detail"], row["count"]) for row in kept(*rows, drops=2)[1:]] == [("exec", 5), ("exit", 1)]
    after = [ev.fork(8 * MS, 503, by=100, start_ns=8 * MS), ev.exit_(9 * MS, 100), ev.reap(9 * MS, 100, by=50)]
    assert repeated(*rows, *after) == [("fork", 503, 8)]


def test_a_release_that_was_lost() -> None:
    """Whom the kernel has no more is not repeated."""
    rows = [target(), ev.fork(2 * MS, 501, by=100), ev.fork(3 * MS, 502, by=100)]
    assert repeated(*rows, is_gone=lambda who: who == (501, 2 * MS)) == [("fork", 100, 0), ("fork", 502, 3)]


def test_it_does_not_grow() -> None:
    """Of a million processes that are gone nothing is held."""
    carried = Carried()
    carried.add(batch_of([target(start_ns=0)]))
    for number in range(FEWEST // 10):
        pid, now = 1000 + number, (number + 1) * MS
        same = {"start_ns": now}
        rows = [ev.fork(now, pid, by=100, **same), ev.exit_(now, pid, **same), ev.reap(now, pid, by=100, **same)]
        carried.add(batch_of(rows * 5))
    assert carried._rows <= FEWEST
    assert len(carried._batches) <= MOST_BATCHES
    carried.drop()
    assert (carried.processes, carried._rows) == (1, 1)


def rotation(path: Path) -> RotationOutput:
    """A rotation whose first file is `path`."""
    return RotationOutput(Order(str(path), HEADER, pid=100, file=7), Counter(), os.open(path, os.O_RDWR | os.O_CREAT))


@pytest.mark.parametrize("what", ["is no regular file", "is not empty", "is not open for writing"])
def test_a_next_file_that_is_none(tmp_path: Path, what: str) -> None:
    """It is refused with the reason, and its descriptor closed: the recording goes on where it is."""
    made = rotation(tmp_path / "first")
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_text("x")
    given = {
        "is no regular file": os.pipe()[1],
        "is not empty": os.open(tmp_path / "full", os.O_RDWR),
        "is not open for writing": os.open(tmp_path / "empty", os.O_RDONLY),
    }[what]
    assert made.offer({"say": "next", "path": "x"}, [given]) == []
    with pytest.raises(UsageError, match=what):
        made.check_next()
    assert made.next is None
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(given)
    made.close()


def test_a_first_file_that_is_none() -> None:
    """A pipe would keep the recorder waiting: it is refused."""
    with pytest.raises(UsageError, match="is no regular file"):
        RotationOutput(Order("pipe", HEADER, pid=100, file=7), Counter(), os.pipe()[1])


def test_a_turn_to_the_same_file(tmp_path: Path) -> None:
    """The file that is written is not empty, so a launcher cannot have it be its own next one."""
    made = rotation(tmp_path / "first")
    made.offer({"path": "x"}, [os.open(tmp_path / "first", os.O_RDWR)])
    with pytest.raises(UsageError, match="is not empty"):
        made.check_next()
    made.close()


def test_a_turn(tmp_path: Path) -> None:
    """The header says which recording it is of, which file of it, and when that begins."""
    made = rotation(tmp_path / "first")
    assert made.offer({"path": str(tmp_path / "second")}, [os.open(tmp_path / "second", os.O_RDWR | os.O_CREAT)]) == []
    further = os.dup(1)
    assert made.offer({"path": "third"}, [further]) == [further]  # one at a time
    os.close(further)
    made.check_next()
    made.go_on(5 * MS)
    made.close()
    from forktrace.trace.stream import read_header

    found = [read_header(tmp_path / name) for name in ("first", "second")]
    assert [(one["rotation"], one["file"], one["start_ns"]) for one in found] == [(0, 7, 0), (0, 8, 5 * MS)]


def test_descriptors_that_nobody_asked_for() -> None:
    """They come with a message, and are closed by whoever takes it."""
    ours, its = pair()
    recorder, launcher = Channel(its, waits=False), Channel(ours)
    launcher.send_descriptor("next", 1, path="x")
    message, descriptors = recorder.receive_now()
    assert message == {"say": "next", "path": "x"}
    assert len(descriptors) == 1
    assert os.get_inheritable(descriptors[0]) is False
    os.close(descriptors[0])
    socket.send_fds(ours, [b"no json"], [1])
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Exception, match="no JSON"):
        recorder.receive_now()
    assert len(os.listdir("/proc/self/fd")) == before
    recorder.close()
    launcher.close()
