"""One recording of a whole session: of this process and all below it, by a forktrace beside it that is no child of its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

START_S: Final = 60.0  # until the probes are attached
END_S: Final = 60.0  # until the trace is closed
_LOOK_S: Final = 0.02
ATTACHED: Final = "forktrace: attached to "  # what record -p says when it follows
# Forks and ends, so that forktrace is an orphan: a test that waits for any child shall not get it. setsid: sudo cannot ask.
_ORPHAN: Final = """
import os, sys
pid = os.fork()
if pid:
    print(pid)
else:
    os.setsid()
    os.dup2(2, 1)
    os.execv(sys.argv[1], sys.argv[1:])
"""


class CannotRecord(Exception):
    """Why not, in a line."""


class Session:
    """A recording of the process `pid` and all below it, from now on until `end`.

    Raises:
        CannotRecord: the rights are missing, or something else is.
    """

    def __init__(self, folder: Path, pid: int) -> None:
        self.path = folder / "session.arrows"
        self._said = folder / "session.log"
        self._recorder, self._ended = self._start(pid)
        self._wait_until_attached()

    def _start(self, pid: int) -> tuple[int, int]:
        command = [sys.executable, "-m", "forktrace", "record", "-o", str(self.path), "--force", "-p", str(pid)]
        with self._said.open("wb") as said:
            starter = [sys.executable, "-I", "-S", "-c", _ORPHAN, *command]
            done = subprocess.run(starter, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, check=True)
        recorder = int(done.stdout.split()[0])
        try:
            return recorder, os.pidfd_open(recorder)
        except OSError:
            raise CannotRecord(self._complaint()) from None

    def _wait_until_attached(self) -> None:
        deadline = time.monotonic() + START_S
        while ATTACHED not in self._said.read_text(errors="replace"):
            if select.select([self._ended], [], [], _LOOK_S)[0]:
                raise CannotRecord(self._complaint())
            if time.monotonic() > deadline:
                signal.pidfd_send_signal(self._ended, signal.SIGTERM)
                raise CannotRecord(f"the probes were not attached within {START_S:g} s")

    def _complaint(self) -> str:
        lines = [line for line in self._said.read_text(errors="replace").splitlines() if line.strip()]
        ours = [line.removeprefix("forktrace: ") for line in lines if line.startswith("forktrace: ")]
        return (ours or lines or ["forktrace ended without a word"])[0]

    def end(self) -> Path:
        """Detach, and return the trace once it is closed.

        Raises:
            CannotRecord: the recording broke off.
        """
        if select.select([self._ended], [], [], 0)[0]:  # a zombie, which an init may leave for a while, takes signals too
            raise CannotRecord(f"the recording ended before the tests did: {self._complaint()}")
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._ended, signal.SIGTERM)
        if not select.select([self._ended], [], [], END_S)[0]:
            raise CannotRecord(f"the recording did not end within {END_S:g} s")
        return self.path
