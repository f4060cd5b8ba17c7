"""`forktrace record` around a command: how both end, what the command sees of it, and who it runs as."""

import os
import re
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from recorded import MARK, PATIENCE_S, ROOT_IS_A_MOUNT, Recorded, forktrace_command, processes_with, wait_until
from terminal import Terminal

import forktrace
from forktrace.kernel import bpf

pytestmark = pytest.mark.root

Record = Callable[..., Recorded]
Workload = Callable[[str], str]


def test_first_fork(record: Record, workload: Workload) -> None:
    """A fork that is the target's first instruction is recorded, and record ends with the target's code."""
    recorded = record([workload("first")])
    assert recorded.returncode == 7
    assert recorded.stdout == ""
    assert recorded.table["origin"].tolist() == ["target", "forked"]
    assert recorded.table["exit_code"].tolist() == [7, 3]
    assert recorded.table["fork_call"].tolist()[1] == "fork"
    assert recorded.table["parent_id"].tolist()[1] == 0


def test_ends_by_signal(record: Record) -> None:
    """record dies of the signal that killed the target."""
    recorded = record(["/bin/sh", "-c", "/bin/true; kill -USR1 $$"])
    assert recorded.returncode == -signal.SIGUSR1
    assert recorded.row(recorded.recording.header["target_pid"])["term_signal"] == "SIGUSR1"


