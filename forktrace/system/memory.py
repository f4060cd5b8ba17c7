"""Reads the memory of a running process without stopping or signalling it."""

from __future__ import annotations

import os
import struct
import time
from typing import Any, Final

MOST_S: Final = 2.0  # for one look at a process, however much memory it points to


class Unreadable(ValueError):
    """There is no memory at this address, or no longer."""


class Memory:
    """The memory of the program that the process `pid` runs at this moment; after its exec or end nothing of it is readable.

    Raises:
        PermissionError: this user may not: it takes the right to attach a debugger.
        OSError: there is no such process.
    """

    def __init__(self, pid: int) -> None:
        self._descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._deadline = time.monotonic() + MOST_S

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes. They can come from two moments: only a word is consistent, for more read again.

        Raises:
            Unreadable: not all of them are there, or this look has taken MOST_S.
        """
        if time.monotonic() > self._deadline:
            raise Unreadable("it takes too long")
        try:
            data = os.pread(self._descriptor, size, address)
        except (OSError, OverflowError) as error:
            raise Unreadable(f"{address:#x}: {error}") from None
        if len(data) != size:
            raise Unreadable(f"{address:#x}: only {len(data)} of {size} bytes")
        return data

    def word(self, address: int) -> int:
        """Return the 64-bit number at an address."""
        return int.from_bytes(self.read(address, 8), "little")

    def unpack(self, form: str, address: int) -> tuple[Any, ...]:
        """Return what `struct` finds at an address."""
        return struct.unpack(form, self.read(address, struct.calcsize(form)))

    def close(self) -> None:
        """Let go."""
        os.close(self._descriptor)
