"""Containers: recorded from outside, attached to from outside, and a recorder inside; the numbers that each sees."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from recorded import DEBIAN, MARK, PATIENCE_S, ROOT_IS_A_MOUNT, WORKLOADS, Recorded, forktrace_command, kill_with

from forktrace.views.why.calls import Sources

pytestmark = pytest.mark.root

NAMESPACES = ("--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
CHILDREN = 3
MERGED = ("bin", "lib", "lib64", "sbin")  # links into usr, since Debian 12


class Contained:
    """A program that starts children as it is told, with a command in front of it that puts it, or all, into a container."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._mark = str(uuid.uuid4())
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(environment) | {MARK: self._mark}
        )
        self.number = self._told()["pid"]

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "the program did not begin"
        return dict(json.loads(line))

    def tell(self, what: str) -> dict[str, Any]:
        """Make it do something; what it says to that, with numbers as it sees them."""
        assert self._process.stdin
        print(what, file=self._process.stdin, flush=True)
        return self._told()

    def numbers(self) -> list[int]:
        """The numbers of the program in each namespace that sees it, the outermost first."""
        (found,) = [each for each in all_numbers() if each[-1] == self.number and self._is_it(each[0])]
        return found

    def start(self) -> list[int]:
        """Start a child; its numbers. It is a zombie by then, and the ones before are swept away."""
        number, parent = self.tell("start")["pid"], self.numbers()[0]
        (found,) = [each for each in all_numbers() if each[-1] == number and parent_of(each[0]) == parent]
        return found

    def _is_it(self, pid: int) -> bool:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            mine = f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
            return mine and words[1].endswith(b"/attached.py")
        return False

    def end(self) -> int:
        """Let it end; the status."""
        assert self._process.stdin
        self._process.stdin.close()
        return self._process.wait(PATIENCE_S)

    def kill(self) -> list[int]:
        """End whatever is left; who that was."""
        left = kill_with(f"{MARK}={self._mark}")
        self._process.wait(PATIENCE_S)
        return left


def all_numbers() -> list[list[int]]:
    """The numbers of every process in each of its PID namespaces, from this one on inward (NSpid, proc(5))."""
    found = []
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            words = path.read_text().partition("\nNSpid:")[2].partition("\n")[0].split()
            found.append([int(word) for word in words])
    return [each for each in found if each]


