"""What a user could try who may run only the recorder as root: it makes root read and write nothing more."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from people import Person, python_for_all, recorder_line
from recorded import PATIENCE_S, wait_until

import forktrace
from forktrace.errors import ForktraceError, UsageError
from forktrace.kernel.file_keys import key_of, stirred
from forktrace.launcher.recorder_process import PROGRAM
from forktrace.launcher.session import opened
from forktrace.system.users import User, as_user

pytestmark = pytest.mark.root

SECRET = "FORKTRACE-SECRET"
# Of the control groups, the one that all are in.
GROUPS = next((one for one in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(f"{one}/cgroup.procs")), None)


@pytest.fixture
def who(person: Person) -> User:
    """The person, as forktrace sees them under sudo."""
    return User(person.name, person.uid, person.gid, (person.gid,), {})


@pytest.fixture
def victim(open_place: Path) -> Iterator[Path]:
    """A file of root's that nobody else may read or write, in a directory of root's."""
    place = open_place / "of-root"
    place.mkdir(mode=0o755)
    file = place / "victim"
    file.write_text(SECRET)
    file.chmod(0o600)
    yield file
    assert (file.read_text(), stat.filemode(file.stat().st_mode), file.stat().st_uid) == (SECRET, "-rw-------", 0)
    assert [each.name for each in place.iterdir()] == ["victim"]
    file.unlink()
    place.rmdir()


def link(person: Person, make: Callable[[Path], object]) -> Path:
    """A name in the person's home that `make` has made to lead elsewhere."""
    path = person.home / "trap.arrows"
    path.unlink(missing_ok=True)
    make(path)
    return path


@pytest.mark.parametrize(
    "trap",
    [
        lambda path, victim: path.symlink_to(victim),
        lambda path, victim: path.symlink_to(victim.parent / "new"),
        lambda path, victim: path.hardlink_to(victim),
        lambda path, victim: path.symlink_to(f"/proc/{os.getpid()}/root{victim}"),
        lambda path, victim: path.symlink_to(victim.parent),
    ],
    ids=["symlink", "dangling symlink", "hard link", "through /proc", "symlink to a directory"],
)
@pytest.mark.parametrize("force", [False, True])
def test_root_writes_nowhere_else(
    trap: Callable[[Path, Path], object], force: bool, person: Person, who: User, victim: Path
) -> None:
    """Where the trace is to go lies something that leads to root's files: it is not opened, with and without --force."""
    path = link(person, lambda path: trap(path, victim))
    with pytest.raises(ForktraceError), opened(str(path), who, force):
        pytest.fail("it was opened")
    path.unlink()


def test_a_race_for_the_name(person: Person, who: User, victim: Path) -> None:
    """A name that is the person's own file at one moment, and a link to root's at the next, never leads to root's."""
    path, own, ends = person.home / "race.arrows", person.home / "own-file", threading.Event()
    own.write_text("")
    person.owns(own)

    def swap() -> None:
        for number in range(1_000_000):
            if ends.is_set():
                return
            place = person.home / f"next-{number}"
            place.symlink_to(victim) if number % 2 else place.hardlink_to(own)
            place.replace(path)

    swapping = threading.Thread(target=swap)
    swapping.start()
    opens = 0
    try:
        for tries in range(50_000):
            if opens > 10 and tries > 500:
                break
            try:
                with opened(str(path), who, True) as trace:
                    assert os.fstat(trace).st_uid == person.uid
                    opens += 1
            except (ForktraceError, UsageError):
                continue
    finally:
        ends.set()
        swapping.join()
    assert opens > 10, "it was never the person's own"


def test_the_mode_of_somebody_elses_file(person: Person, who: User, open_place: Path) -> None:
    """--force may write to a file that all may write, and leaves its mode alone."""
    path = open_place / "for-all"
    path.touch()
    path.chmod(0o666)
    with opened(str(path), who, True) as trace:
        os.write(trace, b"x")
    assert stat.filemode(path.stat().st_mode) == "-rw-rw-rw-"
    path.unlink()


def test_a_pipe_of_the_persons(person: Person, who: User) -> None:
    """Is opened with the person's rights: one that they may not write to is not."""
    path = link(person, os.mkfifo)
    path.chmod(0o600)  # of root's
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(ForktraceError, match="Permission denied"), opened(str(path), who, False):
        pytest.fail("it was opened")
    os.close(reader)
    path.unlink()