def test_the_span_that_started_it(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """The TRACEPARENT of the target is in the header, of a command that starts and of a process that runs."""
    span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    told = dict(environment) | {"TRACEPARENT": span}
    paths = [tmp_path / "started.arrows", tmp_path / "running.arrows"]
    with subprocess.Popen(["sleep", "60"], env=told) as running:
        whats = (["--", "/bin/true"], ["-p", str(running.pid), "-d", "0.1"])
        for path, what, env in zip(paths, whats, (told, environment), strict=True):
            line = forktrace_command("record", "-q", "-o", str(path), *what)
            subprocess.run(line, env=env, timeout=PATIENCE_S, check=True)
        running.kill()
    assert [forktrace.read(path).header.get("traceparent") for path in paths] == [span, span]


@pytest.mark.parametrize(
    ("command", "status"), [("/nonexistent/program", 127), ("no-such-command-here", 127), ("/etc/passwd", 126)]
)
def test_no_command(command: str, status: int, open_folder: Path, environment: Mapping[str, str]) -> None:
    """A command that is not there ends in 127, one that cannot be executed in 126; one line says so, and no trace is left."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    line = forktrace_command("record", "-o", str(path), "--", command)
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == status, done.stderr
    assert command in done.stderr
    assert "Traceback" not in done.stderr
    assert not path.exists()


def test_output_exists(open_folder: Path, environment: Mapping[str, str]) -> None:
    """An existing output file is not overwritten: status 125, and the command does not run."""
    path, ran = open_folder / f"{uuid.uuid4()}.arrows", open_folder / str(uuid.uuid4())
    path.write_text("precious")
    line = forktrace_command("record", "-o", str(path), "--", "touch", str(ran))
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 125, done.stderr
    assert path.read_text() == "precious"
    assert "--force" in done.stderr
    assert not ran.exists()


@pytest.fixture
def null() -> Iterator[Path]:
    """A device like /dev/null, which is too precious for experiments."""
    path = Path(f"/dev/forktrace-test-{os.getpid()}")
    os.mknod(path, stat.S_IFCHR | 0o666, Path("/dev/null").stat().st_rdev)
    path.chmod(0o666)
    yield path
    path.unlink()


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_a_device(null: Path, options: list[str], environment: Mapping[str, str]) -> None:
    """What is written to a device replaces nothing: it needs no --force, is left as it is, and cannot be read again."""
    line = forktrace_command("record", *options, "-o", str(null), "--", "/bin/sh", "-c", "exit 3")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 3
    assert re.fullmatch(rf"(.*zombie.*\n)?forktrace: \d+ events of 1 process, 0 lost: {null}\n", done.stderr)
    assert stat.filemode(null.stat().st_mode) == "crw-rw-rw-"


def bpf_programs() -> set[int]:
    """The numbers of all BPF programs that the kernel has (bpf(2), BPF_PROG_GET_NEXT_ID)."""
    found, last = set[int](), 0
    while True:
        attributes = bytearray(struct.pack("<III", last, 0, 0).ljust(16, b"\0"))
        try:
            bpf.call(11, attributes)
        except FileNotFoundError:
            return found
        (last,) = struct.unpack_from("<I", attributes, 4)
        found.add(last)


@pytest.mark.parametrize("has_io_uring", [True, False])
def test_no_program_stays_in_the_kernel(
    has_io_uring: bool, open_folder: Path, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel detaches the probes after the recorder has ended, where it can."""
    before, line = bpf_programs(), ["record", "-q", "-o", str(open_folder / f"{uuid.uuid4()}.arrows"), "--", "/bin/true"]
    without = "from forktrace.kernel import bpf; bpf._IO_URING_SETUP = -1; from forktrace.cli import main; main()"
    command = forktrace_command(*line) if has_io_uring else [sys.executable, "-c", without, *line]
    subprocess.run(command, env=environment, timeout=PATIENCE_S, check=True)
    wait_until(lambda: not bpf_programs() - before, "the programs are gone")


def test_a_pipe(open_folder: Path, environment: Mapping[str, str]) -> None:
    """A trace goes whole through a named pipe to its reader."""
    pipe, path = open_folder / str(uuid.uuid4()), open_folder / f"{uuid.uuid4()}.arrows"
    os.mkfifo(pipe)
    line = forktrace_command("record", "-q", "-o", str(pipe), "--", "/bin/true")
    with path.open("wb") as file, subprocess.Popen(["cat", pipe], stdout=file) as reader:
        try:
            subprocess.run(line, env=environment, timeout=PATIENCE_S, check=True)
            assert reader.wait(PATIENCE_S) == 0
        finally:
            reader.kill()
    assert closed_recording(path).table["comm"].tolist() == ["true"]
    assert pipe.is_fifo()


CATCHES = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child's, from its first instruction
parent, child = os.getpid(), os.fork()
if not child:
    while os.getppid() == parent:
        time.sleep(0.01)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    os._exit(6)
signal.signal(signal.SIGINT, lambda *_: os._exit(5))
print("the target is up", flush=True)
os.waitpid(child, 0)
"""

OUTLIVES = """
import os, time
parent = os.getpid()
if os.fork():
    os._exit(3)
while os.getppid() == parent:
    time.sleep(0.01)
os.fork() or os._exit(4)
os.wait()
while os.path.exists(f"/proc/{parent}"):  # until who recorded it has reaped it
    time.sleep(0.01)
os._exit(5)
"""

PRESSED = """
import os, signal
from forktrace import cli
from forktrace.launcher import command

class Pressed(command.HeldTarget):
    def release(self):
        super().release()
        os.kill(os.getpid(), signal.SIGINT)

command.HeldTarget = Pressed
cli.main()
"""

FILLS = """
import os, sys, time
grows = True
for _ in range(15):
    size = os.path.getsize(sys.argv[1])
    for _ in range(100):
        os.fork() or os._exit(0)
        os.wait()
    deadline = time.monotonic() + 2
    while grows and os.path.getsize(sys.argv[1]) == size:
        grows = time.monotonic() < deadline
        time.sleep(0.01)
print("the target is done")
"""

IGNORES = """
import os, signal, time
def once(*_):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.fork() or os._exit(0)
signal.signal(signal.SIGINT, once)
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal goes away with the recording
print("the target is up", flush=True)
while True:
    time.sleep(600)
"""


def closed_recording(path: Path) -> Recorded:
    """The recording at `path`, whose balance and totals hold."""
    recorded = Recorded(path, 0, "", "")
    recorded.assert_balanced()
    recorded.assert_whole()
    return recorded


def test_ctrl_c(open_folder: Path, environment: Mapping[str, str]) -> None:
    """Ctrl-C is the target's: record ends as the target does because of it, after the last descendant is gone."""
    path, goes = open_folder / f"{uuid.uuid4()}.arrows", open_folder / str(uuid.uuid4())
    terminal = Terminal(
        forktrace_command("record", "-o", str(path), "--", sys.executable, "-c", CATCHES, str(goes)), environment
    )
    terminal.until("the target is up")
    terminal.press(b"\x03")
    terminal.until("still following 1 process")
    goes.touch()
    assert terminal.wait() == 5, terminal.text
    recorded = closed_recording(path)
    assert recorded.table["exit_code"].tolist() == [5, 6]
    assert not processes_with(terminal.mark)


def test_ctrl_c_kills(open_folder: Path, environment: Mapping[str, str]) -> None:
    """A target without a handler dies of Ctrl-C, and record with it, its trace whole."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    command = ["/bin/sh", "-c", "echo the target is up; exec sleep 600"]
    terminal = Terminal(forktrace_command("record", "-o", str(path), "--", *command), environment)
    terminal.until("the target is up")
    terminal.press(b"\x03")
    assert terminal.wait() == -signal.SIGINT, terminal.text
    recorded = closed_recording(path)
    assert recorded.table["term_signal"].tolist() == ["SIGINT"]
    assert recorded.table["killer_kind"].tolist() == ["kernel"]


def test_second_ctrl_c(open_folder: Path, environment: Mapping[str, str]) -> None:
    """A second Ctrl-C ends the recording of a target that ignores it; the target runs on, and the trace is whole."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    terminal = Terminal(forktrace_command("record", "-o", str(path), "--", sys.executable, "-c", IGNORES), environment)
    terminal.until("the target is up")
    target = forktrace.read(path).header["target_pid"]
    try:
        terminal.press(b"\x03")
        wait_until(lambda: len(forktrace.read(path).lifecycles()) == 2, "what the target does then is recorded")
        assert os.waitpid(terminal.pid, os.WNOHANG) == (0, 0), "the first Ctrl-C ended the recording"
        terminal.press(b"\x03")
        terminal.wait()
        assert processes_with(terminal.mark) == [target]
    finally:
        os.kill(target, signal.SIGKILL)
    assert closed_recording(path).table["state"].tolist() == ["running", "zombie"]


def test_ctrl_c_at_once(open_folder: Path, environment: Mapping[str, str]) -> None:
    """From the target's first moment on Ctrl-C is its own: it does not end record, however early it comes."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    line = [sys.executable, "-c", PRESSED, "record", "-q", "-o", str(path), "--", "/bin/sh", "-c", "sleep 0.2; exit 4"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (4, "")
    assert closed_recording(path).table["exit_code"].tolist() == [4, 0]


def test_outlives_the_command(record: Record) -> None:
    """record follows on until the last descendant is gone, and ends with the status of the command."""
    recorded = record([sys.executable, "-c", OUTLIVES])
    assert recorded.returncode == 3
    assert recorded.table["exit_code"].tolist() == [3, 5, 4]
    command, outlived, _ = (row for _, row in recorded.table.iterrows())
    assert outlived["exit_ns"] > command["reap_ns"]
    # It came to pid 1, whose doings are not ours to know: here it looks every other second, and may be later than record waits.
    assert outlived["state"] == "zombie" or outlived["adopter_pid"] == outlived["reaper_pid"]


def test_duration(open_folder: Path, environment: Mapping[str, str]) -> None:
    """After -d seconds the recording ends with status 0, and the target runs on; a zombie then counts with its age."""
    path, mark = open_folder / f"{uuid.uuid4()}.arrows", f"{MARK}={uuid.uuid4()}"
    line = forktrace_command("record", "-q", "-o", str(path), "-d", "2", "--", "/bin/sh", "-c", "/bin/true & exec sleep 600")
    with tempfile.TemporaryFile("w+") as errors:  # not a pipe, which the target would hold open
        done = subprocess.run(
            line, env=dict(environment) | dict([mark.split("=")]), timeout=PATIENCE_S, check=False, stderr=errors
        )
    alive = processes_with(mark)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert done.returncode == 0
    recorded = closed_recording(path)
    assert alive == [recorded.recording.header["target_pid"]]
    assert recorded.table["state"].tolist() == ["running", "zombie"]
    assert recorded.table["zombie_open"].tolist() == [False, True]
    end_ns, zombie = recorded.recording.end_ns, recorded.table.iloc[1]
    assert end_ns - recorded.recording.start_ns >= 2_000_000_000
    assert zombie["zombie_ms"] == (end_ns - zombie["zombie_ns"]) / 1e6


def test_surroundings(workload: Workload, open_folder: Path, environment: Mapping[str, str]) -> None:
    """The target sees what it would see without a recorder: descriptors, terminal, group, limits, signals, environment."""
    path, before, after = (open_folder / str(uuid.uuid4()) for _ in range(3))
    program = workload("surroundings")
    recorder = f"{sys.executable} -m forktrace record -q -o {path} --"
    script = (
        "umask 027; ulimit -n 512; ulimit -c 0; trap '' USR2; exec 7<$0 3</dev/null;"
        f"printf hello | {program} a 'b c' >{before}; printf hello | {recorder} {program} a 'b c' >{after}"
    )
    terminal = Terminal(["/bin/sh", "-c", script, __file__], environment)
    assert terminal.wait() == 0, terminal.text
    bare, recorded = (file.read_text().replace(str(after), str(before)).splitlines() for file in (before, after))
    assert "stdin 5 bytes" in bare
    assert "argument b c" in bare
    assert recorded == bare


def test_whoever_ignores_their_children(record: Callable[..., Recorded]) -> None:
    """Started by a process that ignores SIGCHLD: how the command ended is still known, and it ignores SIGCHLD too."""
    command = [
        sys.executable,
        "-c",
        "import os, signal; print(signal.getsignal(signal.SIGCHLD)); os.fork() or os._exit(0); exit(3)",
    ]
    recorded = record(command, preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert recorded.returncode == 3, recorded.stderr
    assert recorded.stdout.split() == [str(signal.SIG_IGN.value)]
    assert recorded.table["reap_call"].tolist()[0] == "wait4"


def test_terminal(workload: Workload, open_folder: Path, environment: Mapping[str, str]) -> None:
    """On a terminal the target is in its foreground group, and reads and writes it directly."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    program = workload("surroundings")
    script = f"stty -echo; {program}; {sys.executable} -m forktrace record -q -o {path} -- {program}"
    terminal = Terminal(["/bin/sh", "-c", script], environment)
    terminal.until("/dev/pts")
    terminal.press(b"one\n\x04")
    terminal.until("stdin 4 bytes")
    terminal.press(b"one\n\x04")
    assert terminal.wait() == 0, terminal.text
    own = [line for line in terminal.text.splitlines() if line.startswith(("group ", "0 /dev", "1 /dev", "2 /dev", "stdin"))]
    assert len(own) == 10
    assert own[:5] == own[5:]


def test_sigpipe(open_folder: Path, environment: Mapping[str, str]) -> None:
    """A target whose reader is gone dies of SIGPIPE, as it would alone."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    line = forktrace_command("record", "-q", "-o", str(path), "--", "yes")
    with subprocess.Popen(line, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.read(2) == b"y\n"
        recorder.stdout.close()
        assert recorder.wait(PATIENCE_S) == -signal.SIGPIPE
    assert closed_recording(path).table["term_signal"].tolist() == ["SIGPIPE"]


def test_killed_recorder(open_folder: Path, environment: Mapping[str, str]) -> None:
    """SIGKILL of the recorder leaves a trace that can be read, cut off, and a target that runs on."""
    path, mark = open_folder / f"{uuid.uuid4()}.arrows", f"{MARK}={uuid.uuid4()}"
    script = "for i in 1 2 3 4 5 6 7; do /bin/true; done; echo done; exec sleep 600"
    line = forktrace_command("record", "-q", "-o", str(path), "--", "/bin/sh", "-c", script)
    with subprocess.Popen(line, env=dict(environment) | dict([mark.split("=")]), stdout=subprocess.PIPE) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == b"done\n"
        wait_until(lambda: (forktrace.read(path).lifecycles()["state"] == "gone").sum() == 7, "what was done is written")
        target = forktrace.read(path).header["target_pid"]
        children = Path(f"/proc/{recorder.pid}/task/{recorder.pid}/children").read_text().split()
        (recorder_pid,) = {int(pid) for pid in children} - {target}
        os.kill(recorder_pid, signal.SIGKILL)
        wait_until(lambda: waits_for_a_child(recorder.pid), "it waits for the command alone, which still runs")
        recorder.kill()
    try:
        wait_until(lambda: processes_with(mark) == [target], "only the target runs on")
    finally:
        for pid in processes_with(mark):
            os.kill(pid, signal.SIGKILL)
    recording = forktrace.read(path)
    assert recording.cut
    assert recording.lifecycles()["state"].tolist() == ["running", *["gone"] * 7]


def waits_for_a_child(pid: int) -> bool:
    """Whether the main thread of a process is in wait4(2), by its number on x86-64 and aarch64."""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in ("61", "260")


@pytest.fixture
def user(open_folder: Path) -> Iterator[str]:
    """An ordinary user who may run anything as root without a password, made and removed here."""
    if subprocess.run(["sh", "-c", "command -v sudo useradd"], capture_output=True, check=False).returncode:
        pytest.skip("sudo or useradd is not installed")
    name = f"forktrace-{os.getpid()}"
    rule = Path("/etc/sudoers.d", name)
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    try:
        rule.write_text(f"{name} ALL=(ALL:ALL) NOPASSWD: ALL\n")
        rule.chmod(0o440)
        yield name
    finally:
        rule.unlink(missing_ok=True)
        wait_until(lambda: subprocess.run(["userdel", name], check=False).returncode == 0, f"no process of {name} is left")


def as_user(user: str, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `sudo forktrace ...` as `user` would type it; `forktrace` is a script, as pip would install it."""
    script = folder / "forktrace"
    script.write_text(
        f'#!/bin/sh\nPYTHONPATH={Path(forktrace.__file__).parent.parent} exec {sys.executable} -m forktrace "$@"\n'
    )
    script.chmod(0o755)
    line = ["sudo", "-u", user, "-H", "env", f"{MARK}=sudo", "sudo", "-n", str(script), *command]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_sudo(user: str, open_folder: Path) -> None:
    """Under sudo the target runs as the person who typed it, with their environment, and the trace is theirs."""
    with tempfile.TemporaryDirectory(dir=open_folder) as name:
        folder = Path(name)
        folder.chmod(0o777)
        shown = ["/bin/sh", "-c", f"id -un; id -gn; id -Gn; pwd; echo $HOME ${MARK} $USER; touch made; exit 3"]
        bare = subprocess.run(
            ["sudo", "-u", user, "-H", "env", f"{MARK}=sudo", *shown], cwd=folder, capture_output=True, text=True, check=False
        )
        done = as_user(user, ["record", "-q", "-o", "own.arrows", "--", *shown], folder)
        assert done.returncode == bare.returncode == 3, done.stderr
        assert done.stdout == bare.stdout
        trace = folder / "own.arrows"
        assert trace.owner() == (folder / "made").owner() == user
        assert trace.stat().st_mode & 0o777 == 0o600
        recorded = closed_recording(trace)
        assert recorded.recording.header["user"] == user


def test_sudo_opens_with_the_users_rights(user: str, open_folder: Path) -> None:
    """A trace that the person could not write is not written for them by root."""
    with tempfile.TemporaryDirectory(dir=open_folder) as name:
        folder, locked = Path(name), Path(name) / "locked"
        folder.chmod(0o755)
        locked.mkdir(mode=0o700)
        done = as_user(user, ["record", "-o", str(locked / "x.arrows"), "--", "/bin/true"], folder)
        assert done.returncode == 125, done.stderr
        assert not list(locked.iterdir())


# $1 becomes a root that is no mount itself, only what lies in it is; and tracefs is not mounted.
CHROOT = """
root=$1; shift
while umount /sys/kernel/tracing 2>/dev/null; do :; done
for one in /*; do
    if [ -L "$one" ]; then cp -P "$one" "$root"; fi
    if [ -d "$one" ] && [ ! -L "$one" ]; then mkdir "$root$one"; mount --rbind "$one" "$root$one"; fi
done
exec chroot "$root" "$@"
"""


@pytest.mark.skipif(not ROOT_IS_A_MOUNT, reason="unshare --mount needs a root that is a mount, which this one is not")
def test_in_a_chroot(environment: Mapping[str, str], open_folder: Path) -> None:
    """It records in a chroot as debootstrap leaves it, too."""
    root, trace = open_folder / "root", open_folder / f"{uuid.uuid4()}.arrows"
    root.mkdir()
    record = ["env", f"--chdir={Path.cwd()}", *forktrace_command("record", "-q", "-o", str(trace), "--", "/bin/true")]
    line = ["unshare", "--mount", "sh", "-ec", CHROOT, "sh", str(root), *record]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert closed_recording(trace).table["comm"].tolist() == ["true"]


def test_full_disk(open_folder: Path, environment: Mapping[str, str]) -> None:
    """A disk that fills ends the recording with one line and 125; the target goes on, and what was written can be read."""
    disk = open_folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", disk], check=True)
    try:
        path = str(disk / "x.arrows")
        line = forktrace_command("record", "-o", path, "--", sys.executable, "-c", FILLS, path)
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        recording = forktrace.read(disk / "x.arrows")
    finally:
        subprocess.run(["umount", disk], check=True)
    assert (done.returncode, done.stdout) == (125, "the target is done\n")
    assert "cannot write the trace: No space left on device" in done.stderr
    assert recording.cut
    assert 10 < len(recording.lifecycles()) < 1500


def test_trace_on_stdout(environment: Mapping[str, str], open_folder: Path) -> None:
    """`-o -` writes the trace to stdout, and what the target prints to stderr."""
    line = forktrace_command("record", "-q", "-o", "-", "--", "/bin/echo", "hello")
    done = subprocess.run(line, env=environment, capture_output=True, timeout=PATIENCE_S, check=True)
    (open_folder / "piped.arrows").write_bytes(done.stdout)
    assert closed_recording(open_folder / "piped.arrows").table["comm"].tolist() == ["echo"]
    assert done.stderr == b"hello\n"


def test_closed_standard_descriptors(environment: Mapping[str, str], open_folder: Path) -> None:
    """With stdin, stdout and stderr closed the trace is as good, and the target finds them closed too."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    line = forktrace_command("record", "-o", str(path), "--", "/bin/sh", "-c", "test ! -e /proc/self/fd/1 && exit 7")
    script = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(["/bin/sh", "-c", script, "sh", *line], env=environment, timeout=PATIENCE_S, check=False)
    assert done.returncode == 7
    assert closed_recording(path).table["exit_code"].tolist()[0] == 7


def test_overwriting_keeps_arguments_secret(environment: Mapping[str, str], open_folder: Path) -> None:
    """--force gives the old file's place to a trace that its owner alone can read."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    path.write_bytes(bytes(100_000))
    path.chmod(0o644)
    subprocess.run(forktrace_command("record", "-q", "--force", "-o", str(path), "--", "true"), env=environment, check=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(closed_recording(path).table) == 1


def test_a_long_command_line_from_a_directory_that_is_gone(environment: Mapping[str, str], open_folder: Path) -> None:
    """What the kernel executes is recorded, however long; the working directory need not be there any more."""
    path, gone = open_folder / f"{uuid.uuid4()}.arrows", open_folder / "gone"
    line = forktrace_command("record", "-q", "-o", str(path), "--", "/bin/true", *["x" * 100_000] * 3)
    script = 'mkdir "$0" && cd "$0" && rmdir "$0" && exec "$@"'
    subprocess.run(["/bin/sh", "-c", script, str(gone), *line], env=environment, timeout=PATIENCE_S, check=True)
    assert closed_recording(path).recording.header["cwd"] == f"{gone} (deleted)"


def test_an_empty_command(environment: Mapping[str, str], open_folder: Path) -> None:
    """Is none, and leaves no file."""
    path = open_folder / f"{uuid.uuid4()}.arrows"
    line = forktrace_command("record", "-o", str(path), "--", "")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stderr) == (127, "forktrace: '': command not found\n")
    assert not path.exists()


@pytest.fixture
def closing(open_folder: Path, environment: Mapping[str, str]) -> Callable[..., tuple[str, Path]]:
    """Records a command, and returns what record says of it, and the trace."""

    def run(command: list[str], *options: str) -> tuple[str, Path]:
        path = open_folder / f"{uuid.uuid4()}.arrows"
        line = forktrace_command("record", "-o", str(path), *options, "--", *command)
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr, path

    return run


def test_a_healthy_program_is_told_so(closing: Callable[..., tuple[str, Path]]) -> None:
    """How long forktrace took to reap the command is no zombie of the program: there was none, and that is said."""
    said, trace = closing(["/bin/sh", "-c", "/bin/true; /bin/true"])
    assert "forktrace: no zombie lasted longer than 10 ms\n" in said
    assert "was a zombie" not in said
    recording = forktrace.read(trace)
    table = recording.lifecycles()
    assert table.loc[table["origin"] == "target", "reap_cause"].tolist() == ["recorder"]
    assert recording.zombie_count()["parent_id"].notna().all()


def test_a_zombie_that_is_left_is_told_before_one_that_lasted(closing: Callable[..., tuple[str, Path]]) -> None:
    """What nobody reaps comes before the longest that was reaped; the rest is counted."""
    program = "import os, time\nfor _ in range(3):\n os.fork() or os._exit(0)\ntime.sleep(0.4)\nos.wait()\ntime.sleep(4)"
    said, _ = closing([sys.executable, "-c", program], "-d", "2")
    assert re.search(r"forktrace: \d+ was a zombie for [\d.]+ m?s, and still is: nobody reaped it, one of 2\n", said)
    assert "reaped it with" not in said
