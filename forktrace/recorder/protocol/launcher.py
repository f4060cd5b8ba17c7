"""The launcher, as the recorder knows it while it records."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from forktrace.recorder.protocol.channel import Channel, close_all

if TYPE_CHECKING:
    from forktrace.recorder.trace_output import RotationOutput

STALLED_S: Final = 2.0  # how long a reader of the output is waited for that reads nothing, after an order to stop


class Launcher:
    """What the launcher has said. `rotation` takes the next files of a rotation.

    Attributes:
        ended_at: when the target had been reaped (time.monotonic); None: not yet
        stopped_at: when there was an order to stop; None: there was none
    """

    def __init__(self, channel: Channel, rotation: RotationOutput | None) -> None:
        self.channel = channel
        self.rotation = rotation
        self.ended_at: float | None = None
        self.stopped_at: float | None = None

    def receive(self) -> None:
        """Take an order, if there is one; a channel that was closed means that nobody is there to give one: stop."""
        message, descriptors = self.channel.receive_now()
        if message is None:
            return
        said = message.get("say", "stop")
        if said == "next" and self.rotation:
            descriptors = self.rotation.offer(message, descriptors)
        close_all(descriptors)
        if said == "ping":
            self.channel.send("pong")
        if said == "stop" and self.stopped_at is None:
            self.stopped_at = time.monotonic()
        elif said == "ended" and self.ended_at is None:
            self.ended_at = time.monotonic()

    def waits_for_reader(self, meanwhile: Callable[[], object], since: float) -> bool:
        """Whether the reader of the output, which has taken nothing since then, is to be waited for any longer.

        `meanwhile` is called each time. After an order to stop only a reader that goes on reading is waited for.
        """
        meanwhile()
        self.channel.flush()
        self.receive()
        return self.stopped_at is None or time.monotonic() < max(self.stopped_at, since) + STALLED_S
