"""A recording of many files: nothing is lost or doubled where one ends and the next begins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from people import somebody
from recorded import DEBIAN, WORKLOADS, Recorded, forktrace_command, wait_until

import forktrace
from forktrace.analysis.tables.lifecycles import LIVING
from forktrace.trace import rotation

pytestmark = pytest.mark.root

STORM_S = 4
GROUPS = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/pids")]
WAITS = "import os, time\nfor _ in range({}):\n  pid = os.fork()\n  time.sleep(.05) if pid else os._exit(0)\ntime.sleep({})"


@pytest.fixture
def folder(open_folder: Path) -> Path:
    """An empty directory."""
    made = open_folder / str(uuid.uuid4())
    made.mkdir()
    return made


def started(folder: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start a recording with these arguments."""
    line = forktrace_command("record", "-o", f"{folder}/", *arguments)
    environment = os.environ | more
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def files(folder: Path) -> list[Path]:
    """The files, in order; one that is empty is the next."""
    return [path for path in sorted(folder.glob("*.arrows")) if path.stat().st_size]


@pytest.fixture(scope="module")
def storm(workload: Callable[[str], str], open_folder: Path) -> tuple[Path, Recorded, int]:
    """Processes of every kind at full speed, with a turn ten times a second; how many turns were asked for."""
    folder = open_folder / str(uuid.uuid4())
    folder.mkdir()
    load = [sys.executable, str(WORKLOADS / "mixed.py"), str(STORM_S), workload("reaps"), str(open_folder)]
    with started(folder, "--rotate", "1s", "--", *load) as launcher:
        wait_until(lambda: files(folder), "a first file")
        asked = 0
        while launcher.poll() is None:
            launcher.send_signal(signal.SIGHUP)
            asked += 1
            time.sleep(0.1)
        said, words = launcher.communicate()
    assert launcher.returncode == 0, words
    return folder, Recorded(folder, launcher.returncode, said, words), asked


def test_every_process_once(storm: tuple[Path, Recorded, int]) -> None:
    """Over all files each process that was made is one row, no event comes twice, and nothing is missing."""
    folder, recorded, _ = storm
    assert len(files(folder)) > STORM_S
    made = sum(json.loads(line)["made"] for line in recorded.stdout.splitlines())
    recorded.assert_balanced()
    recorded.assert_whole()
    assert len(recorded.table) == 1 + made
    assert recorded.table["complete"].mean() > 0.999, recorded.table["notes"].value_counts()
    assert not recorded.table["carried"].any()


def test_every_file_by_itself(storm: tuple[Path, Recorded, int]) -> None:
    """It reads without the others: who was left at the end of one is who is there at the beginning of the next, as it was."""
    folder, recorded, _ = storm
    whole = recorded.table.set_index(["pid", "fork_ns"])
    left: set[tuple[int, int]] = set()
    events = 0
    for path in files(folder):
        one = forktrace.read(path)
        table = one.lifecycles().set_index(["pid", "fork_ns"])
        assert one.cut is None
        assert one.balance().holds, path
        assert set(table.index[table["carried"]]) == left, path
        left = set(table.index[table["state"] != "gone"])
        events += len(one.trace.carried) - int(one.trace.carried.sum())
        for column in ("comm", "argv", "fork_site", "created_by", "exit_code", "origin"):
            ended = ~table["state"].isin(LIVING)  # others may run another program later
            pair = (table[ended], whole.loc[table.index[ended]])
            found, expected = (each[column].astype(object).fillna("").tolist() for each in pair)
            assert found == expected, (path, column)
    assert not left
    assert events - len(files(folder)) == len(recorded.raw) - 1  # each has its end


def test_a_turn_says_what_it_was_asked(storm: tuple[Path, Recorded, int]) -> None:
    """SIGHUP is not the command's: it ended by itself, and there was a turn for most of those that were sent."""
    folder, recorded, asked = storm
    assert len(files(folder)) > min(asked, 20) / 3
    assert recorded.table.loc[0, "exit_code"] == 0


def test_only_so_many_files(folder: Path) -> None:
    """`--keep` counts those that there are, the newest is never removed, and no other file is touched."""
    (folder / "notes.arrows").write_text("mine")
    (folder / "forktrace-other.000041.arrows").write_text("mine too")
    command = [sys.executable, "-c", WAITS.format(40, 3)]
    with started(folder, "--rotate", "1s", "--keep", "2", "--", *command) as launcher:
        _, words = launcher.communicate()
    assert launcher.returncode == 0, words
    names = [path.name for path in files(folder)]
    assert names[0] == "forktrace-other.000041.arrows"
    assert len(names) == 4
    numbers = [file.number for file in rotation.find(folder).files]
    assert numbers[1] == numbers[0] + 1 > 44  # the first had a number that there was not
    assert forktrace.read(folder).lifecycles()["carried"].any()


