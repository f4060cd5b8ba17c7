"""Processes beside the recording, with the user's rights and no others, that read the trace while it is written.

They are children of the launcher, and no signal that is meant for the recording ends them. A pipe that the launcher holds is
at its end when the recording is. Whatever becomes of them, the recording goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import traceback
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from forktrace.errors import ForktraceError, in_words
from forktrace.system import capabilities
from forktrace.system.users import User, become
from forktrace.trace.words import printable

Run = Callable[[str, int], None]  # the path of the trace, and the descriptor that is at its end when the recording is
Load = Callable[[], Run]  # imports all that it takes: without rights the files may not be readable

_FOR_OTHERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Companion(NamedTuple):
    """What is to run beside a recording: what it makes, in a word; how it begins; how long it may take to end."""

    makes: str
    load: Load
    ending_s: float = 10.0


class Companions:
    """The processes that make what is wanted, as their launcher sees them; as a context they end with the recording."""

    def __init__(self, wanted: Sequence[Companion], path: str, who: User) -> None:
        self._all = [_Process(one, path, who) for one in wanted]

    @property
    def running(self) -> list[int]:
        """What `select` is to wait for: descriptors, readable when a process has ended too early, until that is told."""
        return [descriptor for one in self._all for descriptor in one.running]

    def report_ended(self, readable: Collection[object]) -> bool:
        """Say which have ended, if any, and return whether one has."""
        return sum(one.report_ended(readable) for one in self._all) > 0

    def __enter__(self) -> Companions:
        return self

    def __exit__(self, *_: object) -> None:
        """Tell them that the recording is over, and wait until they have ended; who takes too long is killed."""
        for one in self._all:
            one.tell()
        for one in self._all:
            one.end()


class _Process:
    """One of them; `running` has its descriptor, unless it has ended."""

    def __init__(self, wanted: Companion, path: str, who: User) -> None:
        self._wanted = wanted
        self.running: list[int] = []
        self._until = self._pid = -1
        try:
            self._start(path, who)
        except OSError as error:
            say(f"the {wanted.makes} process cannot be started: {in_words(error)}; the recording goes on")

    def _start(self, path: str, who: User) -> None:
        until, self._until = os.pipe()
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _run_forked(self._wanted, path, until, who)
        finally:
            os.close(until)
        self.running = [os.pidfd_open(self._pid)]

    def report_ended(self, readable: Collection[object]) -> bool:
        """Whether it has ended, by what is readable; that is said once."""
        if not self.running or self.running[0] not in readable:
            return False
        self._reap()
        say(f"the {self._wanted.makes} process has ended; the recording goes on")
        return True

    def tell(self) -> None:
        """Tell it that the recording is over."""
        if self._until >= 0:
            os.close(self._until)

    def end(self) -> None:
        """Wait until it has ended, or kill it."""
        if self.running and not select.select(self.running, [], [], self._wanted.ending_s)[0]:
            say(f"the {self._wanted.makes} process did not end in time, and was killed")
            signal.pidfd_send_signal(self.running[0], signal.SIGKILL)
        if self.running:
            self._reap()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):  # PID 1 of a container has done so
            os.waitpid(self._pid, 0)
        os.close(self.running.pop())


def _run_forked(wanted: Companion, path: str, until: int, who: User) -> None:
    """Run as a companion, in the forked process. Of the descriptors of the recording it keeps stderr alone."""
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
        run = wanted.load()
        become(who)
        capabilities.give_up_all()
        run(path, until)
    except ForktraceError as error:
        say(f"no more {wanted.makes}: {error}")
    except Exception:  # a defect: without its trace nobody could mend it
        traceback.print_exc()
    finally:
        os._exit(0)


def explained(error: ForktraceError) -> str:
    """Return what failed, and what to do."""
    return printable(f"{error}" + (f"; {error.hint}" if error.hint else ""))


def say(words: str) -> None:
    """Say something on stderr: the launcher of the companion, or the companion itself."""
    with contextlib.suppress(OSError):  # the terminal is gone
        os.write(2, f"forktrace: {words}\n".encode(errors="backslashreplace"))
