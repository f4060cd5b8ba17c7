"""The line on a terminal that shows how a recording goes."""

from __future__ import annotations

import contextlib
import os
import shutil


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
