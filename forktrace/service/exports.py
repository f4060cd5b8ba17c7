"""The process that adds each file of a rotation to a dataset of many hosts once it is finished, until the recording ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from forktrace.analysis.recording import read
from forktrace.errors import ForktraceError, NoFile, TraceError
from forktrace.fleet import dataset
from forktrace.launcher.companion import explained, say
from forktrace.trace.files import named_alike
from forktrace.trace.stream import read_header
from forktrace.trace.words import count, printable

LOOK_EVERY_S: Final = 1.0
_SETTLED, _LATER = range(2)  # how an attempt ends


def follow(url: str, path: str, until: int) -> None:
    """Add the finished files of the rotation whose newest file is `path`, until the descriptor `until` is at its end.

    Files before it that are not there yet are added too. What fails is said in a line, and tried again at the next turn.
    """
    files, is_over = _Files(url, path), False
    while not is_over:
        is_over = bool(select.select([until], [], [], LOOK_EVERY_S)[0])
        files.look(is_over)


class _Files:
    """The files of a rotation, and up to which one they are in the dataset at `url`. The first one has the number 0 here."""

    def __init__(self, url: str, path: str) -> None:
        self._url, self._path = url, path
        self._next: int | None = None  # to be added; None: the oldest that is there
        self._tried: int | None = None  # the newest that was finished at the last attempt

    def look(self, is_over: bool) -> None:
        """Where a file is finished since the last look, add all that are not added; when it is over, the newest is finished."""
        with contextlib.suppress(OSError):  # a file was removed meanwhile; of a directory that is gone the launcher tells
            found = [one for one in named_alike(self._path) if os.path.getsize(one[1])]
            finished = found if is_over else found[:-1]
            waiting = [one for one in finished if self._next is None or one[0] >= self._next]
            if waiting and waiting[-1][0] != self._tried:
                self._tried = waiting[-1][0]
                self._add(waiting)

    def _add(self, waiting: Iterable[tuple[int, str]]) -> None:
        """Add files up to the first one that the dataset does not take now."""
        for number, path in waiting:
            if (missed := number - max(self._next or 0, 0)) > 0:
                say(f"{count(missed, 'file')} before {printable(path)} went before the dataset took them")
            self._next = number
            status = _in_child(partial(_add, self._url, path))
            if status < 0:
                say(f"{printable(path)} is not in the dataset yet: its export was ended by {signal.Signals(-status).name}")
            if status:
                return
            self._next = number + 1


def _in_child(work: Callable[[], int]) -> int:
    """Return how it ends in a process of its own, at low priority, whose memory is free again afterwards."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = _LATER
    try:
        os.nice(10)
        status = work()
    except Exception:  # a defect: without its trace nobody could mend it
        traceback.print_exc()
    finally:
        os._exit(status)


def _add(url: str, path: str) -> int:
    try:
        if not dataset.has(url, read_header(path)):
            dataset.write(read(path), url)
    except NoFile:
        return _LATER  # it was removed, which is said elsewhere
    except TraceError as error:
        say(f"{explained(error)}: it is not added to the dataset")
        return _SETTLED
    except ForktraceError as error:
        say(f"{printable(path)} is not in the dataset yet: {explained(error)}")
        return _LATER
    return _SETTLED
