"""What the launcher and the recorder say to one another: one JSON object a message, over a socket that keeps them apart.

    launcher                                  recorder
    arm: what to load (`Arming`)              armed; live, words: lines for the user, at any time
    the `Order`, with the open trace          ready
    ping                                      pong
    next, with the next file of a rotation    turned: it writes there; refused: it will not; next: it needs one
    ended: the target was reaped
    stop: the user wants the end              done; error: it cannot go on

An end that finds the other one closed stops. The launcher belongs to any user, and may not read: the recorder never waits for
it (`waits` False).
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import select
import socket
import struct
import termios
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from forktrace.errors import ForktraceError

MESSAGE_BYTES: Final = 1 << 17
ORDER_BYTES: Final = 64 << 20  # the longest command line is 6 MiB, and what is quoted six times as long
UNSENT_MOST: Final = 100  # messages that are kept for an end that does not read
_ROOM: Final = socket.CMSG_SPACE(4 * 16)  # for descriptors

Message = dict[str, Any]
_Received = TypeVar("_Received")


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end. With `waits` a message that finds no room is waited for, without it is sent by the next `flush`."""

    def __init__(self, end: socket.socket, *, waits: bool = True) -> None:
        self._end = end
        self._flags = 0 if waits else socket.MSG_DONTWAIT
        self._unsent: deque[bytes] = deque(maxlen=UNSENT_MOST)

    def fileno(self) -> int:
        """Return what to wait for: readable when `receive` would not have to wait."""
        return self._end.fileno()

    def close(self) -> None:
        """Close it, upon which the other end is done."""
        self._end.close()

    def peer_uid(self) -> int:
        """Return the number of the user who made the socket (SO_PEERCRED, unix(7)).

        Raises:
            OSError: it is no socket as `pair` makes them. Others can be connected anew, to somebody who trusts root's messages.
        """
        kind = tuple(self._end.getsockopt(socket.SOL_SOCKET, one) for one in (socket.SO_DOMAIN, socket.SO_TYPE))
        if kind != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
            raise OSError(errno.ESOCKTNOSUPPORT, os.strerror(errno.ESOCKTNOSUPPORT))
        _, uid, _ = struct.unpack("3i", self._end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)

    def send(self, what: str, **more: Any) -> None:
        """Send a message; whether the other end is still there shows elsewhere."""
        self._unsent.append(json.dumps({"say": what, **more}).encode())
        self.flush()

    def flush(self, seconds: float = 0.0) -> None:
        """Send what could not be sent; where the other end does not read, try so long."""
        deadline = time.monotonic() + seconds
        while self._unsent:
            try:
                self._end.send(self._unsent[0], self._flags)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return
                select.select([], [self._end], [], 0.05)
                continue
            except OSError:
                self._unsent.clear()
                return
            self._unsent.popleft()

    def is_read(self) -> bool:
        """Return whether the other end has read all that was sent: one that has been stopped must not stop this one."""
        return not self._unsent and not struct.unpack("i", fcntl.ioctl(self._end, termios.TIOCOUTQ, bytes(4)))[0]

    def receive(self, seconds: float | None = None) -> Message:
        """Wait for a message and return it, an empty one when the other end is closed.

        Raises:
            ForktraceError: none came within so many seconds, or what came is none.
        """
        data = self._received(lambda flags: self._end.recv(MESSAGE_BYTES, flags), seconds)
        return _parsed(data) if data else {}

    def receive_now(self) -> tuple[Message | None, list[int]]:
        """Return the next message as `receive` does, without waiting, and the descriptors with it; None: there is none.

        Raises:
            ForktraceError: what came is none.
        """
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            data, ancillary, _, _ = self._end.recvmsg(MESSAGE_BYTES, _ROOM, flags)
        except BlockingIOError:
            return None, []
        except ConnectionError:
            return {}, []
        descriptors = _descriptors(ancillary)
        try:
            return _parsed(data) if data else {}, descriptors
        except ForktraceError:
            close_all(descriptors)
            raise

    def _received(self, receive: Callable[[int], _Received], seconds: float | None) -> _Received | None:
        """What is received within so many seconds, None when the other end is closed.

        It does not wait in the call: a process with a copy of this end may take what was there a moment ago.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            if deadline is not None and not select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ForktraceError(f"the launcher said nothing for {seconds:g} s", "use forktrace record")
            try:
                return receive(0 if deadline is None else socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionResetError):  # reset: the other end left messages unread; its own still come
                continue
            except ConnectionError:
                return None

    def send_order(self, order: Message, descriptors: list[int]) -> None:
        """Send an order of any length, and descriptors; whether the other end is still there shows elsewhere."""
        written = os.memfd_create("order")  # no message is large enough for the longest command line
        try:
            with open(written, "w", closefd=False) as file:
                json.dump(order, file)
            with contextlib.suppress(ConnectionError):
                socket.send_fds(self._end, [b"{}"], [written, *descriptors])
        finally:
            os.close(written)

    def send_descriptor(self, what: str, descriptor: int, **more: Any) -> None:
        """Send a message with a descriptor; whether the other end is still there shows elsewhere."""
        with contextlib.suppress(ConnectionError):
            socket.send_fds(self._end, [json.dumps({"say": what, **more}).encode()], [descriptor])

    def receive_order(self, count: int, seconds: float) -> tuple[Message, list[int]]:
        """Wait for an order that comes with `count` descriptors, and return both; nothing when the other end is closed.

        Raises:
            ForktraceError: none came within so many seconds, or something else did.
        """
        received = self._received(lambda flags: self._end.recvmsg(64, _ROOM, flags | socket.MSG_CMSG_CLOEXEC), seconds)
        if received is None:
            return {}, []
        message, ancillary, flags, _ = received
        descriptors = _descriptors(ancillary)
        if not message and not descriptors:
            return {}, []
        if flags & socket.MSG_CTRUNC or len(descriptors) != 1 + count:
            close_all(descriptors)
            raise ForktraceError(
                f"this is no launcher of this forktrace: an order with {len(descriptors)} descriptors", "use forktrace record"
            )
        try:
            return _parsed(os.pread(descriptors[0], min(ORDER_BYTES, os.fstat(descriptors[0]).st_size), 0)), descriptors[1:]
        except OSError as error:
            raise ForktraceError(f"the launcher's order cannot be read: {error.strerror}", "use forktrace record") from error
        finally:
            os.close(descriptors[0])


def close_all(descriptors: list[int]) -> None:
    """Close descriptors that nobody wants."""
    for descriptor in descriptors:
        os.close(descriptor)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _parsed(data: bytes) -> Message:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise ForktraceError("this is no launcher of this forktrace: what it says is no JSON object", "use forktrace record")
    return message
