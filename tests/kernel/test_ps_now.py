"""`forktrace ps` beside real zombies, as any user."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from recorded import PATIENCE_S, WORKLOADS, Program, forktrace_command, wait_until

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
NOBODY = 65534
UNUSED_UID = 40_000 + os.getpid() % 10_000


@contextmanager
def program(*options: str) -> Iterator[Program]:
    """A program that has zombies, while it lasts."""
    line = [sys.executable, str(WORKLOADS / "zombies.py"), *options]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Program(process)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(PATIENCE_S)


def run(*line: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, which is to be a good one."""
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done


def ps(*options: str) -> subprocess.CompletedProcess[str]:
    """Run `forktrace ps` as a user does."""
    return run(*forktrace_command("ps", *options))


def as_nobody(*options: str) -> list[str]:
    """The command line of `forktrace ps` by a user without any right.

    Root may have installed this Python for itself alone, so what is imported late is used once before.
    """
    program = (
        "import encodings.unicode_escape, io, os\n"
        "from rich.console import Console\n"
        "from forktrace.cli import main\n"
        "from forktrace.now.zombies import Watcher\n"
        "from forktrace.views.text.ps import show\n"
        "show(Console(file=io.StringIO()), Watcher().look())\n"
        f"os.setgroups([]); os.setresgid(*[{NOBODY}] * 3); os.setresuid(*[{NOBODY}] * 3)\n"
        "main()"
    )
    return [sys.executable, "-c", program, "ps", *options]


def parent(pid: int) -> dict[str, Any]:
    """What `ps --json` says of a parent."""
    (found,) = [one for one in json.loads(ps("--json").stdout)["parents"] if one["pid"] == pid]
    return dict(found)


def test_zombies_and_their_ages() -> None:
    """Each zombie with how it ended; its age lies between those that the program itself saw."""
    with program() as one:
        made = [one.tell("make") for _ in range(5)]
        document = json.loads(ps("--json").stdout)
    found = next(each for each in document["parents"] if each["pid"] == one.pid)
    assert (found["comm"].startswith("python"), found["argv"][1]) == (True, str(WORKLOADS / "zombies.py"))
    assert document["zombies"] >= 5
    zombies = {each["pid"]: each for each in found["zombies"]}
    assert zombies.keys() == {each["pid"] for each in made}
    for each in made:
        zombie = zombies[each["pid"]]
        youngest, oldest = ((document["boottime_ns"] - each[moment]) / 1e9 for moment in ("after_ns", "before_ns"))
        assert zombie["age_least_s"] <= youngest <= oldest <= zombie["age_most_s"] + 0.01  # a tick of the start time
        assert (zombie["exit_code"], zombie["term_signal"]) == (
            each["exit_code"],
            None if each["exit_code"] is not None else "SIGKILL",
        )
        if zombie["age_is"] == "estimated":
            assert youngest - 1 <= zombie["age_s"] <= oldest + 1
    if Path("/proc/self/sched").exists():
        assert any(zombie["age_is"] == "estimated" for zombie in zombies.values())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ("default", 0, False)),
        (("handle",), ("handled", 0, False)),
        (("handle", "block"), ("handled", 1, True)),
        (("ignore",), ("ignored", 0, False)),
    ],
)
def test_what_the_parent_does_about_sigchld(options: tuple[str, ...], expected: tuple[str, int, bool]) -> None:
    """Default, handled, ignored, blocked and pending, as the program has set it."""
    with program(*options) as one:
        one.tell("make")
        found = parent(one.pid)
    assert (found["sigchld"], found["sigchld_blocked_threads"], found["sigchld_pending"]) == expected


def test_a_parent_that_stands_still() -> None:
    """A stopped parent is shown as stopped."""
    with program() as one:
        one.tell("make")
        os.kill(one.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: parent(one.pid)["state"] == "T", "the parent is stopped")
        finally:
            os.kill(one.pid, signal.SIGCONT)


def test_a_hostile_name() -> None:
    """Escape sequences and newlines in a name reach no terminal, and hide nothing."""
    with program() as one:
        one.tell("name")
        done = ps()
        assert [each["comm"] for each in parent(one.pid)["zombies"]] == ["a) Z (\x1b[2J\nb"]
    assert "a) Z (\\x1b[2J\\nb" in done.stdout
    assert "\x1b" not in done.stdout


def test_text_and_next_command() -> None:
    """On stdout what there is, on stderr what to do next: only commands that there are."""
    with program() as one:
        made = one.tell("make")
        done = ps()
    assert f"\n{one.pid} " in done.stdout
    assert any(line.split()[0] == str(made["pid"]) for line in done.stdout.splitlines() if line.strip())
    assert done.stderr.startswith("forktrace: next: forktrace ps --watch")


