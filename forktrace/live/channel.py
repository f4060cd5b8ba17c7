"""What the launcher and the recorder say to one another: one JSON object a message, over a socket that keeps them apart.

The launcher says `arm` (with stacks or without, to attach or not, the target's PATH, whether words and the live line are
wanted), the recorder `armed`; then it is handed the order and the open trace, and says `ready`. It is told `ended` when the
target was reaped and `stop` when the user has had enough, has `words` and `live` lines for the user now and then, and says
`done` at the end, or `error` with a message when it cannot go on. Whoever finds the other end closed is done.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
from typing import Any, Final

MESSAGE_BYTES: Final = 1 << 17
ORDER_BYTES: Final = 64 << 20  # the longest command line is 6 MiB, and what is quoted six times as long

Message = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def fileno(self) -> int:
        """Return what to wait for: readable when `hear` would not have to wait."""
        return self._end.fileno()

    def close(self) -> None:
        """Close it, upon which the other end is done."""
        self._end.close()

    def peer_uid(self) -> int:
        """Return the number of the user who made the socket (SO_PEERCRED, unix(7))."""
        _, uid, _ = struct.unpack("3i", self._end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(uid)

    def say(self, what: str, **more: Any) -> None:
        """Send a message; whether the other end is still there shows elsewhere."""
        with contextlib.suppress(OSError):
            self._end.send(json.dumps({"say": what, **more}).encode())

    def is_read(self) -> bool:
        """Return whether the other end has read all that was said: one that has been stopped must not stop this one."""
        return not struct.unpack("i", fcntl.ioctl(self._end, termios.TIOCOUTQ, bytes(4)))[0]

    def hear(self) -> Message:
        """Wait for a message and return it, an empty one when the other end is closed."""
        try:
            message = self._end.recv(MESSAGE_BYTES)
        except ConnectionError:
            message = b""
        return json.loads(message) if message else {}

    def hand(self, order: Message, descriptors: list[int]) -> None:
        """Send an order of any length, and descriptors."""
        written = os.memfd_create("order")  # no message is large enough for the longest command line
        try:
            with open(written, "w", closefd=False) as file:
                json.dump(order, file)
            socket.send_fds(self._end, [b"{}"], [written, *descriptors])
        finally:
            os.close(written)

    def take(self, most: int) -> tuple[Message, list[int]]:
        """Wait for an order and return it with its descriptors, at most `most`; nothing when the other end is closed."""
        message, descriptors, _, _ = socket.recv_fds(self._end, 64, 1 + most)
        if not message or not descriptors:
            return {}, []
        with open(descriptors[0], "rb") as file:
            return json.loads(os.pread(file.fileno(), ORDER_BYTES, 0)), descriptors[1:]
