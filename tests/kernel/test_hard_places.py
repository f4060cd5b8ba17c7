"""Where recording is hard: no room for a process, small limits, a hidden /proc, a closed home, a reader that stalls."""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import SMALL, small_cgroup
from people import Person, make_venv, recorder_line
from recorded import MARK, PATIENCE_S, ROOT_IS_A_MOUNT, forktrace_command, kill_with, wait_until

import forktrace
from forktrace.system.capabilities import nobody_for

pytestmark = pytest.mark.root

FULL_AT = 25  # processes


@pytest.fixture
def trace(open_folder: Path) -> Path:
    """Where a trace may go."""
    return open_folder / f"{uuid.uuid4()}.arrows"


@contextmanager
def room_for(processes: int) -> Iterator[Path]:
    """The cgroup.procs of a control group with room for so many processes."""
    controller, first, second, _ = "pids", *SMALL["pids"]
    folder = small_cgroup(controller, first, second, str(processes))
    if folder is None:
        pytest.skip("the pids controller of cgroups is not available")
    try:
        yield folder / "cgroup.procs"
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), "all have left the group")
        folder.rmdir()


def record_in(group: Path, command: list[str], trace: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Record a command, all of it in a control group."""
    line = ["sh", "-c", f'echo $$ > {group} && exec "$@"', "sh", *forktrace_command("record", "-o", str(trace), "--", *command)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def own_words(stderr: str) -> list[str]:
    """The lines of forktrace's: a library says a word too when it finds no room for a thread."""
    return [line for line in stderr.splitlines() if line.startswith(("forktrace: ", "  "))]


FILLS = """
import os
made = 0
while True:
    try:
        if not os.fork():
            os._exit(0)
        made += 1
    except OSError:
        break
print(made)
"""


def test_a_command_that_fills_its_control_group(trace: Path, environment: Mapping[str, str]) -> None:
    """Zombies until no fork succeeds, in the recorder's group too: all of them are recorded, with the line and its text."""
    program = trace.with_suffix(".py")
    program.write_text(FILLS)
    for _ in range(3):
        with room_for(FULL_AT) as group:
            done = record_in(group, [sys.executable, str(program)], trace, environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        made = int(done.stdout)
        recording = forktrace.read(trace)
        assert FULL_AT - 8 < made < FULL_AT
        assert recording.lifecycles()["fork_site"].tolist()[1:] == [f"{program.name}:6 <module>"] * made
        assert "if not os.fork():" in recording.trace.table.to_pandas().query("kind == 'source'")["detail"].tolist()
        trace.unlink()


@pytest.mark.parametrize("room", range(1, 9))
def test_hardly_room_for_a_process(room: int, trace: Path, environment: Mapping[str, str]) -> None:
    """Either there is a trace that is whole, which says what it lacks, or one line and 125."""
    with room_for(room) as group:
        done = record_in(group, ["/bin/true"], trace, environment)
    assert "Traceback" not in done.stderr
    said = own_words(done.stderr)
    if done.returncode == 0:
        assert room > 1
        recording = forktrace.read(trace)
        assert recording.lifecycles()["comm"].tolist() == ["true"]
        assert ("no process could be started" in done.stderr) == any("no process" in one for one in recording.header["lacks"])
    else:
        assert done.returncode == 125, done.stderr
        assert room < 6
        assert len(said) == 2
        assert re.search("Resource temporarily unavailable|can't start", said[0])
        assert "pids.max" in said[1]
        assert not trace.exists()


def test_no_room_for_what_looks_at_files(trace: Path, environment: Mapping[str, str]) -> None:
    """The recording goes on without it, and says so: with each process less that there is room for, it is what goes first."""
    said = ""
    for room in range(8, 1, -1):
        with room_for(room) as group:
            done = record_in(group, ["/bin/true"], trace, environment)
        said = done.stderr
        if done.returncode or "no process could be started" in said:
            break
        trace.unlink()
    assert done.returncode == 0, said
    assert "missing: source lines (no process could be started for them" in said


def test_recorders_of_others_do_not_count(person: Person, in_venv: str, trace: Path) -> None:
    """The real user of a recorder is that of no other user's: those do not use up this one's limit on processes."""
    idle = [subprocess.Popen(["setpriv", f"--ruid={nobody_for(person.uid + 1)}", "sleep", "600"]) for _ in range(20)]
    try:
        with person.may("ALL"):
            done = person.run(["prlimit", "--nproc=15", in_venv, "record", "-o", str(trace), "--", *FORKS_ONCE])
    finally:
        for each in idle:
            each.kill()
            each.wait()
    assert done.returncode == 0, done.stderr
    assert forktrace.read(trace).lifecycles()["fork_site"].tolist()[1] == "<string>:2 <module>"


FORKS_ONCE = ["/usr/bin/env", "python3", "-c", "import os\nos.fork() or os._exit(0)\nos.wait()"]


HARD = ("-n 16", "-n 8", "-t 1", "-v 400000", "-d 60000", "-u 8", "-l 0", "-s 1024")
SOFT = ("-S -n 16", "-S -t 1", "-S -d 60000", "-S -u 8")  # which everybody may raise


@pytest.mark.parametrize("limit", [*HARD, *SOFT])
def test_small_limits(limit: str, trace: Path, environment: Mapping[str, str]) -> None:
    """Root raises what it may: it is recorded; what cannot be is one line that names the limit."""
    script = f'ulimit {limit} && exec "$@"'
    line = ["bash", "-c", script, "bash", *forktrace_command("record", "-o", str(trace), "--", "/bin/sh", "-c", "exit 3")]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "Traceback" not in done.stderr
    said = own_words(done.stderr)
    if done.returncode == 125 and limit in HARD:  # which root may raise only with CAP_SYS_RESOURCE
        assert len(said) == 2, said
        assert f"ulimit {limit.split()[0]} sets it" in said[1]
        return
    assert done.returncode == 3, done.stderr
    assert forktrace.read(trace).lifecycles()["comm"].tolist() == ["sh"]


@pytest.mark.skipif(not ROOT_IS_A_MOUNT, reason="unshare --mount needs a root that is a mount, which this one is not")
@pytest.mark.parametrize("hidden", ["2", "ptraceable"])
@pytest.mark.parametrize("way", ["sudo", "--user"])
def test_a_hidden_proc(hidden: str, way: str, person: Person, in_venv: str, trace: Path) -> None:
    """Where /proc hides the processes of others, stacks and lines are as elsewhere."""
    record = [in_venv, "record", "-o", str(trace), *(["--user", person.name] if way == "--user" else []), "--", *FORKS_ONCE]
    line = shlex.join(record if way == "--user" else person.command(record))
    script = f"mount -t proc -o hidepid={hidden} proc /proc && cd {person.home} && exec {line}"
    with person.may("ALL"):
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", script],
            env=person.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    assert done.returncode == 0, done.stderr
    assert forktrace.read(trace).lifecycles()["fork_site"].tolist()[1] == "<string>:2 <module>"


ZOMBIE = "import subprocess, time\nhis = subprocess.Popen(['sudo', '-n', 'true'])\ntime.sleep(600)"


@pytest.mark.skipif(not ROOT_IS_A_MOUNT, reason="unshare --mount needs a root that is a mount, which this one is not")
def test_a_zombie_that_proc_hides(person: Person, in_venv: str, trace: Path) -> None:
    """A zombie of root's below a program of the person's is one to the end, though /proc shows the person none of it."""
    mark = str(uuid.uuid4())
    record = [in_venv, "record", "-o", str(trace), "--", "/usr/bin/env", "python3", "-c", ZOMBIE]
    script = f"mount -t proc -o hidepid=2 proc /proc && cd {person.home} && exec {shlex.join(person.command(record))}"
    with person.may("ALL"):
        line, environment = ["unshare", "--mount", "sh", "-ec", script], person.environment(mark)
        recording = subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, text=True)
        wait_until(lambda: trace.exists() and trace.stat().st_size and states(trace) == ["zombie"], "it is a zombie")
        press_twice(recording, signal.SIGINT)
        recording.wait(PATIENCE_S)
    kill_with(f"{MARK}={mark}")
    assert forktrace.read(trace).cut is None
    assert states(trace) == ["zombie"]


def states(trace: Path) -> list[str]:
    """What became of the children of the command, as far as a recording has come."""
    table = forktrace.read(trace).lifecycles()
    return list(table.loc[table["parent_id"] == 0, "state"])


def press_twice(recording: subprocess.Popen[str], number: int) -> None:
    """End a recording as a person does, with two key strokes: at once they would be one signal."""
    for _ in range(2):
        recording.send_signal(number)
        time.sleep(0.2)


@pytest.mark.parametrize("way", ["sudo", "root"])
def test_a_closed_home(way: str, person: Person, open_place: Path, trace: Path) -> None:
    """forktrace below a directory that only its owner may enter: for the owner through sudo, and for another user from root."""
    home = open_place / f"closed-{way}"
    home.mkdir(mode=0o700)
    command = str(make_venv(home / "venv", open_place))
    try:
        if way == "sudo":
            person.owns(home)
            with person.may(recorder_line(str(Path(command).with_name("python")), person)):
                done = person.run([command, "record", "-o", str(trace), "--", *FORKS_ONCE])
        else:
            line = [command, "record", "-o", str(trace), "--user", person.name, "--", *FORKS_ONCE]
            done = subprocess.run(
                line, env=person.environment(), cwd="/", capture_output=True, text=True, timeout=PATIENCE_S, check=False
            )
    finally:
        shutil.rmtree(home)
    assert done.returncode == 0, done.stderr
    assert forktrace.read(trace).lifecycles()["fork_site"].tolist()[1] == "<string>:2 <module>"


STORM = "while :; do /bin/true; done"


@pytest.mark.parametrize("way", ["command", "-p", "pipe"])
def test_a_reader_that_stalls(way: str, trace: Path, environment: Mapping[str, str]) -> None:
    """A second signal ends a recording whose output nobody reads; the program goes on where it was attached to."""
    marked = dict(environment) | {MARK: str(uuid.uuid4())}
    os.mkfifo(trace)
    reader = os.open(trace, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(trace, os.O_WRONLY)
    with subprocess.Popen(["sh", "-c", STORM], env=marked) as storm:
        command = ["-p", str(storm.pid)] if way == "-p" else ["--", "sh", "-c", STORM]
        line = forktrace_command("record", "-o", "-" if way == "pipe" else str(trace), *command)
        recording = subprocess.Popen(line, env=marked, stdout=writer, stderr=subprocess.PIPE, text=True)
        try:
            wait_until(lambda: not select.select([], [writer], [], 0)[1], "the pipe is full")
            press_twice(recording, signal.SIGTERM)
            _, said = recording.communicate(timeout=PATIENCE_S / 4)
            assert storm.poll() is None
        finally:
            recording.kill()
            os.close(reader)
            os.close(writer)
            kill_with(f"{MARK}={marked[MARK]}")
    assert "Traceback" not in said


def test_process_1(environment: Mapping[str, str], trace: Path) -> None:
    """What cannot be recorded is said as it is: process 1 runs, and has not ended."""
    line = forktrace_command("record", "-o", str(trace), "-d", "0.5", "-p", "1")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert "ended" not in done.stderr
    if done.returncode:
        assert "the kernel shows process 1 to no probe" in done.stderr
        assert not trace.exists()
