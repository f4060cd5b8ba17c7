"""Starts the recorder: as a child of this process where that has the rights, else through sudo, and only the recorder.

sudo runs one fixed command, the same for every recording, so that an administrator can allow it and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from forktrace.errors import ForktraceError, PermissionMissing
from forktrace.launcher.options import RecordOptions
from forktrace.launcher.progress_line import LiveLine
from forktrace.recorder.protocol.channel import Channel, Message, pair
from forktrace.recorder.protocol.orders import Arming, encoded
from forktrace.system import capabilities
from forktrace.system.users import User

SUDO: Final = ("/usr/bin/sudo", "/usr/local/bin/sudo", "/bin/sudo", "/run/wrappers/bin/sudo")  # never the one on a PATH
PROGRAM: Final = Path(__file__).parents[1] / "recorder" / "sudo_entry.py"
PYTHON_IGNORES: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # Python sets both to SIG_IGN, which an exec would pass on
MOST_SEARCHED: Final = 1 << 14  # characters of a PATH
DIED: Final[Message] = {
    "say": "error",
    "message": "the recorder died",
    "hint": "what was recorded before can be read",
    "status": 1,
}


class RecorderProcess:
    """The recorder, as its launcher sees it: gets orders, says messages, and is waited for by `close`.

    Raises:
        PermissionMissing: this process may not record, and there is no sudo.
    """

    def __init__(self, who: User, *, quiet: bool) -> None:
        self._line = LiveLine(silent=quiet or not os.isatty(2))
        self._quiet = quiet
        self._is_armed = False
        self.on: dict[str, Callable[[Message], object]] = {}  # what is done with further messages
        self._is_ours = os.geteuid() == 0 or not capabilities.missing()
        ours, its = pair()
        try:
            self.pid = _fork(who, ours, its) if self._is_ours else _start_through_sudo(its)
        finally:
            its.close()
        self.channel = Channel(ours)

    def fileno(self) -> int:
        """Return what to wait for."""
        return self.channel.fileno()

    def arm(self, options: RecordOptions, search: str, *, attach: bool = False) -> None:
        """Have it load the probes, and wait until it has.

        `search` is the target's PATH, where its interpreters are; `attach`: the target runs already.

        Raises:
            ForktraceError: what it failed at; PermissionMissing, sudo did not let it start.
        """
        may_erase = attach or not os.isatty(1)  # else the line would erase prompts of a target on the same terminal
        live = not self._line.silent and may_erase
        arming = Arming(
            stacks=options.stacks,
            attach=attach,
            rotates=options.rotation is not None,
            path=search[:MOST_SEARCHED] if options.stacks else "",
            words=not self._quiet,
            live=live,
        )
        self.channel.send("arm", **encoded(arming))
        self.wait_for("armed")
        self._line.clear()
        self._is_armed = True

    def wait_for(self, wanted: str) -> None:
        """Wait until it says `wanted`, and pass on its words until then.

        Raises:
            ForktraceError: it said what it failed at, or is gone.
        """
        while not self.receive(wanted):
            pass

    def receive(self, wanted: str) -> bool:
        """Wait for its next message, pass it on if it is for the user, and return whether it is `wanted`.

        Raises:
            ForktraceError: it said what it failed at, or is gone.
        """
        said = self.channel.receive()
        if not said and not self._is_ours and not self._is_armed:
            self._line.clear()
            raise PermissionMissing("sudo did not start the recorder", _what_to_type())
        said = said or DIED
        if said["say"] == "words":
            self.say(said["text"])
        elif said["say"] == "live":
            self._line.show(said["text"])
        elif said["say"] == "error":
            self._line.clear()
            error = ForktraceError(said["message"], said.get("hint", ""))
            error.exit_status = said["status"]  # that of the class it had over there
            raise error
        elif said["say"] in self.on:
            self.on[said["say"]](said)
        return bool(said["say"] == wanted)

    def say(self, text: str) -> None:
        """Write a line for the user."""
        self._line.clear()
        with contextlib.suppress(OSError):  # the terminal is gone; the recording goes on
            print(f"forktrace: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Close the channel, upon which it ends, and wait for that."""
        self._line.clear()
        self.channel.close()
        os.waitpid(self.pid, 0)