def test_rights_come_back(who: User) -> None:
    """What was done with the person's rights, well or not, leaves root with its own."""
    before = (os.geteuid(), os.getegid(), os.getgroups())
    assert as_user(who, os.geteuid) == who.uid
    with pytest.raises(PermissionError):
        as_user(who, os.listdir, "/root")
    assert (os.geteuid(), os.getegid(), os.getgroups()) == before


FORKS_ON = "import os, time\nwhile True:\n    time.sleep(0.02)\n    os.fork() or os._exit(0)\n    os.wait()\n"

# Until its interpreter is known, which nobody expects.
FORKS_A_WHILE = "import os, time\nfor _ in range(200):\n    time.sleep(0.01)\n    os.fork() or os._exit(0)\n    os.wait()"

# A launcher of the person's own making; prints what the recorder says to each order, and its own number first. With `deaf` in
# its order it hears nothing of the answer: it has filled the socket, and says the number of its target.
CLIENT = """
import json, os, signal, socket, subprocess, sys
from forktrace.recorder.protocol.channel import Channel, pair
from forktrace.launcher.recorder_process import recorder_command
from forktrace.launcher.header import header
from forktrace.recorder.protocol.orders import Order, encoded
print(os.getpid(), flush=True)
order = json.loads(sys.argv[1])
ours, its = pair()
recorder = subprocess.Popen(["/usr/bin/sudo", "-n", "--", *recorder_command()], stdin=its, stdout=its)
channel = Channel(ours)
channel.send("arm", stacks="attach" in order, attach="attach" in order, rotates=False, path="", words=False, live=False)
print(channel.receive(), channel.receive(), flush=True)
held = os.fork()
if not held:
    signal.pause()
trace = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)
whole = encoded(Order(path="x", header=header(["x"], held, "x", {}), source=True))
if "deaf" in order:
    try:
        while True:
            its.send(b"{}" * 1000, socket.MSG_DONTWAIT)
    except BlockingIOError:
        pass
its.close()
channel.send_order(whole | ({} if "attach" in order else {"pid": held}) | order, [trace])
print("" if "deaf" in order else channel.receive(), held, flush=True)
sys.stdin.readline()
os.kill(held, signal.SIGKILL)
os.waitpid(held, 0)
sys.stdin.readline()
channel.send("stop")
recorder.wait()
"""


class Client:
    """The person's own launcher, which gives the recorder `order`."""

    def __init__(self, person: Person, command: str, order: dict[str, object], trace: Path) -> None:
        python = str(Path(command).with_name("python"))
        line = person.command([python, "-c", CLIENT, json.dumps(order), str(trace)])
        self.process = subprocess.Popen(
            line, env=person.environment(), cwd=person.home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = int(self.line())
        assert "armed" in self.line()

    def line(self) -> str:
        """What it prints next."""
        assert self.process.stdout
        return self.process.stdout.readline()

    def go_on(self) -> None:
        """Let it do its next step."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@pytest.fixture
def client(person: Person, in_venv: str) -> Iterator[Callable[[dict[str, object]], Client]]:
    """Clients, who may run the recorder as root and nothing else."""
    made: list[Client] = []

    def start(order: dict[str, object]) -> Client:
        made.append(Client(person, in_venv, order, person.home / f"client-{len(made)}.arrows"))
        return made[-1]

    with person.may(recorder_line(str(Path(in_venv).with_name("python")), person)):
        yield start
        for each in made:
            if each.process.poll() is None:
                each.process.communicate("\n\n", timeout=PATIENCE_S)


@contextmanager
def of_roots(script: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process of root's."""
    with subprocess.Popen(["/bin/sh", "-c", script], cwd=cwd) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["pid", "attach", "cgroup"])
def test_only_own_processes(kind: str, client: Callable[[dict[str, object]], Client]) -> None:
    """An order that names a process of root's, and no other, is refused, whichever way."""
    with of_roots("exec sleep 600") as roots:
        asked = {"pids": [roots.pid], "never": [], "cgroup": GROUPS if kind == "cgroup" else None, "remarks": []}
        said = client({"pid": roots.pid} if kind == "pid" else {"attach": asked}).line()
    assert f"process {roots.pid} is not yours" in said


def test_a_control_group_of_ones_own_making(person: Person, client: Callable[[dict[str, object]], Client]) -> None:
    """A directory that looks like a control group is none: its files are the person's, and may keep who reads them."""
    fake = person.home / "fake"
    fake.mkdir(exist_ok=True)
    os.mkfifo(fake / "cgroup.procs")
    for place in (str(fake), "/"):
        asked = {"pids": [os.getpid()], "never": [], "cgroup": place, "remarks": []}
        assert f"{place} is no control group" in client({"attach": asked}).line()


