"""The program that sudo runs: the recorder, for the caller of sudo, with a socket as its stdin.

It is started by its full path with `python -I -B`: no module comes from the working directory, from PYTHONPATH or from the
user's own site-packages, unless forktrace itself is there. Its messages come from somebody who is not root.
"""

from __future__ import annotations

import importlib.util
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

SAFE_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
STARTING_S: Final = 60  # after so long whoever started it cannot keep it waiting any more,
COMPLAINING_S: Final = 2  # and so long it tries to say what is wrong


def load_forktrace() -> None:
    """Make `forktrace` the package that this file is part of, whatever else is installed by that name."""
    package = Path(__file__).resolve().parents[1]
    spec = importlib.util.spec_from_file_location(
        "forktrace", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{package} is no package")
    sys.modules["forktrace"] = module = importlib.util.module_from_spec(spec)
    sys.path.append(str(package.parent))  # pip install --user: its dependencies are there, too
    spec.loader.exec_module(module)


def end_after(seconds: int) -> None:
    """Let a signal end this process after so many seconds, even if the caller has ignored or blocked that signal."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    signal.alarm(seconds)


def complain(text: str) -> NoReturn:
    """Say what is wrong and end with 1. If stderr is full and nobody reads it, a signal ends the process."""
    end_after(COMPLAINING_S)
    if select.select([], [2], [], 0)[1]:
        os.write(2, f"forktrace: {text}\n".encode())
    os._exit(1)


def main() -> None:
    """Record for the user who called sudo, and processes of that user only."""
    if os.geteuid() != 0 or "SUDO_UID" not in os.environ:
        complain("`forktrace record` runs this through sudo")
    kept = {name: os.environ[name] for name in ("SUDO_UID", "SUDO_GID") if name in os.environ}
    os.environ.clear()
    os.environ.update(kept, PATH=SAFE_PATH)
    os.chdir("/")
    from forktrace.recorder.protocol.channel import Channel
    from forktrace.recorder.service import serve
    from forktrace.system.users import sudo_caller

    who = sudo_caller({})
    try:
        channel = Channel(socket.socket(fileno=os.dup(0)), waits=False)
        maker = channel.peer_uid()
    except OSError as error:
        complain(f"stdin is no socket of forktrace: {error.strerror} (does sudo log its input?)")
    if maker != who.uid:
        complain(f"the socket is of user {maker}, and sudo was called by user {who.uid}")
    for number in (0, 1, 2):  # what a library prints must not be taken for a message, nor wait for a reader
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    signal.alarm(0)
    sys.exit(serve(channel, who, only_of=who.uid or None))


def run() -> None:
    """Record; say in one line if there is no memory for it."""
    end_after(STARTING_S)  # the traceback of a bug goes to somebody else's standard error
    try:
        load_forktrace()
        main()
    except MemoryError:
        complain("there is no memory to begin with (ulimit -v)")


if __name__ == "__main__":
    run()
