"""The unit of docs/service.md under a running systemd, in the machine of test_systemd.py; each test goes on where one ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from recorded import PATIENCE_S
from recorded import wait_until as waited_for

import forktrace
from forktrace.system.capabilities import NUMBERS
from forktrace.trace.rotation import paths

PAGE = Path("docs/service.md").read_text()
UNIT = re.findall(r"`(/etc/systemd/system/(\S+)\.service)`:\n\n```ini\n(.*?)```", PAGE, re.DOTALL)
SERVICE = "forktrace-consumer"
WATCHED = """\
[Service]
User=consumer
Environment=PYTHONUNBUFFERED=1
ExecStart=/usr/bin/python3 /opt/consumer/consumer.py
"""
# Each message is a process, which the next start sweeps away.
CONSUMER = """\
import multiprocessing, time

def consume(message):
    pass

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    while True:
        multiprocessing.Process(target=consume, args=("message",)).start()
        time.sleep(0.5)
"""
RIGHTS = ("CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_CHECKPOINT_RESTORE")
FOLDER = Path("/var/lib/forktrace/consumer")
SLEEP_S = 20


def run(*line: str) -> str:
    """Run a command, and return what it says."""
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}: {done.returncode}\n{done.stdout}{done.stderr}{journal()}"
    return done.stdout


def journal() -> str:
    """What the service has said."""
    line = ["journalctl", "--no-pager", "-o", "cat", "-u", SERVICE]
    return subprocess.run(line, capture_output=True, text=True, check=False).stdout


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for it: all of systemd is slow here."""
    waited_for(condition, what, 5 * PATIENCE_S)


def shown(name: str, unit: str = SERVICE) -> str:
    """What systemd knows of a unit."""
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def processes() -> list[int]:
    """The launcher, the recorder, and whatever else runs for the service."""
    return [int(line) for line in Path(f"/sys/fs/cgroup/system.slice/{SERVICE}.service/cgroup.procs").read_text().split()]


def rows() -> pd.DataFrame:
    """What is recorded until now."""
    return forktrace.read(FOLDER).lifecycles()


def more_rows(than: int) -> Callable[[], bool]:
    """Whether processes were recorded since there were so many."""
    return lambda: len(rows()) > than + 2


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """The service that is watched, and forktrace with its unit, as the page says."""
    run("useradd", "--system", "consumer")
    Path("/opt/consumer").mkdir()
    Path("/opt/consumer/consumer.py").write_text(CONSUMER)
    Path("/etc/systemd/system/consumer.service").write_text(WATCHED)
    [(path, name, text)] = UNIT
    assert name == SERVICE
    Path(path).write_text(text)
    slow = Path("/etc/systemd/system.conf.d/slow.conf")  # an emulated machine beside others may take minutes to load the probes
    slow.parent.mkdir(exist_ok=True)
    slow.write_text("[Manager]\nDefaultTimeoutStartSec=600\nDefaultTimeoutStopSec=600\n")
    run("sysctl", "kernel.perf_event_paranoid=2")
    run("systemctl", "daemon-reload")
    run("systemctl", "start", "consumer")


def test_it_starts() -> None:
    """`systemctl start` comes back when the processes are followed, and files of the service's user grow in its directory."""
    run("systemctl", "start", SERVICE)
    assert shown("ActiveState") == "active"
    assert shown("StatusErrno") == "0"
    assert (FOLDER.stat().st_mode & 0o777, FOLDER.owner()) == (0o700, "consumer")
    assert len(rows())
    wait_until(more_rows(0), "processes of the consumer")
    assert run("/usr/local/bin/forktrace", "report", str(FOLDER))


def test_its_rights() -> None:
    """Every process of it is the consumer's, has the five capabilities that recording needs or fewer, and gets no others."""
    allowed = sum(1 << NUMBERS[name] for name in RIGHTS)
    found = processes()
    assert len(found) > 1  # the launcher, the recorder and its helpers
    for pid in found:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
        assert int(status["CapBnd"], 16) == allowed
        for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            assert int(status[kind], 16) & ~allowed == 0
        assert status["NoNewPrivs"] == "1"
        assert set(status["Uid"].split()) == {str(FOLDER.stat().st_uid)}


