"""What the launcher does on time while a recording runs: the next file, the end of `--duration`, messages to systemd."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping

from forktrace.launcher.recorder_process import RecorderProcess
from forktrace.launcher.rotation import LOOK_EVERY_S, RotationFiles
from forktrace.recorder.protocol.channel import Message


class Schedule:
    """Does what is due, for a recording that has begun.

    It ends after `duration_s` (None: by itself). `files` is the rotation, None: there is one file.
    """

    def __init__(self, recorder: RecorderProcess, duration_s: float | None, files: RotationFiles | None) -> None:
        self._recorder, self._files = recorder, files
        self._stop_s = float("inf") if duration_s is None else time.monotonic() + duration_s
        self._manager = ServiceManager(os.environ)
        self._ping_s = time.monotonic() if self._manager.alive_every_s else float("inf")
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        recorder.on["pong"] = lambda _: self._manager.tell("WATCHDOG=1")
        if files:
            recorder.on |= {"turned": files.turned, "refused": self._refused, "next": lambda _: files.turn_soon()}
            if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
                signal.signal(signal.SIGHUP, self._hung_up)
        self._manager.tell("READY=1")

    def _refused(self, said: Message) -> None:
        if self._files:
            self._files.refused(self._recorder, said)

    def _hung_up(self, number: int, frame: object) -> None:
        """SIGHUP: the next file begins now, as daemons do with their logs."""
        if self._files:
            self._files.turn_soon()
        with contextlib.suppress(BlockingIOError):
            os.write(self._waker, b"x")

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something is due before `left_s` is over."""
        return self._wake

    def left_s(self) -> float | None:
        """Return how long until something is due; None: nothing will be."""
        due_s = min(self._stop_s, self._ping_s, time.monotonic() + LOOK_EVERY_S if self._files else float("inf"))
        return None if due_s == float("inf") else max(0.0, due_s - time.monotonic())

    def do(self) -> None:
        """Do what is due."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 100)
        now_s = time.monotonic()
        if now_s >= self._stop_s:
            self._recorder.channel.send("stop")
            self._stop_s = float("inf")
        if now_s >= self._ping_s:
            self._recorder.channel.send("ping")
            self._ping_s = now_s + self._manager.alive_every_s
        if self._files:
            self._files.look(self._recorder)

    def close(self) -> None:
        """The recording is over: nothing is due any more."""
        self._manager.tell("STOPPING=1")
        if self._files and signal.getsignal(signal.SIGHUP) == self._hung_up:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for descriptor in (self._wake, self._waker):
            os.close(descriptor)


class ServiceManager:
    """The service manager that started this process (sd_notify(3)), if one did.

    Attributes:
        alive_every_s: how often it wants to hear that the recorder is alive; 0: not at all
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        asked = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.alive_every_s = int(asked) / 2e6 if self._address and is_ours and asked.isascii() and asked.isdigit() else 0.0

    def tell(self, text: str) -> None:
        """Send it a line, if it is there and has room."""
        if not self._address.startswith(("/", "@")):
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as end:
            end.sendto(text.encode(), self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address)
