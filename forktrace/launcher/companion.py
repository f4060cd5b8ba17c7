"""A process beside the recording, with the user's rights and no others, that reads the trace while it is written.

It is a child of the launcher, and no signal that is meant for the recording ends it. A pipe that the launcher holds is at its
end when the recording is. Whatever becomes of it, the recording goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import traceback
from collections.abc import Callable, Collection
from typing import Final

from forktrace.errors import ForktraceError, in_words
from forktrace.system import capabilities
from forktrace.system.users import User, become

Run = Callable[[str, int], None]  # the path of the trace, and the descriptor that is at its end when the recording is
Load = Callable[[], Run]  # imports all that it takes: without rights the files may not be readable

ENDING_S: Final = 10.0  # that it may take to end
_FOR_OTHERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Companion:
    """The process, as its launcher sees it, if there is something to `load` and run; as a context it ends with the recording.

    Attributes:
        running: a descriptor for `select`, readable when the process has ended too early; [] once that was said
    """

    def __init__(self, load: Load | None, path: str, who: User) -> None:
        self.running: list[int] = []
        self._until = self._pid = -1
        try:
            if load:
                self._start(load, path, who)
        except OSError as error:
            say(f"there are no metrics: {in_words(error)}; the recording goes on")

    def _start(self, load: Load, path: str, who: User) -> None:
        until, self._until = os.pipe()
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _run_forked(load, path, until, who)
        finally:
            os.close(until)
        self.running = [os.pidfd_open(self._pid)]

    def noticed(self, readable: Collection[object]) -> bool:
        """Whether it has ended, by what is readable; that is said once."""
        if not self.running or self.running[0] not in readable:
            return False
        self._reap()
        say("the metrics process has ended; the recording goes on")
        return True

    def __enter__(self) -> Companion:
        return self

    def __exit__(self, *_: object) -> None:
        """Tell it that the recording is over, and wait until it has ended; it is killed if that takes long."""
        if self._until >= 0:
            os.close(self._until)
        if self.running and not select.select(self.running, [], [], ENDING_S)[0]:
            say("the metrics process did not end in time, and was killed")
            signal.pidfd_send_signal(self.running[0], signal.SIGKILL)
        if self.running:
            self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):  # PID 1 of a container has done so
            os.waitpid(self._pid, 0)
        os.close(self.running.pop())


def _run_forked(load: Load, path: str, until: int, who: User) -> None:
    """Run as the companion, in the forked process. Of the descriptors of the recording it keeps stderr alone."""
    try:
        os.setsid()
        for number in _FOR_OTHERS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        quiet = os.open(os.devnull, os.O_RDWR)
        os.dup2(quiet, 0)
        os.dup2(quiet, 1)
        os.closerange(3, until)
        os.closerange(until + 1, os.sysconf("SC_OPEN_MAX"))
        run = load()
        become(who)
        capabilities.give_up_all()
        run(path, until)
    except ForktraceError as error:
        say(f"no more metrics: {error}")
    except Exception:  # a defect: without its trace nobody could mend it
        traceback.print_exc()
    finally:
        os._exit(0)


def say(words: str) -> None:
    """Say something on stderr: the launcher of the companion, or the companion itself."""
    with contextlib.suppress(OSError):  # the terminal is gone
        os.write(2, f"forktrace: {words}\n".encode(errors="backslashreplace"))
