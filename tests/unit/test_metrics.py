"""The process that makes metrics: it reads what has come, exposes it, and says in a line what it cannot do."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from traces import HEADER, MS, child, target

from forktrace.service import metrics
from forktrace.service.metrics import Options, follow
from forktrace.service.tally import Tally
from forktrace.system.procfs import kernel_boottime_ns
from forktrace.trace import events as ev
from forktrace.trace import stream
from forktrace.trace.batches import as_carried


def wait_for(is_so: Callable[[], bool]) -> None:
    """Wait until it is so, at most half a minute."""
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Recorder:
    """Writes a trace batch by batch, with metrics made beside it, in a thread."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.path = folder / "run.arrows"
        self._file = self.path.open("wb")
        self._until, self._end = os.pipe()
        self._thread = threading.Thread(target=follow, args=(options, Tally(), str(self.path), self._until), daemon=True)
        self._thread.start()
        self._writer = stream.Writer(self._file, HEADER | {"start_ns": self.ns(0)})

    @staticmethod
    def ns(ms: int) -> int:
        """A moment so many ms after ten seconds ago."""
        return kernel_boottime_ns() - 10_000 * MS + ms * MS

    def write(self, *rows: ev.Row) -> None:
        """Write a batch."""
        self._writer.write(stream.batch_of(rows))

    def end(self) -> None:
        """End the recording, and wait for the last metrics."""
        if self._end >= 0:
            self._writer.close()
            os.close(self._end)
            self._end = -1
            self._thread.join(30)
            self._file.close()
        assert not self._thread.is_alive()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are written ten times a second."""
    monkeypatch.setattr(metrics, "EVERY_S", 0.1)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Options], Recorder]]:
    """Start a recorder, and end it after the test."""
    started: list[Recorder] = []

    def begin(options: Options) -> Recorder:
        started.append(Recorder(tmp_path, options))
        return started[-1]

    yield begin
    for one in started:
        one.end()


def has(path: Path, line: str) -> Callable[[], bool]:
    """Whether a file has that line."""
    return lambda: path.exists() and line in path.read_text().splitlines()


def test_from_the_first_batch_to_the_last(tmp_path: Path, start: Callable[[Options], Recorder]) -> None:
    """A zombie shows while it is one, with its age, and is counted when it is gone; at the end nothing is recorded any more."""
    path = tmp_path / "web.prom"
    recorder = start(Options(file=str(path)))
    fork_ns, end_ns = recorder.ns(0), recorder.ns(100)
    recorder.write(target(fork_ns), ev.fork(fork_ns + 1, 4711, by=100), ev.exit_(end_ns, 4711, parent=100))
    recorder.write(ev.zombie(end_ns, 4711, parent=100))
    wait_for(has(path, 'forktrace_zombies{target="consumer"} 1.0'))
    assert has(path, 'forktrace_forks_total{target="consumer"} 1.0')()
    age_s = next(float(line.split()[1]) for line in path.read_text().splitlines() if line.startswith("forktrace_oldest"))
    assert 9.8 < age_s < 40
    recorder.write(ev.reap(end_ns + 1000 * MS, 4711, by=100))
    wait_for(has(path, 'forktrace_reaps_total{cause="unknown",created_by="unknown",target="consumer"} 1.0'))
    assert has(path, 'forktrace_zombie_seconds_sum{target="consumer"} 1.0')()
    assert has(path, 'forktrace_recording{target="consumer"} 1.0')()
    recorder.write(*(row | {"time_ns": row["time_ns"] + end_ns} for row in child(4712, 2000, 2001)))
    recorder.end()
    assert has(path, 'forktrace_recording{target="consumer"} 0.0')()
    assert has(path, 'forktrace_forks_total{target="consumer"} 2.0')()
    assert has(path, 'forktrace_zombies{target="consumer"} 1.0')()
    assert has(path, 'forktrace_oldest_zombie_seconds{target="consumer"} 0.0')()  # it ended with the last event


def test_what_it_cannot_do_is_a_line(
    tmp_path: Path, start: Callable[[Options], Recorder], capfd: pytest.CaptureFixture[str]
) -> None:
    """A port that is taken, a directory that is gone: each is said once, and nothing else stops."""
    path = tmp_path / "textfile/web.prom"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        recorder = start(Options(file=str(path), address=taken.getsockname()))
        recorder.write(target(recorder.ns(0)))
        said: list[str] = []

        def heard(lines: int) -> bool:
            said.extend(capfd.readouterr().err.splitlines())
            return len(said) >= lines

        wait_for(lambda: heard(2))
    time.sleep(0.5)
    path.parent.mkdir()
    wait_for(path.exists)
    path.parent.rename(tmp_path / "away")
    wait_for(lambda: heard(3))
    assert len(said) == 3, said
    assert said[0].startswith("forktrace: no metrics on 127.0.0.1:")
    assert said[0].endswith(": Address already in use; name another with --metrics-port")
    assert said[1].startswith(f"forktrace: {path}: No such file or directory: no metrics are written there; ")
    assert said[2] == said[1]


def test_the_target_is_no_command_line(tmp_path: Path, start: Callable[[Options], Recorder]) -> None:
    """Arguments can hold secrets, and metrics are for everybody: only the program's name is told, or the cgroup."""
    path = tmp_path / "web.prom"
    recorder = start(Options(file=str(path), target="/system.slice/web.service"))
    recorder.write(target(recorder.ns(0)))
    wait_for(has(path, 'forktrace_forks_total{target="/system.slice/web.service"} 0.0'))
    recorder.end()
    assert "python" not in path.read_text()


def test_files_that_were_removed_before_they_were_read(tmp_path: Path) -> None:
    """What the next file repeats takes the place of what was known: no zombie stays for ever, and nobody is counted twice."""
    path, (until, end) = tmp_path / "web.prom", os.pipe()
    first, last = (tmp_path / f"run.{number:06}.arrows" for number in (1, 3))
    lives, gone, missed = child(200, 2, 3), child(201, 4, 5), child(202, 6, 7)
    write(first, [], [target(), *lives, *gone, ev.end(8 * MS, '{"continues": true}')])
    write(last, [target(), *lives, *missed], [ev.reap(9 * MS, 200, by=100)])
    os.close(end)
    follow(Options(file=str(path)), Tally(), str(first), until)
    os.close(until)
    assert has(path, 'forktrace_forks_total{target="consumer"} 3.0')()
    assert has(path, 'forktrace_zombies{target="consumer"} 1.0')()
    assert has(path, 'forktrace_reaps_total{cause="unknown",created_by="unknown",target="consumer"} 1.0')()


def write(path: Path, repeated: list[ev.Row], rows: list[ev.Row]) -> None:
    """Write a file of a rotation."""
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER | {"file": int(path.name.split(".")[1]), "rotation": 0})
        if repeated:
            writer.write(as_carried(stream.batch_of(repeated)))
        writer.close(stream.batch_of(rows))