def parent_of(pid: int) -> int:
    """The number of a process's parent; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@pytest.fixture
def contained(environment: Mapping[str, str]) -> Iterator[Callable[[Sequence[str]], Contained]]:
    """Start such a program; nothing of it is left in the end."""
    running: list[Contained] = []

    def start(command: Sequence[str]) -> Contained:
        running.append(Contained(command, environment))
        return running[-1]

    yield start
    left = [pid for one in running for pid in one.kill()]
    assert not left, f"left behind: {left}"


def unshared(*namespaces: str) -> list[str]:
    """The command that puts another into namespaces of its own; skips the test where that is not possible."""
    if not ROOT_IS_A_MOUNT:
        pytest.skip("the root is no mount, so no mount namespace can be made (as in a chroot)")
    command = ["unshare", *namespaces]
    if not shutil.which("unshare") or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"{' '.join(command)} is not possible here")
    return command


def in_namespaces(folder: Path) -> list[str]:
    """PID, mount and user namespaces. Their root may not go where only the owner of a checkout may."""
    program = shutil.copy(WORKLOADS / "attached.py", folder)
    return [*unshared("--user", "--map-root-user", *NAMESPACES), DEBIAN, str(program)]


def in_runc(folder: Path) -> list[str]:
    """A container of runc, with a root of its own in which /usr is that of the machine, and the program in /srv."""
    if not shutil.which("runc"):
        pytest.skip("runc is not installed")
    root = folder / "root"
    for name in ("usr", "srv", "proc", "dev", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    for name in MERGED:
        (root / name).symlink_to(f"usr/{name}")
    shutil.copy(WORKLOADS / "attached.py", root / "srv")
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["root"] = {"path": str(root), "readonly": True}
    config["process"] |= {"terminal": False, "args": [DEBIAN, "/srv/attached.py"]}
    config["process"]["env"] += [f"{MARK}={os.environ.get(MARK, '')}"]
    config["mounts"].append({"destination": "/usr", "source": "/usr", "type": "bind", "options": ["rbind", "ro"]})
    (folder / "config.json").write_text(json.dumps(config))
    name = f"forktrace-test-{uuid.uuid4()}"
    # What the container is to find in its environment is known only when it starts.
    script = f'sed "s/{MARK}=/&${MARK}/" config.json > c && mv c config.json && exec runc run --bundle . {name}'
    return ["sh", "-c", f"cd {folder} && {script}"]


def over_another(folder: Path) -> list[str]:
    """A mount namespace in which the program lies where another file of that name is outside."""
    (folder / "program").mkdir()
    (folder / "outside").mkdir()
    shutil.copy(WORKLOADS / "attached.py", folder / "program")
    (folder / "outside/attached.py").write_text("# a line of another file\n" * 60)
    script = f"mount --bind {folder}/program {folder}/outside && exec {DEBIAN} {folder}/outside/attached.py"
    return [*unshared(*NAMESPACES), "sh", "-c", script]


CONTAINERS = {"namespaces": in_namespaces, "runc": in_runc, "over-another": over_another}


def check(recorded: Recorded, own: list[int], children: list[list[int]], level: int, origin: str) -> None:
    """`pid` is the number at that level, as the recorder's /proc has it, `ns_pid` that of the program; lines are known."""
    recorded.assert_balanced()
    recorded.assert_whole()
    program = recorded.row(own[level])
    assert (program["ns_pid"], program["origin"]) == (own[-1], origin)
    for each in children:
        row = recorded.row(each[level])
        assert (row["ns_pid"], row["origin"], row["created_by"]) == (each[-1], "forked", "multiprocessing")
        assert (row["ppid"], row["forker_pid"], row["reaper_pid"]) == (own[level],) * 3
        assert re.fullmatch(r"attached\.py:\d+ start", row["fork_site"])
        assert re.fullmatch(rf"attached\.py:\d+ {'main' if each is children[-1] else 'start'}", row["reap_site"])
        assert row["complete"]


@pytest.mark.parametrize("container", ["namespaces", "runc"])
def test_from_outside(container: str, contained: Callable[[Sequence[str]], Contained], tmp_path: Path) -> None:
    """What is started in a container by a command that is recorded outside: `pid` is what ps shows outside."""
    trace = tmp_path / "run.arrows"
    command = CONTAINERS[container](tmp_path)
    one = contained(forktrace_command("record", "-q", "-o", str(trace), "--", *command))
    own, children = one.numbers(), [one.start() for _ in range(CHILDREN)]
    assert [len(each) for each in (own, *children)] == [2] * (1 + CHILDREN)
    one.tell("clear")
    assert one.end() == 0
    check(Recorded(trace, 0, "", ""), own, children, level=0, origin="forked")


@pytest.mark.parametrize("container", CONTAINERS)
def test_attached_to_from_outside(
    container: str, contained: Callable[[Sequence[str]], Contained], tmp_path: Path, environment: Mapping[str, str]
) -> None:
    """`record -p` of the number outside; zombies that are there already too, and the text of lines is the container's own."""
    one = contained(CONTAINERS[container](tmp_path))
    own, old = one.numbers(), one.start()
    trace = tmp_path / "run.arrows"
    line = forktrace_command("record", "-o", str(trace), "-p", str(own[0]))
    with subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True) as recorder:
        try:
            assert recorder.stderr
            while "Ctrl-C detaches" not in (said := recorder.stderr.readline()):
                assert said
            children = [one.start() for _ in range(CHILDREN)]
            one.tell("clear")
            recorder.send_signal(signal.SIGINT)
            recorder.communicate(timeout=PATIENCE_S)
        finally:
            recorder.kill()
    assert recorder.returncode == 0
    recorded = Recorded(trace, 0, "", "")
    check(recorded, own, children, level=0, origin="attached")
    assert Sources(recorded.recording).text(recorded.row(children[0][0])["fork_site"]) == "process.start()"
    zombie = recorded.row(old[0])
    assert (zombie["ns_pid"], zombie["origin"], zombie["exit_code"]) == (old[1], "attached", 0)
    assert one.end() == 0


