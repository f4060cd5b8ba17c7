"""A terminal of a test's own."""

from __future__ import annotations

import codecs
import os
import pty
import select
import signal
import time
import uuid
from collections.abc import Mapping

from recorded import MARK, PATIENCE_S, wait_until


class Terminal:
    """A command whose terminal is a pty of its own, in a session of its own; its environment is marked, unless `bare`."""

    def __init__(self, command: list[str], environment: Mapping[str, str], bare: bool = False) -> None:
        self.mark = f"{MARK}={uuid.uuid4()}"
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()  # a read may end within a character
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which this Python ignores, and no shell does
                signal.signal(number, signal.SIG_DFL)
            more = {} if bare else dict([self.mark.split("=")])
            os.execvpe(command[0], command, dict(environment) | more)

    def read(self) -> str:
        """Everything that was printed so far."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.text += self._decoder.decode(os.read(self.master, 65536))
            except OSError:  # the other end is closed
                break
        return self.text

    def until(self, text: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait until `text` was printed."""
        wait_until(lambda: text in self.read(), f"{text!r} on the terminal, which shows {self.text!r}", timeout_s)

    def press(self, key: bytes) -> None:
        """Type."""
        os.write(self.master, key)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit code or negative signal number of the command."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"did not end within {timeout_s} s; the terminal shows {self.text!r}")
            time.sleep(0.01)
        self.read()
        os.close(self.master)
        return os.waitstatus_to_exitcode(status)
