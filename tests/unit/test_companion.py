"""What runs beside a recording: it has no rights and no descriptors of it, and whatever becomes of it is only said."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from pathlib import Path

import pytest

from forktrace.launcher.companion import Companion, Companions
from forktrace.system.users import User

ME = User("me", os.getuid(), os.getgid(), tuple(os.getgroups()), {})


def wait_for_end(until: int) -> None:
    """Wait until the recording is over."""
    select.select([until], [], [])


def test_it_ends_with_the_recording(tmp_path: Path) -> None:
    """It is told by the end of a pipe, is waited for, and holds neither descriptors nor rights nor signals."""
    about = tmp_path / "about"
    held = os.open(tmp_path, os.O_RDONLY)

    def run(path: str, until: int) -> None:
        status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
        open_ = set(map(int, os.listdir("/proc/self/fd")))  # one of them lists them
        ignored = [int(status["SigIgn"], 16) >> number - 1 & 1 for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        about.write_text(
            json.dumps([path, {0, 1, 2, until} < open_ and len(open_) == 5, int(status["CapEff"], 16), ignored, os.getsid(0)])
        )
        wait_for_end(until)
        about.write_text(about.read_text() + "end")

    with Companions([Companion("metrics", lambda: run)], "run.arrows", ME) as one:
        while not about.exists() or not about.read_text():
            time.sleep(0.01)
        path, only_its_own, rights, ignored, session = json.loads(about.read_text())
        assert not select.select(one.running, [], [], 0)[0]
        assert not one.report_ended([])
    os.close(held)
    assert about.read_text().endswith("end")
    assert (path, only_its_own, rights, ignored) == ("run.arrows", True, 0, [1, 1, 1])
    assert session != os.getsid(0)


def test_its_death_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    """Once, as soon as somebody looks; the recording goes on."""
    with Companions([Companion("metrics", lambda: lambda path, until: wait_for_end(until))], "run.arrows", ME) as one:
        signal.pidfd_send_signal(one.running[0], signal.SIGKILL)
        readable = select.select(one.running, [], [], 30)[0]
        assert one.report_ended(readable)
        assert one.running == []
        assert not one.report_ended(readable)
    assert capfd.readouterr().err == "forktrace: the metrics process has ended; the recording goes on\n"


def test_who_does_not_end_is_killed(capfd: pytest.CaptureFixture[str]) -> None:
    """After a while, so that nobody waits for it for ever."""
    with Companions([Companion("metrics", lambda: lambda path, until: time.sleep(1000), 0.1)], "run.arrows", ME) as one:
        pass
    assert one.running == []
    assert capfd.readouterr().err == "forktrace: the metrics process did not end in time, and was killed\n"


def test_without_room_for_another_process(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said in a line, and the recording goes on."""

    def full() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)
    with Companions([Companion("metrics", lambda: lambda path, until: None)], "run.arrows", ME) as one:
        assert one.running == []
    said = capfd.readouterr().err
    assert said == "forktrace: the metrics process cannot be started: Resource temporarily unavailable; the recording goes on\n"


def test_with_nothing_to_run() -> None:
    """Nothing is started."""
    with Companions([], "run.arrows", ME) as one:
        assert one.running == []


def test_each_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    """Of two that run, the one that is gone is named, the other is still told of the end, and none waits for the other."""
    wanted = [Companion(name, lambda: lambda path, until: wait_for_end(until)) for name in ("metrics", "dataset")]
    with Companions(wanted, "run.arrows", ME) as both:
        first, second = both.running
        signal.pidfd_send_signal(second, signal.SIGKILL)
        assert both.report_ended(select.select([second], [], [], 30)[0])
        assert both.running == [first]
    assert capfd.readouterr().err == "forktrace: the dataset process has ended; the recording goes on\n"