WAS_ROOT = """
import os, sys, time
uid = int(sys.argv[1])
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
print(flush=True)
time.sleep(600)
"""


def test_a_daemon_that_was_root(person: Person, client: Callable[[dict[str, object]], Client]) -> None:
    """It is the person's by its numbers, but the kernel lets nobody but root look into it, and so does the recorder."""
    with subprocess.Popen([sys.executable, "-c", WAS_ROOT, str(person.uid)], stdout=subprocess.PIPE) as daemon:
        try:
            assert daemon.stdout
            daemon.stdout.readline()
            asked = {"pids": [daemon.pid], "never": [], "cgroup": None, "remarks": []}
            assert f"process {daemon.pid} is not yours" in client({"attach": asked}).line()
        finally:
            daemon.kill()


@contextmanager
def with_other_files(place: Path, lines: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of root's that has other files in `place` than everybody else: `secret.py`, which all may read."""
    file = place / "secret.py"
    script = f"mount -t tmpfs x {place} && printf '{lines}' > {file} && chmod 644 {file} && exec sleep 600"
    with of_roots(f"exec unshare --mount sh -c {shlex.quote(script)}") as roots:
        wait_until(lambda: Path(f"/proc/{roots.pid}/comm").read_text() == "sleep\n", "root's process is there")
        yield roots


def fork_sites(trace: Path) -> set[str]:
    """The lines that have forked, as far as a recording has come."""
    return set(forktrace.read(trace).lifecycles()["fork_site"].dropna())


@pytest.mark.parametrize("named", ["files", "pids"])
def test_files_of_other_processes(
    named: str, person: Person, in_venv: str, client: Callable[[dict[str, object]], Client]
) -> None:
    """A launcher names a process of root's as one whose files are read: no line comes from there."""
    place, trace, program = person.home / "elsewhere", person.home / "client-0.arrows", person.home / "forks.py"
    place.mkdir()
    trace.unlink(missing_ok=True)
    program.write_text(f"import sys\nexec(compile({FORKS_ON!r}, sys.argv[1] + '/secret.py', 'exec'))\n")
    python = str(Path(in_venv).with_name("python"))
    with (
        with_other_files(place, f"{SECRET}\\n" * 9) as roots,
        subprocess.Popen(person.command([python, str(program), str(place)])) as own,
    ):
        try:
            wait_until(lambda: Path(f"/proc/{own.pid}/task/{own.pid}/children").read_text(), "the person's program forks")
            asked = {
                "pids": [own.pid, *([roots.pid] if named == "pids" else [])],
                "never": [],
                "cgroup": GROUPS if named == "pids" else None,
                "remarks": [],
            }
            namespace = os.stat(f"/proc/{roots.pid}/ns/mnt").st_ino
            made = client({"attach": asked} | ({"files": [roots.pid, namespace]} if named == "files" else {}))
            assert "ready" in made.line()
            wait_until(lambda: "secret.py:4 <module>" in fork_sites(trace), "its line is known")
            made.process.communicate("\n\n", timeout=PATIENCE_S)
        finally:
            own.kill()
            place.rmdir()
    assert SECRET.encode() not in trace.read_bytes()
    assert SECRET not in forktrace.read(trace).trace.table.to_pandas().to_string()


@pytest.mark.parametrize("is_there", [True, False])
def test_what_a_closed_directory_holds(is_there: bool, person: Person, in_venv: str, open_place: Path) -> None:
    """An interpreter whose library seems to lie there: the trace says the same, whether there is such a file or not."""
    closed, home, trace = (
        open_place / f"closed-{is_there}",
        person.home / f"interpreter-{is_there}",
        person.home / "closed.arrows",
    )
    closed.mkdir(mode=0o700)
    if is_there:
        (closed / "os.py").touch(0o644)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (home / "bin").mkdir(parents=True)
    (home / "lib").mkdir()
    (home / "lib" / version).symlink_to(closed)
    shutil.copy(os.path.realpath(sys.executable), home / "bin" / version)
    where = f"PYTHONHOME={sys.base_prefix}", f"LD_LIBRARY_PATH={sys.base_prefix}/lib"
    line = ["env", *where, str(home / "bin" / version), "-c", FORKS_A_WHILE]
    with person.may("ALL"):
        done = person.run([in_venv, "record", "-q", "--force", "-o", str(trace), "--", *line])
    assert done.returncode == 0, done.stderr
    recording = forktrace.read(trace)
    assert "<string>:4 <module>" in set(recording.lifecycles()["fork_site"].dropna())
    runtimes = recording.trace.table.to_pandas().query("kind == 'runtime'").to_string()
    assert str(home / "bin" / version) in runtimes or "libpython" in runtimes
    assert str(home / "lib") not in runtimes


@contextmanager
def of_files(place: Path) -> Iterator[None]:
    """A file system of its own in an empty directory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


def make_alike(person: Person, known: Path, like: Path) -> None:
    """Give the person's file `like` a size with which it has the key of the file `known`, if the secret is 0 and it can be."""
    about = known.stat()
    wanted = stirred(stirred(about.st_ino) ^ about.st_size) ^ about.st_uid ^ person.uid
    size = unstirred(wanted) ^ stirred(like.stat().st_ino)
    if size < 1 << 62:
        os.truncate(like, size)
    assert (key_of(0, known.stat()) == key_of(0, like.stat())) == (size < 1 << 62)


def unstirred(number: int) -> int:
    """What `stirred` makes this of."""
    for factor in (0xC4CEB9FE1A85EC53, 0xFF51AFD7ED558CCD):
        number = (number ^ number >> 33) * pow(factor, -1, 1 << 64) % (1 << 64)
    return number ^ number >> 33


def test_a_file_that_is_like_one_of_roots(person: Person, in_venv: str, open_place: Path) -> None:
    """An interpreter of the person's, of a size that would give it the key of a shell of root's: it is not taken for the shell.

    Else the memory of a set-user-id program could be read as that file says.
    """
    place, trace = open_place / "alike", person.home / "alike.arrows"
    with of_files(place), person.may("ALL"):
        shell, program = place / "shell", place / "python3"
        shutil.copy(os.path.realpath("/bin/sh"), shell)
        while key_of(0, shell.stat()) != (key_of(0, program.stat()) if program.exists() else None):
            program.unlink(missing_ok=True)
            shutil.copy(python_for_all(), program)
            person.owns(program)
            make_alike(person, shell, program)
        line = [in_venv, "record", "-q", "--force", "-o", str(trace), "--", str(shell), "-c", "/bin/true; :"]
        done = person.run(line, PATH=f"{place}:/usr/bin:/bin")
    assert done.returncode == 0, done.stderr
    assert forktrace.read(trace).lifecycles()["fork_stack_status"].tolist()[1] == "not-python"


def recorder_knows(pid: int) -> bool:
    """Whether a recorder holds a descriptor of this process, which is the first that it does to follow it."""
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if PROGRAM.name.encode() not in line.read_bytes():
                continue
            if any(f"Pid:\t{pid}\n" in info.read_text() for info in (line.parent / "fdinfo").iterdir()):
                return True
        except OSError:
            continue
    return False


NEXT = "import os, sys\nos.execv('/bin/sh', ['sh', '-c', 'exit 9'])"


@pytest.mark.parametrize("order", [{}, {"deaf": True}], ids=["listening", "deaf"])
def test_the_next_process_of_that_number(
    order: dict[str, object], person: Person, client: Callable[[dict[str, object]], Client]
) -> None:
    """A target that ends before its exec, whose number then is a process of root's: that one is not followed.

    Not either while the recorder has something to say that nobody takes.
    """
    trace = person.home / "client-0.arrows"
    trace.unlink(missing_ok=True)
    made = client(order)
    said = made.line()
    assert "ready" in said or order
    held = int(said.split()[-1])
    wait_until(lambda: recorder_knows(held), "the recorder aims")
    made.go_on()
    wait_until(lambda: not Path(f"/proc/{held}").exists(), "the target is reaped")
    for _ in range(500):  # others fork too
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(held - 1))
        with subprocess.Popen([sys.executable, "-c", NEXT]) as roots:
            pass
        if roots.pid == held:
            break
    else:
        pytest.skip(f"the number {held} is not to be had")
    made.go_on()
    made.process.communicate("\n", timeout=PATIENCE_S)
    assert len(forktrace.read(trace).lifecycles()) == 0


