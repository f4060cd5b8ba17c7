"""The line on a terminal that shows how a recording goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter

from forktrace.trace.words import count


class LiveLine:
    """A line that each `show` replaces; `clear` removes it."""

    def __init__(self, silent: bool) -> None:
        self.silent = silent
        self._shown = False

    def show(self, text: str) -> None:
        """Replace the line."""
        if self.silent:
            return
        width = shutil.get_terminal_size().columns
        text = f"forktrace: {text}"[: width - 1]
        self._write(f"\r\x1b[K{text}")
        self._shown = True

    def clear(self) -> None:
        """Remove the line; the next `show` makes a new one."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the terminal is gone
            os.write(2, text.encode())


class Progress:
    """Puts into words how a recording goes."""

    def __init__(self) -> None:
        self._before = (time.monotonic(), 0)

    def text(self, counts: Counter[str], lost: int, running: int, zombies: int) -> str:
        """Return how many processes ran and run, zombies now, events per second since the last time, and losses."""
        now, total = time.monotonic(), sum(counts.values())
        then, before = self._before
        self._before = (now, total)
        rate = (total - before) / max(now - then, 1e-3)
        alive = f"{running} running, {count(zombies, 'zombie')}"
        return f"{count(counts['fork'], 'process')}, {alive}, {rate:,.0f} events/s, {lost} lost"