def test_into_a_dataset(folder: Path, open_folder: Path) -> None:
    """Each file is added when it is finished, the last one at the end, by a process of the user's: each process once."""
    with somebody(open_folder) as person, tempfile.TemporaryDirectory(dir=person.home) as home:
        person.owns(Path(home))
        person.owns(folder)
        hive, command = Path(home, "hive"), [DEBIAN, "-c", WAITS.format(40, 2)]
        more = ("--rotate", "1h", "--hive", str(hive), "--user", person.name)
        with started(folder, *more, "--", *command) as launcher:
            for turns in (1, 2):
                wait_until(lambda turns=turns: len(files(folder)) == turns, "the next file")
                time.sleep(0.3)  # for processes in it
                launcher.send_signal(signal.SIGHUP)
            wait_until(lambda: len(list(hive.rglob("*.parquet"))) == 2, "the files that are finished")
            assert launcher.poll() is None
            _, words = launcher.communicate()
        assert launcher.returncode == 0, words
        added = list(hive.rglob("*.parquet"))
        assert (len(added), {path.stat().st_uid for path in added}) == (3, {person.uid})
        found = forktrace.dataset(hive).to_table().to_pandas()
        expected = forktrace.read(folder).lifecycles()
        assert len(expected) == 41
        assert sorted(zip(found["pid"], found["fork_ns"], strict=True)) == sorted(
            zip(expected["pid"], expected["fork_ns"], strict=True)
        )
        assert found["carried"].any()


def test_the_launcher_is_killed(folder: Path) -> None:
    """The recorder finishes its file and ends: it is whole up to then."""
    with started(folder, "--rotate", "1h", "--", sys.executable, "-c", WAITS.format(20, 1)) as launcher:
        wait_until(lambda: files(folder) and len(forktrace.read(folder).lifecycles()) > 3, "processes in the newest file")
        launcher.kill()
    wait_until(lambda: forktrace.read(folder).cut is None, "the end of the file")


def test_the_newest_file_is_removed(folder: Path) -> None:
    """That is said in a line, and the recording goes on in the next one."""
    with started(folder, "--rotate", "1h", "--", sys.executable, "-c", WAITS.format(60, 1)) as launcher:
        wait_until(lambda: files(folder), "a first file")
        files(folder)[0].unlink()
        _, words = launcher.communicate()
    assert launcher.returncode == 0, words
    assert "was removed while it was written" in words
    table = forktrace.read(folder).lifecycles()
    assert table["carried"].iloc[0]
    assert len(table) > 10


def test_two_recordings_do_not_share_a_directory(folder: Path) -> None:
    """The second one is refused in a line, with 125."""
    with started(folder, "--rotate", "1h", "--", "sleep", "3") as first:
        wait_until(lambda: files(folder), "a first file")
        second = started(folder, "--rotate", "1h", "--", "true")
        _, words = second.communicate()
        assert (second.returncode, "another recording writes to" in words) == (125, True)
        first.terminate()


def test_a_command_that_there_is_not(folder: Path) -> None:
    """Leaves no file behind."""
    (folder / "no-program").write_text("")
    (folder / "no-program").chmod(0o644)
    with started(folder, "--rotate", "1h", "--", str(folder / "no-program")) as launcher:
        launcher.communicate()
    assert launcher.returncode == 126
    assert files(folder) == []


def test_systemd_is_told(folder: Path, tmp_path: Path) -> None:
    """That the recording has begun, again and again that the recorder is alive, and that it ends."""
    import socket

    heard = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        more = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        with started(folder, "--rotate", "1h", "--", "sleep", "3", **more):
            while "STOPPING=1" not in heard:
                heard.append(manager.recv(100).decode())
    assert heard[0] == "READY=1"
    assert heard.count("WATCHDOG=1") >= 3


