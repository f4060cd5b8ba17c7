"""Names, users and commands, before anything is started."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner

from forktrace.cli import cli
from forktrace.errors import CommandError, ForktraceError, PermissionMissing, UsageError
from forktrace.launcher import command, recorder_process
from forktrace.launcher.options import RecordOptions
from forktrace.launcher.session import check_output, default_name
from forktrace.recorder.protocol.channel import Channel, pair
from forktrace.recorder.protocol.orders import encoded
from forktrace.system import capabilities, users

PIPES: Final[dict[str, Any]] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "consumer.py"], "forktrace-consumer.7.arrows"),
        (["/usr/bin/python3.11", "-u", "/srv/my app.py", "x.py"], "forktrace-my app.7.arrows"),
        (["python3", "-c", "pass"], "forktrace-python3.7.arrows"),
        (["./run.sh"], "forktrace-run.sh.7.arrows"),
    ],
)
def test_default_name(command: list[str], name: str) -> None:
    """The script's name for Python, else the command's."""
    assert default_name(command, 7) == name


def user(path: Path) -> users.User:
    """Somebody whose PATH is one directory."""
    return users.User("somebody", 1234, 1234, (1234,), {"PATH": str(path)})


def test_a_command_is_looked_for_in_the_users_path(tmp_path: Path) -> None:
    """Not in that of root: what is nowhere there is 127; a name with a slash is left to exec."""
    (tmp_path / "there").touch()
    command.check_command("there", user(tmp_path))
    command.check_command("./nowhere", user(tmp_path))
    with pytest.raises(CommandError, match="ls: command not found") as caught:
        command.check_command("ls", user(tmp_path))
    assert caught.value.exit_status == 127


def test_named_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """--user takes that user's numbers and home, by name or number, and nobody unknown."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for word in ("nobody", "65534"):
        nobody = users.named_user(word)
        assert (nobody.name, nobody.uid, nobody.environment["USER"]) == ("nobody", 65534, "nobody")
    for word in ("no-such-user", "54321", "-1", "9" * 30, "\u0661"):
        with pytest.raises(UsageError, match=f"there is no user {word}"):
            users.named_user(word)


def test_without_sudo_the_user_is_who_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """SUDO_UID alone, without a sudo above, makes nobody else of us."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(users, "find_sudo_above", lambda: None)
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert users.invoking_user().uid == 0


def test_who_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container without /etc/passwd not even root has one: its number stands for it, and its group stays what it is."""
    monkeypatch.setattr(users.pwd, "getpwuid", lambda uid: {}[uid])
    for name in ("getuid", "geteuid", "getgid"):
        monkeypatch.setattr(os, name, lambda name=name: 3000 if name == "getgid" else 0)
    who = users.invoking_user()
    assert (who.name, who.uid, who.gid) == ("0", 0, 3000)


@pytest.mark.root
def test_under_sudo_the_user_is_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the environment that sudo was given and the caller's umask, also where the number has no name."""
    caller = ["/bin/sh", "-c", "umask 013; echo; cat; :"]
    with subprocess.Popen(caller, env={"A": "b=c"}, user=54321, **PIPES) as sudo:
        assert sudo.stdout is not None
        sudo.stdout.readline()
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(users, "find_sudo_above", lambda: sudo.pid)
        monkeypatch.setenv("SUDO_UID", "54321")
        monkeypatch.setenv("SUDO_GID", "54322")
        who = users.invoking_user()
        sudo.communicate()
    assert (who.uid, who.gid, who.groups) == (54321, 54322, (54322,))
    assert (who.environment["A"], who.umask) == ("b=c", 0o013)


def test_without_root_the_user_is_who_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever SUDO_UID says; and nobody else can be named."""
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    monkeypatch.setenv("SUDO_UID", "54321")
    assert users.invoking_user().uid == os.getuid()
    assert users.named_user("nobody").uid == 65534
    with pytest.raises(PermissionMissing, match="only root can run a command as root"):
        users.named_user("root")


def test_where_a_trace_may_go(tmp_path: Path) -> None:
    """To a new file, an old one with --force, a pipe or a character device; not to a directory, nor to what holds no file."""
    (tmp_path / "old").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    for name in ("new", "none/new", "pipe", "/dev/null"):
        check_output(str(tmp_path / name), False)
    check_output(str(tmp_path / "old"), True)
    for name, force, words in [
        ("old", False, "exists"),
        ("dangling", False, "exists"),
        ("", True, "is a directory"),
        ("socket", True, "is neither a file nor a pipe"),
    ]:
        with pytest.raises(UsageError, match=words):
            check_output(str(tmp_path / name), force)
    listening.close()


def test_ctrl_c_ends_a_held_target() -> None:
    """Which dies of it, as it would once it runs, and is not released any more."""
    me = users.User("me", os.getuid(), os.getgid(), (os.getgid(),), os.environ)
    held = command.HeldTarget(["/bin/true"], me)
    os.kill(held.pid, signal.SIGINT)
    held.release()
    assert os.waitstatus_to_exitcode(os.waitpid(held.pid, 0)[1]) == -signal.SIGINT


def test_no_root_and_no_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says at once what is missing."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 1000)
    monkeypatch.setattr(capabilities, "missing", lambda: ["CAP_BPF"])
    monkeypatch.setattr(recorder_process, "SUDO", ("/nonexistent/sudo", "/bin/true"))
    with pytest.raises(PermissionMissing, match="there is no sudo") as caught:
        command.record(["true"], RecordOptions(quiet=True))
    assert caught.value.hint == "apt-get install sudo, or capabilities: CAP_BPF missing here"


SAID = "this cannot be recorded: Resource temporarily unavailable"


class Armed:
    """A recorder that is ready at once."""

    def __init__(self, who: object, *, quiet: bool) -> None:
        self.pid, self.channel = 0, Channel(pair()[0])

    def arm(self, *_: object) -> None:
        """It is."""

    def close(self) -> None:
        """It has ended."""


@pytest.mark.parametrize(
    ("place", "name"),
    [(command, "RecorderProcess"), (os, "pipe"), (os, "memfd_create"), (os, "pidfd_open"), (Path, "read_text")],
    ids=["the recorder, or sudo", "pipe", "memfd", "pidfd", "boot_id"],
)
def test_what_the_kernel_refuses(place: object, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever it is, before there is the command and after: a line, what may be the reason, and 125; no trace is left."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "RecorderProcess", Armed)
    monkeypatch.setattr(command, "begin", lambda recorder, order, trace: recorder.channel.send_order(encoded(order), [trace]))
    monkeypatch.setattr(place, name, refused)
    done = CliRunner().invoke(cli, ["record", "-o", "run.arrows", "--", "true"])
    monkeypatch.undo()
    assert isinstance(done.exception, ForktraceError), done.exception
    assert (done.exception.exit_status, str(done.exception)) == (125, SAID)
    assert "pids.max" in done.exception.hint
    assert not (tmp_path / "run.arrows").exists()
