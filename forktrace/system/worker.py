"""Opens and reads files of the target's choice in a process of its own: that may never return.

A file can be on a file system whose server does not answer (FUSE, NFS), or have a lease. The recorder does not wait for it: a
helper that hangs is killed and replaced, and its request gets no answer.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from forktrace.system.capabilities import in_effect
from forktrace.system.procfs import Proc

BLOCKED_S: Final = 3.0  # a helper may sleep so long over one request,
BUSY_S: Final = 15.0  # and compute so long
WAITING_MOST: Final = 1024  # requests; further ones are not taken
LOST_MOST: Final = 5  # helpers that hung; then none is started any more
MESSAGE_MOST: Final = 128 << 10  # bytes of a request or an answer
PARTING_S: Final = 0.5
MEMORY_MOST: Final = 512 << 20  # bytes, beyond what the recorder has mapped

_PR_SET_PDEATHSIG: Final = 1

Answers = list[tuple[Any, Any]]


class Worker:
    """Calls `work(request)` in a process of its own, for one request after the other; requests and answers are JSON values.

    That process keeps the descriptors `kept` and no others.

    Attributes:
        lost: how many helpers hung
        refused: why the last start of its process failed; None: no start failed
    """

    def __init__(self, work: Callable[[Any], Any], kept: Iterable[int] = ()) -> None:
        self._work = work
        self._kept = tuple(kept)
        self._ours, self._its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._waiting: deque[tuple[Any, bytes]] = deque()  # requests, and their messages
        self._pid = 0
        self._ended: list[int] = []
        self._number = 0  # of the request that is worked on
        self._since: float | None = None  # when it was sent; None: there is none
        self.lost = 0
        self.refused: str | None = None

    def start(self) -> bool:
        """Start the process, unless it runs. False: the kernel makes none, for example at a limit on processes."""
        if not self._pid:
            try:
                self._pid = self._start()
            except OSError as error:
                self.refused = error.strerror or str(error)
        return self._pid != 0

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is an answer."""
        return self._ours.fileno()

    @property
    def is_idle(self) -> bool:
        """Whether no request is open."""
        return not self._waiting

    def ask(self, request: Any) -> bool:
        """Add a request. False: it is not taken.

        It is too large, too many are open, or no process can be started.
        """
        self._number += 1
        message = json.dumps([self._number, request]).encode()
        if len(self._waiting) >= WAITING_MOST or len(message) > MESSAGE_MOST or self.lost >= LOST_MOST:
            return False
        self._waiting.append((request, message))
        if self._since is None and not self._hand_over():
            self._waiting.pop()
            return False
        return True

    def take(self) -> Answers:
        """Return the requests that are done, each with its answer; the answer None: it will never come."""
        done: Answers = []
        while self._since is not None:
            is_lost = self._is_lost()  # looked up first: it may answer meanwhile
            answer = self._answer()
            if answer is None and not is_lost:
                break
            if answer is None:
                self._end()
                self.lost += 1
            done.append((self._waiting.popleft()[0], answer))
            self._since = None
            if self.lost >= LOST_MOST:
                done += [(request, None) for request, _ in self._waiting]
                self._waiting.clear()
            while self._waiting and not self._hand_over():
                done.append((self._waiting.popleft()[0], None))
        return done

    def wait(self, seconds: float, meanwhile: Callable[[], object] = lambda: None) -> Answers:
        """Wait until no request is open, at most so many seconds; return what is done. `meanwhile` is called all the time."""
        deadline = time.monotonic() + seconds
        done = self.take()
        while not self.is_idle and time.monotonic() < deadline:
            select.select([self._ours], [], [], 0.01)
            meanwhile()
            done += self.take()
        return done

    def close(self) -> None:
        """End it."""
        self._end()
        deadline = time.monotonic() + PARTING_S
        while self._ended and time.monotonic() < deadline:
            time.sleep(0.001)
            self._reap()
        self._ours.close()
        self._its.close()

    def _hand_over(self) -> bool:
        if not self.start():
            return False
        self._since = time.monotonic()
        self._ours.send(self._waiting[0][1])
        return True

    def _answer(self) -> Any:
        """The answer to the present request, None when it has not come. Late answers of a killed helper are dropped."""
        while True:
            try:
                message = self._ours.recv(MESSAGE_MOST, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            number, answer = json.loads(message)
            if number == json.loads(self._waiting[0][1])[0]:
                return answer

    def _is_lost(self) -> bool:
        """Whether the helper hangs: it sleeps or computes for too long over its request, or has died."""
        lasted_s = time.monotonic() - (self._since or 0.0)
        if lasted_s > BUSY_S:
            return True
        with suppress(PermissionError):
            if stat := Proc(rights=in_effect).stat(self._pid):
                return stat.state in "ZX" or (lasted_s > BLOCKED_S and stat.state != "R")
        return True

    def _end(self) -> None:
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._ended.append(self._pid)
            self._pid = 0
        self._reap()

    def _reap(self) -> None:
        """Reap helpers that have ended. One that survives even SIGKILL is left to init."""
        for pid in list(self._ended):
            try:
                gone = os.waitpid(pid, os.WNOHANG)[0]
            except ChildProcessError:
                gone = pid
            if gone:
                self._ended.remove(pid)

    def _start(self) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            self._serve()
        finally:
            os._exit(1)

    def _serve(self) -> NoReturn:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):  # so that a reader of our output does not wait for the helper
            os.dup2(nowhere, descriptor)
        kept = sorted({2, self._its.fileno(), *self._kept})
        for last, following in zip(kept, [*kept[1:], 1 << 16], strict=True):
            os.closerange(last + 1, following)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEMORY_MOST
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        while message := self._its.recv(MESSAGE_MOST):
            number, request = json.loads(message)
            try:
                answer = json.dumps([number, self._work(request)]).encode()
            except Exception:  # whatever the target has made: there is no answer then
                answer = b""
            if not 0 < len(answer) <= MESSAGE_MOST:
                answer = json.dumps([number, []]).encode()
            self._its.send(answer)
        os._exit(0)