# A launcher that hands over what is no next file, or more than one, and does not listen meanwhile; prints how many descriptors
# the recorder had before and after.
HOSTILE = """
import json, os, socket, sys
from forktrace.launcher.command import HeldTarget
from forktrace.launcher.header import header
from forktrace.launcher.options import RotationPlan, RecordOptions
from forktrace.launcher.recorder_process import RecorderProcess
from forktrace.recorder.protocol.orders import Order, encoded
from forktrace.system.users import invoking_user

def opened(name):
    return os.open(os.path.join(sys.argv[1], name), os.O_RDWR | os.O_CREAT, 0o600)

def descriptors():
    return len(os.listdir(f"/proc/{recorder.pid}/fd"))

def answered():
    recorder.channel.send("ping")
    recorder.wait_for("pong")

who = invoking_user()
recorder = RecorderProcess(who, quiet=True)
recorder.arm(RecordOptions(stacks=False, rotation=RotationPlan(None, None, None, None)), "")
held = HeldTarget(["sleep", "600"], who)
first = opened("x.000001.arrows")
recorder.channel.send_order(encoded(Order("x", header(["sleep"], held.pid, "me", {}), pid=held.pid, file=1)), [first])
recorder.wait_for("ready")
held.release()
answered()
before = descriptors()
refused = []
recorder.on["refused"] = lambda said: refused.append(said["why"])
with open(os.path.join(sys.argv[1], "full"), "w") as full:
    full.write("x")
no_files = [os.pipe()[1], socket.socketpair()[0].detach(), os.open("/", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)]
for wrong in (*no_files, first, os.open(full.name, os.O_RDWR), os.open("/etc/passwd", os.O_RDONLY)):
    recorder.channel.send_descriptor("next", wrong, path="wrong")
    answered()
recorder.channel.send("next", path="none")
socket.send_fds(recorder.channel._end, [b'{"say": "next", "path": "many"}'], [first] * 9)
socket.send_fds(recorder.channel._end, [b'{"say": "ended"}'], [first] * 9)
for number in range(2, 60):
    recorder.channel.send_descriptor("next", opened(f"x.{number:06}.arrows"), path="next")
answered()
print(json.dumps([before, descriptors(), refused]), flush=True)
os.kill(held.pid, 9)
os.waitpid(held.pid, 0)
recorder.wait_for("done")
recorder.close()
"""


def test_a_launcher_that_means_harm(folder: Path) -> None:
    """What is no new file is refused and closed, one next file is taken at a time, and no file is written twice."""
    done = subprocess.run([sys.executable, "-c", HOSTILE, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after, refused = json.loads(done.stdout)
    assert after == before
    assert [one.partition(" ")[2] for one in refused] == [
        *["is no regular file"] * 4,
        *["is not empty"] * 3,
    ]
    assert (folder / "full").read_text() == "x"
    whole = forktrace.read(folder)
    assert whole.cut is None
    assert whole.lifecycles()["comm"].tolist() == ["sleep"]


def test_the_disk_is_full(open_folder: Path) -> None:
    """The recording ends with a line and 125, and what was written can be read."""
    place = open_folder / str(uuid.uuid4())
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "x", place], check=True)
    try:
        with started(place / "d", "--rotate", "1s", "--", sys.executable, "-c", WAITS.format(400, 0)) as launcher:
            _, words = launcher.communicate()
        assert launcher.returncode == 125
        assert "No space left on device" in words
        assert len(words.splitlines()) <= 4
        table = forktrace.read(place / "d").lifecycles()
        assert len(table) > 10
    finally:
        subprocess.run(["umount", place], check=True)


def service(group: Path) -> subprocess.Popen[bytes]:
    """A process that runs in a control group."""
    made = subprocess.Popen(["sh", "-c", f"echo $$ > {group}/cgroup.procs; exec sleep 600"])
    wait_until(lambda: Path(f"/proc/{made.pid}/comm").read_text() == "sleep\n", "it runs")
    return made


def ended(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and see it end."""
    process.kill()
    process.wait()


def test_the_watched_service_is_restarted(folder: Path) -> None:
    """Its control group stays, so the recording goes on with the next one, over turns; and ends with the group."""
    group = next(one for one in GROUPS if (one / "cgroup.procs").exists()) / f"forktrace-test-{uuid.uuid4()}"
    group.mkdir()
    first = service(group)
    with started(folder, "--rotate", "1h", "--cgroup", str(group)) as launcher:
        wait_until(lambda: files(folder) and len(forktrace.read(folder).lifecycles()) == 1, "the first is followed")
        ended(first)
        launcher.send_signal(signal.SIGHUP)
        wait_until(lambda: len(files(folder)) == 2, "a second file")
        second = service(group)
        wait_until(lambda: second.pid in set(forktrace.read(files(folder)[1]).lifecycles()["pid"]), "the second is followed")
        ended(second)
        group.rmdir()
        _, words = launcher.communicate()
    assert launcher.returncode == 0, words
    table = forktrace.read(folder).lifecycles()
    assert table["pid"].tolist() == [first.pid, second.pid]
    assert table["state"].tolist() == ["gone", "gone"]