def run_recorder(person: Person, python: str, stdin: int | socket.socket) -> str:
    """Run the recorder through sudo with this for stdin, and return what it prints."""
    line = person.command(["/usr/bin/sudo", "-n", "--", *recorder_line(python, person).split()])
    done = subprocess.run(line, stdin=stdin, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd="/")
    assert done.returncode == 1
    return done.stderr


def test_whose_socket_it_is(person: Person, in_venv: str) -> None:
    """The recorder takes orders from who called sudo, over a socket that they made, and over nothing else."""
    python = str(Path(in_venv).with_name("python"))
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its, person.may(recorder_line(python, person)):
        said = run_recorder(person, python, its)
        assert f"the socket is of user 0, and sudo was called by user {person.uid}" in said
        assert "stdin is no socket of forktrace" in run_recorder(person, python, subprocess.DEVNULL)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):  # a datagram socket can be connected anew, to a daemon of root's
            one, other = socket.socketpair(socket.AF_UNIX, kind)
            with one, other:
                assert "stdin is no socket of forktrace" in run_recorder(person, python, other)
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    bare = subprocess.run([sys.executable, PROGRAM], env=plain, capture_output=True, text=True, check=False)
    assert (bare.returncode, "runs this through sudo" in bare.stderr) == (1, True)


