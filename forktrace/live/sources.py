"""Reads the source lines on which the target's stacks stand, with the rights of the target's user and no others."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from forktrace.live.helper import Helper
from forktrace.trace.stacks import Frame

FILE_MOST: Final = 4 << 20  # bytes; of a longer file only the lines in its beginning are shown
TEXT_MOST: Final = 200  # characters
LINES_MOST: Final = 20_000  # of a recording
_OF_WHO_LOOKS: Final = ("proc/", "dev/fd/", "dev/std")  # in the root; names that mean another file to every process


class Sources:
    """The lines that frames stand on, each once; a helper reads them.

    `as_user(function, *arguments)` calls with the rights of the target's user. Relative names are looked up in `folder`.
    """

    def __init__(self, as_user: Callable[..., Any], folder: str) -> None:
        self.helper = Helper(lambda request: lines_of(as_user, folder, *request))
        self._seen: set[tuple[str, int]] = set()

    def ask(self, frames: Iterable[Frame], libraries: Iterable[str]) -> None:
        """Have read what was not asked for before, except for the files of the standard library."""
        folders = tuple(f"{folder}/" for folder in libraries)
        wanted: dict[str, list[int]] = {}
        for file, line, _ in frames:
            if (file, line) in self._seen or len(self._seen) >= LINES_MOST:
                continue
            if file.startswith("<") or (file.startswith(folders) and "-packages/" not in file):
                continue
            self._seen.add((file, line))
            wanted.setdefault(file, []).append(line)
        for file, lines in wanted.items():
            self.helper.ask([file, lines])

    def take(self, patience_s: float = 0.0) -> Iterator[tuple[str, int, str]]:
        """Yield file, line and text of what has been read; with some patience, of all that was asked for."""
        for (file, _), found in self.helper.wait(patience_s):
            yield from ((file, line, text) for line, text in found or ())


def lines_of(as_user: Callable[..., Any], folder: str, file: str, lines: Iterable[int]) -> list[tuple[int, str]]:
    """Return these lines of a file with their text, as far as it can be read and has them."""
    path = os.path.join(folder, file)
    if os.path.normpath(path).lstrip("/").startswith(_OF_WHO_LOOKS):
        return []
    try:
        there = _read_by(as_user, path).split(b"\n")
    except (OSError, ValueError):
        return []
    texts = ((line, there[line - 1]) for line in lines if 0 < line <= len(there))
    shown = ((line, raw.decode("utf-8", "backslashreplace").strip()[:TEXT_MOST]) for line, raw in texts)
    return [(line, text) for line, text in shown if text]


@lru_cache(4)
def _read_by(as_user: Callable[..., Any], path: str) -> bytes:
    data: bytes = as_user(read_regular, path)
    return data


def read_regular(path: str) -> bytes:
    """Return the beginning of a regular file; anything else is not opened.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    descriptor = open_regular(path)
    try:
        return os.read(descriptor, min(FILE_MOST, os.fstat(descriptor).st_size))
    finally:
        os.close(descriptor)


def open_regular(path: str) -> int:
    """Return a descriptor of a regular file; anything else is not opened: that may have effects of its own.

    Raises:
        OSError: it cannot be opened, is no regular file, or somebody holds a lease on it (fcntl(2)).
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError(f"{path} is no regular file")
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(found)