def test_no_heavy_import() -> None:
    """`forktrace ps` needs neither pandas, pyarrow, matplotlib nor bcc."""
    program = (
        "import sys\n"
        "from forktrace.cli import cli\n"
        "cli.main(['ps'], standalone_mode=False)\n"
        "heavy = {'pyarrow', 'pandas', 'numpy', 'matplotlib', 'bcc'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=True, stdout=subprocess.DEVNULL)


def test_json_again_and_again() -> None:
    """`--watch --json` writes a line each time; what ends meanwhile has a known age, and the growth is counted."""
    with program() as one:
        one.tell("make")
        line = forktrace_command("ps", "--json", "--watch", "0.2")
        with subprocess.Popen(line, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as watch:
            assert watch.stdout
            looks = [json.loads(watch.stdout.readline())]
            made = one.tell("make")
            until = time.monotonic() + PATIENCE_S
            while time.monotonic() < until:
                looks.append(json.loads(watch.stdout.readline()))
                found = next(each for each in looks[-1]["parents"] if each["pid"] == one.pid)
                if len(found["zombies"]) == 2:
                    break
            watch.send_signal(signal.SIGINT)
            rest = watch.stdout.read()
            assert watch.wait(PATIENCE_S) == 130, rest
    zombie = next(each for each in found["zombies"] if each["pid"] == made["pid"])
    age_s = (looks[-1]["boottime_ns"] - made["after_ns"]) / 1e9
    assert zombie["age_is"] == "seen" or zombie["age_most_s"] - zombie["age_least_s"] > 10
    assert zombie["age_least_s"] <= age_s <= zombie["age_most_s"]
    assert found["growth"] == 1
    assert found["growth_s"] > 0
    assert found["fails_in_s"] is None or found["fails_at"] in found["limits"]


def test_watch_on_a_terminal() -> None:
    """In place on a terminal; Ctrl-C ends it with 130 and leaves the last picture and the cursor."""
    with program() as one:
        one.tell("make")
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(
                sys.executable, forktrace_command("ps", "--watch", "0.2"), ENVIRONMENT | {"TERM": "xterm", "COLUMNS": "100"}
            )
        seen = b""

        def drawn_twice() -> bool:
            nonlocal seen
            seen += os.read(terminal, 65536)
            return b"growth" in seen

        wait_until(drawn_twice, "a second picture")
        os.write(terminal, b"\x03")
        try:
            while piece := os.read(terminal, 65536):
                seen += piece
        except OSError:
            pass  # the terminal is gone with its program
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert b"Traceback" not in seen
    assert seen.rstrip().endswith(b"\x1b[?25h")
    assert str(one.pid).encode() in seen.rpartition(b"zombie")[0]


@pytest.mark.root
def test_as_a_plain_user() -> None:
    """Nobody sees the zombies of all, but how those of others ended only of its own."""
    with program() as roots, program(f"uid={NOBODY}") as own:
        for each in (roots, own):
            each.tell("make")
            each.tell("make")
        document = json.loads(run(*as_nobody("--json")).stdout)
        text = run(*as_nobody()).stdout
    found = {each["pid"]: each for each in document["parents"]}
    endings = {
        parent: sorted((each["pid"], each["exit_code"], each["term_signal"]) for each in found[parent]["zombies"])
        for parent in (roots.pid, own.pid)
    }
    assert [ending[1:] for ending in endings[roots.pid]] == [(None, None), (None, None)]
    assert [ending[1:] for ending in endings[own.pid]] == [(0, None), (None, "SIGKILL")]
    assert found[roots.pid]["sigchld"] == found[own.pid]["sigchld"] == "default"
    assert "only its own user and root may see how it ended" in text


@pytest.mark.root
def test_the_room_that_a_user_has() -> None:
    """The room under RLIMIT_NPROC is the number of forks that then succeed."""
    with program(f"uid={UNUSED_UID}", "nproc=20") as one:
        for _ in range(3):
            one.tell("make")
        limit = parent(one.pid)["limits"][0]
        made = one.tell("fork")["made"]
        full = parent(one.pid)["limits"][0]
    assert (limit["name"], limit["limit"], limit["used"], limit["left"]) == ("RLIMIT_NPROC", 20, 4, 16)
    assert made == 16
    assert full["left"] == 0


@pytest.mark.root
def test_the_room_that_a_cgroup_has(small_cgroups: list[str]) -> None:
    """The room under pids.max is the number of forks that then succeed."""
    if not small_cgroups[0]:
        pytest.skip("this machine has no pids controller")
    with program(f"cgroup={small_cgroups[0]}") as one:
        one.tell("make")
        limit = parent(one.pid)["limits"][0]
        made = one.tell("fork")["made"]
    folder = Path(small_cgroups[0]).parent
    assert (limit["name"], limit["limit"], limit["used"], limit["left"]) == ("pids.max", 3, 2, 1)
    assert limit["where"] == f"/{folder.name}"
    assert made == 1


@pytest.mark.root
def test_hidden_processes() -> None:
    """Where /proc hides the processes of others, `ps` says so: their zombies are missing, and none is not all."""
    with program() as one:
        one.tell("make")
        for hidepid, words in [("1", "that /proc does not show to you"), ("2", "which /proc hides here (hidepid)")]:
            script = f"mount -t proc -o hidepid={hidepid} proc /proc && exec {shlex.join(as_nobody())}"
            shown = run("unshare", "--mount", "sh", "-c", script).stdout
            assert words in " ".join(shown.split())
            assert f"\n{one.pid} " not in shown


@pytest.mark.root
def test_in_a_pid_namespace() -> None:
    """In a container the zombies are those in it, with the numbers of there; what is outside is said to be unseen."""
    program = (
        "import os, subprocess, sys\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(2)\n"
        "os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)\n"
        "for options in (['--json'], []): subprocess.run([sys.executable, '-m', 'forktrace', 'ps', *options], check=True)\n"
    )
    out = run("unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", program).stdout
    document, end = json.JSONDecoder().raw_decode(out)
    (only,) = document["parents"]
    assert (only["pid"], [(one["pid"], one["exit_code"]) for one in only["zombies"]]) == (1, [(2, 2)])
    assert document["outside_hidden"]
    least = {limit["name"]: limit["used_is_least"] for limit in only["limits"]}
    assert (least["pid_max"], least["threads-max"]) == (True, False)
    assert "Not seen: what is outside of this PID namespace" in out[end:]
