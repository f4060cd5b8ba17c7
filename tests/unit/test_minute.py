"""The last minute of a recording into memory: what each parent did in it, what is let go, and the trace of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tallied import of_tables
from traces import HEADER, MS, child, target, work

from forktrace.analysis.recording import read
from forktrace.errors import ForktraceError
from forktrace.service import minute
from forktrace.service.minute import Minute
from forktrace.service.parents import MINUTE_NS, Recorded
from forktrace.system.users import User
from forktrace.trace import events as ev
from forktrace.trace import stream

ME = User("me", os.getuid(), os.getgid(), tuple(os.getgroups()), {})
START_NS = 10**12


class Recorder:
    """A recording: its file, and whether it has ended."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.over = False
        self._file = path.open("wb", buffering=0)
        self.writer = stream.Writer(self._file, HEADER | {"start_ns": START_NS})

    def has_ended(self) -> bool:
        """Whether it has."""
        return self.over

    def write(self, *rows: ev.Row) -> None:
        """Write rows whose times count from its start."""
        moved = [
            {key: value + START_NS if key in ("time_ns", "start_ns") else value for key, value in row.items()} for row in rows
        ]
        self.writer.write(stream.batch_of(sorted(moved, key=lambda row: row["time_ns"])))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Set the clock to so many ms after the start."""

    def at(ms: int) -> None:
        monkeypatch.setattr(minute, "kernel_boottime_ns", lambda: START_NS + ms * MS)

    monkeypatch.setattr(minute, "CAUSES_EVERY_S", 0.0)
    at(0)
    return at


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recorder]:
    """A recording that goes on."""
    made = Recorder(tmp_path / "memory")
    yield made
    made._file.close()


def minute_of(recording: Any) -> Minute:
    """What follows it."""
    return Minute(recording)


def test_what_each_parent_did(recording: Recorder, now: Callable[[int], None]) -> None:
    """Forks, zombies, reaps and the cause of the last, over the last minute or as much of it as there is."""
    seen = minute_of(recording)
    recording.write(target(), *work(201, 10, 20, 30), *work(202, 40, 50))
    now(10_000)
    assert seen.recorded() == {50: Recorded(0, 0, 0.1, ""), 100: Recorded(2, 1, 0.2, "join")}
    recording.write(ev.reap(11_000 * MS, 202, by=100, target="any", stack="/srv/consumer.py:9 sweep", stack_status="ok"))
    now(12_000)
    assert seen.recorded()[100] == Recorded(2, 2, 2 / 12, "os-wait")
    assert seen.words == ""
    recording.over = True
    seen.recorded()
    assert seen.words == "the recording has ended"


def test_after_a_minute_it_is_let_go(recording: Recorder, now: Callable[[int], None]) -> None:
    """But for what is told of the living; and what was read takes no memory any more."""
    seen = minute_of(recording)
    recording.write(
        target(), ev.fork(MS, 300, by=100), *(row for one in range(500) for row in work(1000 + one, 1 + one, 2 + one, 3 + one))
    )
    now(1000)
    assert seen.recorded()[100].came == 500
    recording.write(*child(400, 2000, 2001))
    now(3000)
    seen.recorded()
    now(70_000)
    recording.write(ev.reap(69_000 * MS, 400, by=100))
    assert seen.recorded() == {100: Recorded(0, 1, 0.0, "unknown")}
    assert seen._table().num_rows < 12
    assert os.stat(recording.path).st_blocks * 512 < os.stat(recording.path).st_size
    assert MINUTE_NS == 60_000 * MS


def test_the_minute_as_a_trace(recording: Recorder, now: Callable[[int], None], tmp_path: Path) -> None:
    """It reads like any other: whole lives of all that were there in the minute, and up to now the zombies age."""
    seen = minute_of(recording)
    path = tmp_path / "kept.arrows"
    with pytest.raises(ForktraceError, match="has not begun"):
        seen.write(str(path), ME)
    recording.write(target(), *work(201, 10, 20, 30), *work(202, 40, 50), *work(203, 60, 70))
    now(1000)
    seen.recorded()
    now(70_000)
    seen.recorded()
    recording.write(ev.reap(69_000 * MS, 203, by=100), *work(204, 69_500, 69_600))
    now(71_000)
    seen.write(str(path), ME)
    made = read(path)
    assert made.cut is None
    table = made.lifecycles()
    assert table["pid"].tolist() == [100, 202, 203, 204]
    assert table["state"].astype(str).tolist() == ["running", "zombie", "gone", "zombie"]
    assert table["zombie_ms"].tolist()[1:] == [70_950, 68_930, 1400]
    assert of_tables(made).zombies == {"consumer.py:33 consume": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ForktraceError, match="File exists"):
        seen.write(str(path), ME)