@pytest.fixture
def full() -> Iterator[int]:
    """A pipe that is full, to be written to."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    yield writer
    for end in (reader, writer):
        os.close(end)


def test_who_does_not_read_what_is_wrong(full: int) -> None:
    """Does not keep the recorder, which is root then."""
    known = dict(os.environ) | {"SUDO_UID": "1", "SUDO_GID": "1"}
    done = subprocess.run([sys.executable, PROGRAM], env=known, stdin=subprocess.DEVNULL, stderr=full, timeout=PATIENCE_S)
    assert done.returncode == 1


FULL_MEANWHILE = """
import select, signal
from forktrace.recorder import sudo_entry
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
select.select = lambda *what: what[:3]
{what}
"""


COMPLAINS = "sudo_entry.complain('it is wrong')"
STARTS = "sudo_entry.STARTING_S, sudo_entry.main = 1, None; sudo_entry.run()"


@pytest.mark.parametrize("what", [COMPLAINS, STARTS], ids=["complaint", "defect"])
def test_who_fills_what_is_wrong_meanwhile(what: str, full: int) -> None:
    """Stderr is filled just before the recorder complains, or prints a traceback: it ends in time, SIGALRM ignored or not."""
    line = [sys.executable, "-c", FULL_MEANWHILE.format(what=what)]
    done = subprocess.run(line, stderr=full, timeout=PATIENCE_S / 4, check=False)
    assert done.returncode == -signal.SIGALRM


def test_sudo_allows_the_recorder_alone(person: Person, in_venv: str) -> None:
    """The rule of docs/privileges.md allows that one command, with no further word."""
    python = str(Path(in_venv).with_name("python"))
    line = recorder_line(python, person)
    with person.may(line):
        for more in ([python, "-c", "pass"], [*line.split(), "more"], ["/bin/true"]):
            done = person.run(["/usr/bin/sudo", "-n", "--", *more])
            assert re.search("password is required|not allowed", done.stderr), done


def test_code_of_others(person: Person, in_venv: str) -> None:
    """Root does not run code that another user could change, and the file is named."""
    place = Path(in_venv).parents[2]
    place.chmod(0o777)
    try:
        with person.may("ALL"):
            done = person.run([in_venv, "record", "--", "/bin/true"])
    finally:
        place.chmod(0o755)
    assert done.returncode == 125
    assert f"root would run code that others can change: {place}" in done.stderr


FORKS = "import os, sys\nexec(compile('\\nif not os.fork():\\n    os._exit(0)\\nos.wait()', sys.argv[1], 'exec'), {'os': os})\n"


def test_a_source_behind_a_process(person: Person, in_venv: str, open_place: Path) -> None:
    """A name that leads through the /proc of another's process into a directory that is closed: the text is not read."""
    closed, trace = open_place / "closed", person.home / "source.arrows"
    closed.mkdir(mode=0o700)
    (closed / "secret.py").write_text(f"# 1\n{SECRET}\n")
    (closed / "secret.py").chmod(0o644)
    with of_roots("exec sleep 600", cwd=closed) as roots:
        program, name = person.home / "forks.py", person.home / "link.py"
        program.write_text(FORKS)
        name.symlink_to(f"/proc/{roots.pid}/cwd/secret.py")
        python = str(Path(in_venv).with_name("python"))
        with person.may("ALL"):
            done = person.run([in_venv, "record", "-q", "-o", str(trace), "--", python, str(program), str(name)])
    assert done.returncode == 0, done.stderr
    recording = forktrace.read(trace)
    assert recording.lifecycles()["fork_site"].tolist()[1] == "link.py:2 <module>"
    assert SECRET not in recording.trace.table.to_pandas().to_string()
    assert SECRET.encode() not in trace.read_bytes()