def test_recorder_inside(contained: Callable[[Sequence[str]], Contained], tmp_path: Path) -> None:
    """In a container with a /proc of its own: `pid` is what ps shows there, and so does the program see it."""
    trace = tmp_path / "run.arrows"
    record = forktrace_command("record", "-q", "-o", str(trace), "--", DEBIAN, str(WORKLOADS / "attached.py"))
    one = contained([*unshared(*NAMESPACES), *record])
    own, children = one.numbers(), [one.start() for _ in range(CHILDREN)]
    namespace = os.stat(f"/proc/{own[0]}/ns/pid").st_ino
    one.tell("clear")
    assert one.end() == 0
    recorded = Recorded(trace, 0, "", "")
    check(recorded, own, children, level=1, origin="target")
    header = recorded.recording.header
    assert (header["pid_ns"], header["recorder_pid"], header["target_pid"]) == (namespace, 1, one.number)


def test_container_in_a_container(contained: Callable[[Sequence[str]], Contained], tmp_path: Path) -> None:
    """A recorder inside, and what it records deeper still: three numbers for each, of which the middle one is `pid`."""
    trace = tmp_path / "run.arrows"
    record = forktrace_command("record", "-q", "-o", str(trace), "--", *in_namespaces(tmp_path))
    one = contained([*unshared(*NAMESPACES), *record])
    own, children = one.numbers(), [one.start() for _ in range(CHILDREN)]
    assert [len(each) for each in (own, *children)] == [3] * (1 + CHILDREN)
    one.tell("clear")
    assert one.end() == 0
    check(Recorded(trace, 0, "", ""), own, children, level=1, origin="forked")


ORPHANS = "(sleep 0.2 &); (sleep 0.3 &); (sleep 0.5 &); sleep 0.4"  # two end before the command, one after