def test_lines_are_known() -> None:
    """With the text of the source, which the user can read, and why each zombie went."""
    table = rows()
    swept = table[(table["reap_cause"] == "next-start") & (table["origin"] == "forked")]  # not the one that was there before
    assert len(swept)
    assert set(swept["fork_site"]) == {"consumer.py:9 <module>"}
    assert "Process(target=consume" in run("/usr/local/bin/forktrace", "why", str(FOLDER))


def test_reload_turns() -> None:
    """`systemctl reload` begins the next file, and the one before is whole."""
    before = paths(str(FOLDER))
    run("systemctl", "reload", SERVICE)
    wait_until(lambda: len(paths(str(FOLDER))) == len(before) + 1, "the next file")
    wait_until(lambda: forktrace.read(before[-1]).cut is None, "the end of the file before")
    assert shown("ActiveState") == "active"


def test_the_watched_service_restarts() -> None:
    """Its control group stays, and the newcomers are followed."""
    before = shown("MainPID", "consumer")
    run("systemctl", "restart", "consumer")
    after = shown("MainPID", "consumer")
    assert before != after
    wait_until(lambda: rows()["ppid"].eq(int(after)).any(), "processes of the new one")
    assert shown("NRestarts") == "0"


def test_the_machine_sleeps() -> None:
    """The recording goes on when it wakes: no time goes back, and what slept meanwhile has slept so long."""
    count = len(rows())
    slept_s = _sleep()
    assert slept_s > SLEEP_S / 2
    wait_until(more_rows(count), "processes after it woke")
    table = rows()
    moments = table[["fork_ns", "exit_ns", "zombie_ns", "reap_ns"]]
    for earlier, later in zip(moments.columns[:-1], moments.columns[1:], strict=True):
        assert not (moments[later] < moments[earlier]).any()
    assert table["fork_ns"].diff().max() > slept_s / 2 * 1e9
    assert shown("NRestarts") == "0"


def _sleep() -> float:
    """Suspend the machine until its clock wakes it, and return for how many seconds."""
    began = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    alarm = Path("/sys/class/rtc/rtc0/wakealarm")
    alarm.write_text("0")
    alarm.write_text(f"+{SLEEP_S}")
    Path("/sys/power/state").write_text("mem")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic() - began


def test_it_is_alive() -> None:
    """systemd has heard so since it started; the recorder that is stopped is not, and another one is started."""
    timeout_s = int(re.search(r"WatchdogSec=(\d+)", PAGE)[1])
    since = int(shown("ActiveEnterTimestampMonotonic"))
    wait_until(lambda: int(shown("WatchdogTimestampMonotonic")) - since > timeout_s * 1e6, "a word later than the limit")
    assert shown("NRestarts") == "0"
    main = int(shown("MainPID"))
    for pid in set(processes()) - {main}:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: shown("NRestarts") == "1" and shown("ActiveState") == "active", "the next start")
    assert main != int(shown("MainPID"))


def test_it_stops() -> None:
    """SIGTERM ends the recording, and its files are whole."""
    run("systemctl", "stop", SERVICE)
    assert (shown("ActiveState"), shown("Result"), shown("ExecMainStatus")) == ("inactive", "success", "0")
    assert forktrace.read(FOLDER).cut is None
    assert len(rows())


def test_a_full_disk() -> None:
    """It ends with a line and 125, its files are whole, and once there is room the next start goes on with the next number."""
    run("mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(FOLDER))
    run("systemctl", "start", SERVICE)
    first = paths(str(FOLDER))
    ballast = FOLDER / "ballast"
    subprocess.run(["dd", "if=/dev/zero", f"of={ballast}", "bs=4096"], check=False)  # until there is no room
    wait_until(lambda: shown("ExecMainStatus") == "125", "its end")
    assert "No space left on device" in journal()
    assert len(forktrace.read(first[0]).lifecycles())
    ballast.unlink()
    wait_until(lambda: shown("ActiveState") == "active", "the next start")
    assert paths(str(FOLDER)) > first
    run("systemctl", "stop", SERVICE)