def _fork(who: User, ours: socket.socket, its: socket.socket) -> int:
    """Fork the recorder, which becomes the user when it no longer needs to be root."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            from forktrace.recorder.service import serve

            status = serve(Channel(its, waits=False), who)
        except Exception:  # a defect: without its trace nobody could mend it
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def _start_through_sudo(its: socket.socket) -> int:
    """Run sudo, with the socket for stdin and stdout: having no terminal there, it leaves that of the target alone."""
    sudo = find_sudo()
    if sudo is None:
        lacking = ", ".join(capabilities.missing())
        raise PermissionMissing(
            "recording needs root, and there is no sudo", f"apt-get install sudo, or capabilities: {lacking} missing here"
        )
    check_code()
    actions = [(os.POSIX_SPAWN_DUP2, its.fileno(), number) for number in (0, 1)]
    return os.posix_spawn(sudo, [sudo, "--", *recorder_command()], os.environ, file_actions=actions, setsigdef=PYTHON_IGNORES)


def recorder_command() -> list[str]:
    """Return what sudo has to run: this Python, cut off from the user's modules and environment, on a file by its full path."""
    return [os.path.abspath(sys.executable), "-I", "-B", str(PROGRAM.resolve())]


def sudoers_rule(name: str) -> str:
    """Return a file for /etc/sudoers.d by which `name` may start the recorder, and nothing else (sudoers(5))."""
    words = [re.sub(r"([\\,:=\s*?\[\]!])", r"\\\1", word) for word in recorder_command()]
    lines = ["# forktrace: who may start the recorder without a password. To install it:"]
    lines += [f"#   {shlex.join(own_command())} doctor --sudoers | sudo tee /etc/sudoers.d/forktrace"]
    if found := next(_changeable_by_others([0]), None):
        lines += [f"# Not only root can change {found}: whoever can is root by this rule."]
    return "\n".join([*lines, f"{name} ALL=(root) NOPASSWD: {' '.join(words)}", ""])


def find_sudo() -> str | None:
    """Return the path of sudo, which must be root's and set-user-ID; None when there is none."""
    for path in SUDO:
        with contextlib.suppress(OSError):
            about = os.stat(path)
            if about.st_uid == 0 and about.st_mode & stat.S_ISUID:
                return path
    return None


def check_code() -> None:
    """Make sure that nobody but root and this user can change what root is going to run.

    Raises:
        PermissionMissing: somebody else can.
    """
    if found := next(_changeable_by_others((0, os.getuid())), None):
        raise PermissionMissing(f"root would run code that others can change: {found}", "use a forktrace of root's or yours")


def _changeable_by_others(owners: Sequence[int]) -> Iterator[str]:
    """Yield those that not only `owners` (user numbers) can change, of the files that root would run and their directories.

    The outermost directory comes first.
    """
    files = [Path(each).absolute() for each in (sys.executable, os.path.realpath(sys.executable), PROGRAM.resolve())]
    for path in dict.fromkeys(each for file in files for each in (*reversed(file.parents), file)):
        about = path.lstat()
        for_all = about.st_mode & stat.S_IWOTH and not stat.S_ISLNK(about.st_mode) and not about.st_mode & stat.S_ISVTX
        if for_all or about.st_uid not in owners:
            yield str(path)


def _what_to_type() -> str:
    """Return the command line of this recording with sudo in front: by its full path, as sudo may not know ours."""
    return f"type in a terminal: {shlex.join(['sudo', *own_command(), *sys.argv[1:]])}"


def own_command() -> list[str]:
    """Return how this very forktrace can be called from everywhere."""
    called = shutil.which(sys.argv[0]) or ""
    if os.path.basename(called) == "forktrace":
        return [os.path.abspath(called)]
    return [os.path.abspath(sys.executable), "-m", "forktrace"]
