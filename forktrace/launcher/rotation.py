"""The launcher's side of a rotation: it decides when the next file begins, opens that, and removes the oldest.

All of this happens with the user's rights. The recorder, which is root, gets descriptors alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from typing import Final

from forktrace.errors import ForktraceError, UsageError, in_words
from forktrace.launcher.options import RotationPlan
from forktrace.launcher.recorder_process import RecorderProcess
from forktrace.recorder.protocol.channel import Message
from forktrace.system.users import User, as_user, become
from forktrace.trace.files import Numbered, numbered, remove_unfinished

LOOK_EVERY_S: Final = 1.0
RETRY_S: Final = 10.0  # after a next file that could not be opened
MERGE_FROM: Final = 5  # batches; a file of fewer is not merged


class RotationFiles:
    """The files `NAME.000001.arrows` in a directory, which is made if need be, and is this recording's alone.

    Attributes:
        path, descriptor: the first file, open; later the newest
        number: its number

    Raises:
        UsageError, ForktraceError: the directory cannot be used.
    """

    def __init__(self, folder: str, name: str, plan: RotationPlan, who: User) -> None:
        self._folder, self._name, self._plan, self._who = folder, name, plan, who
        self._lock = as_user(who, _locked, folder)
        as_user(who, remove_unfinished, folder, name)
        self.number = max(as_user(who, _numbers, folder), default=0) + 1
        self.path, self.descriptor = self._open(self.number)
        self._next: tuple[str, int] | None = None  # handed over, and not written to yet
        self._wanted = False
        self._merging: int | None = None  # the process that does
        self._to_merge: list[str] = []
        self._complaint = ""
        self._due_s = self._deadline()
        self._not_before_s = 0.0

    def _open(self, number: int) -> tuple[str, int]:
        path = os.path.join(self._folder, str(Numbered(self._name, number)))
        return path, as_user(self._who, os.open, path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOCTTY | os.O_CLOEXEC, 0o600)

    def _deadline(self) -> float:
        return _now_s() + self._plan.every_s if self._plan.every_s else float("inf")

    def turn_soon(self) -> None:
        """Begin the next file at the next look, even if it is not due."""
        self._wanted, self._not_before_s = True, 0.0

    def look(self, recorder: RecorderProcess) -> None:
        """Hand over the next file if it is due, remove files beyond the limits, and merge closed ones."""
        self._merge(os.WNOHANG)
        size = os.fstat(self.descriptor).st_size
        is_due = self._wanted or size >= (self._plan.file_size or float("inf")) or _now_s() >= self._due_s
        if is_due and self._next is None and _now_s() >= self._not_before_s:
            self._hand_over(recorder)
        self._remove_oldest()

    def _hand_over(self, recorder: RecorderProcess) -> None:
        try:
            path, descriptor = self._open(self.number + 1)
        except OSError as error:
            self._complain(recorder, f"no next file: {in_words(error)}; the recording goes on in {self.path}")
            self._not_before_s = _now_s() + RETRY_S
            return
        self._next = path, descriptor
        recorder.channel.send_descriptor("next", descriptor, path=path)

    def _complain(self, recorder: RecorderProcess, text: str) -> None:
        if text != self._complaint:  # once
            recorder.say(text)
        self._complaint = text

    def turned(self, _: Message) -> None:
        """The recorder has closed the file before, and writes to the next."""
        if self._next is None:
            return
        before = self.path
        os.close(self.descriptor)
        (self.path, self.descriptor), self._next = self._next, None
        self.number += 1
        self._wanted, self._complaint, self._due_s = False, "", self._deadline()
        self._to_merge.append(before)

    def refused(self, recorder: RecorderProcess, said: Message) -> None:
        """The recorder has refused the next file."""
        if self._next is None:
            return
        (path, descriptor), self._next = self._next, None
        os.close(descriptor)
        with contextlib.suppress(OSError):
            as_user(self._who, os.unlink, path)
        self._complain(recorder, f"no next file: {said.get('why', path)}")
        self._not_before_s = _now_s() + RETRY_S

    def _remove_oldest(self) -> None:
        """Remove the oldest files while there are too many, or they are too large together with the one that grows."""
        if self._plan.keep is None and self._plan.max_size is None:
            return
        closed = sorted(as_user(self._who, self._mine))
        room = float("inf") if self._plan.max_size is None else self._plan.max_size - (self._plan.file_size or 0)
        kept = 1
        for _, path, size in reversed(closed):
            kept, room = kept + 1, room - size
            if room < 0 or (self._plan.keep and kept > self._plan.keep):
                room = -1.0
                with contextlib.suppress(OSError):
                    as_user(self._who, os.unlink, path)

    def _mine(self) -> list[tuple[int, str, int]]:
        """The files of this name that are closed: number, path, size."""
        found = []
        for entry in os.scandir(self._folder):
            one = numbered(entry.name)
            if one and one.name == self._name and one.number < self.number and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    found.append((one.number, entry.path, entry.stat(follow_symlinks=False).st_size))
        return found

    def _merge(self, options: int) -> None:
        """Join the many small batches of closed files, in a process of its own with the user's rights.

        `options` of waitpid(2) say whether to wait for the one before.
        """
        if not self._has_merged(options) or not self._to_merge:
            return
        paths, self._to_merge = self._to_merge, []
        self._merging = os.fork()
        if self._merging:
            return
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the parent acts on them
                signal.signal(number, signal.SIG_IGN)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # else the recorder would not see the end of the parent
            os.nice(10)
            become(self._who)
            merge(paths)
        finally:
            os._exit(0)

    def _has_merged(self, options: int) -> bool:
        with contextlib.suppress(ChildProcessError):  # as PID 1 this process reaps it elsewhere
            if self._merging is not None and os.waitpid(self._merging, options)[0] == 0:
                return False
        self._merging = None
        return True

    def give_up(self, error: type[BaseException] | None, *_: object) -> None:
        """Remove the file if the recording did not begin because of an error."""
        if error is not None:
            with contextlib.suppress(OSError):
                as_user(self._who, os.unlink, self.path)

    def close(self) -> None:
        """Merge what is not merged yet, and let others write to the directory; a file that is empty is removed."""
        for path, descriptor in filter(None, ((self.path, self.descriptor), self._next)):
            if os.fstat(descriptor).st_size == 0:
                with contextlib.suppress(OSError):
                    as_user(self._who, os.unlink, path)
            os.close(descriptor)
        self._to_merge.append(self.path)
        self._merge(0)
        self._has_merged(0)
        os.close(self._lock)


def merge(paths: list[str]) -> None:
    """Join the many small batches of closed files."""
    from forktrace.trace import stream

    for path in paths:
        stream.merge(path, MERGE_FROM)


def _now_s() -> float:
    """A clock that nobody sets and that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _locked(folder: str) -> int:
    """Make the directory if need be, and lock it against other rotations; return the descriptor that holds the lock."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{folder} is no directory", "--rotate writes many files: name a directory with -o") from None
    except OSError as error:
        raise ForktraceError(in_words(error), "name a directory you may write to with -o") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(f"another recording writes to {folder}", "name another directory with -o") from None
    return descriptor


def _numbers(folder: str) -> Iterator[int]:
    """The numbers that files in a directory have, of whatever recording."""
    return (one.number for name in os.listdir(folder) if (one := numbered(name)))