def test_recorder_as_pid_1(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """Where record is PID 1 it is the init: it reaps the orphans of the command, also when that has ended."""
    trace = tmp_path / "run.arrows"
    record = forktrace_command("record", "-q", "-o", str(trace), "--", "sh", "-c", f"{ORPHANS}; exit 3")
    command = [*unshared(*NAMESPACES), *record]
    assert subprocess.run(command, env=environment, timeout=PATIENCE_S, check=False).returncode == 3
    recorded = Recorded(trace, 0, "", "")
    recorded.assert_balanced()
    recorded.assert_whole()
    orphans = recorded.recording.orphans()
    assert len(orphans) == 3
    assert set(orphans["adopter_pid"]) == {1}
    assert (orphans["outcome"] == "reaped").all()
    assert recorded.table.loc[orphans["id"], "reaper_pid"].tolist() == [1] * 3
    assert recorded.table.loc[orphans["id"], "zombie_ms"].max() < 1000


FIVE = [f"CAP_{name}" for name in ("BPF", "PERFMON", "DAC_READ_SEARCH", "SYS_PTRACE", "CHECKPOINT_RESTORE")]
FORKS = "import os\nos.fork() or os._exit(3)\nos.wait()"


def bare() -> str:
    """Make a root with nothing in it but what is run: no /var, no /tmp, no /etc, so that nobody has a name."""
    folders = sorted({"/usr", sys.prefix, sys.base_prefix, str(WORKLOADS.parents[1])})
    links = [f"ln -s usr/{name} root/{name}" for name in MERGED]
    mounts = [f"mkdir -p root{one} && mount --rbind {one} root{one}" for one in folders]
    return "\n".join(["mkdir root/proc root/dev root/sys root/mnt", *links, *mounts])


ROOTS = {"all": lambda: "mount --rbind / root", "bare": bare}


def in_a_pod(
    folder: Path,
    command: Sequence[str],
    *,
    root: str,
    host_pid: bool = False,
    tracefs: bool = True,
    capabilities: Sequence[str] = FIVE,
) -> subprocess.CompletedProcess[str]:
    """Run forktrace in a container of runc as in a pod: a root that is read-only, these capabilities, no sudo; /mnt is `out`.

    `root`: the script that mounts it.
    """
    if not shutil.which("runc"):
        pytest.skip("runc is not installed")
    for name in ("root", "out"):
        (folder / name).mkdir()
    subprocess.run(["runc", "spec"], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["root"] = {"path": "root", "readonly": True}
    environment = [f"PYTHONPATH={WORKLOADS.parents[1]}", "PYTHONDONTWRITEBYTECODE=1", f"PATH={os.defpath}"]
    config["process"] |= {"terminal": False, "args": forktrace_command(*command), "env": environment}
    config["process"]["capabilities"] = {kind: list(capabilities) for kind in ("bounding", "effective", "permitted")}
    config["mounts"].append({"destination": "/mnt", "source": str(folder / "out"), "type": "bind", "options": ["bind", "rw"]})
    if tracefs:
        place = "/sys/kernel/tracing"
        config["mounts"].append({"destination": place, "source": "tracefs", "type": "tracefs", "options": ["ro"]})
    spaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [one for one in spaces if not (host_pid and one["type"] == "pid")]
    (folder / "config.json").write_text(json.dumps(config))
    script = f"{root}\nexec runc run --bundle . forktrace-test-{uuid.uuid4()}"
    line = ["unshare", "--mount", "sh", "-ec", script]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


in_namespaces_of_mounts = pytest.mark.skipif(
    not ROOT_IS_A_MOUNT, reason="unshare --mount needs a root that is a mount, which this one is not"
)
RECORD = ("record", "-q", "-o", "/mnt/run.arrows", "--", sys.executable, "-c", FORKS)


@in_namespaces_of_mounts
@pytest.mark.parametrize("host_pid", [True, False])
@pytest.mark.parametrize("root", ["all", "bare"])
def test_a_pod(tmp_path: Path, root: str, host_pid: bool) -> None:
    """Five capabilities and tracefs are enough, with the PID namespace of the host and without, and one place to write."""
    done = in_a_pod(tmp_path, RECORD, root=ROOTS[root](), host_pid=host_pid)
    assert done.returncode == 0, done.stderr
    recorded = Recorded(tmp_path / "out/run.arrows", 0, "", "")
    recorded.assert_balanced()
    assert recorded.table["fork_site"].tolist()[1] == "<string>:2 <module>"


@in_namespaces_of_mounts
@pytest.mark.parametrize("root", ["all", "bare"])
@pytest.mark.parametrize(
    ("tracefs", "without", "word"),
    [
        (False, None, "a volume with the /sys/kernel/tracing"),
        (True, "CAP_BPF", "CAP_BPF"),
        (True, "CAP_PERFMON", "CAP_PERFMON"),
    ],
)
def test_a_pod_that_lacks_something(tmp_path: Path, root: str, tracefs: bool, without: str | None, word: str) -> None:
    """One line, and what to do, name the volume or the capability."""
    capabilities = [one for one in FIVE if one != without]
    done = in_a_pod(tmp_path, RECORD, root=ROOTS[root](), tracefs=tracefs, capabilities=capabilities)
    assert done.returncode == 125, done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert word in done.stderr
    assert not (tmp_path / "out/run.arrows").exists()


@in_namespaces_of_mounts
@pytest.mark.parametrize(
    ("tracefs", "verdict"), [(True, "forktrace can record here"), (False, "forktrace cannot record here: tracefs")]
)
def test_doctor_in_a_pod(tmp_path: Path, tracefs: bool, verdict: str) -> None:
    """It tries a recording where there is no place for files at all; without tracefs it names the volume."""
    done = in_a_pod(tmp_path, ("doctor",), root=bare(), tracefs=tracefs)
    assert done.stdout.splitlines()[-1] == verdict, done.stderr
    assert done.returncode == (0 if tracefs else 78)
    assert tracefs or "a volume with the /sys/kernel/tracing of its host" in done.stdout
