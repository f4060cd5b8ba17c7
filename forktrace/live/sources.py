"""Reads the source lines on which the target's stacks stand, with the rights of the target's user and no others."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final

from forktrace.trace.stacks import Frame

FILE_MOST: Final = 4 << 20  # bytes; of a longer file only the lines in its beginning are shown
TEXT_MOST: Final = 200  # characters
LINES_MOST: Final = 20_000  # of a recording
_OF_WHO_LOOKS: Final = ("proc/", "dev/fd/", "dev/std")  # in the root; names that mean another file to every process


class Sources:
    """The lines that frames stand on, each once.

    `as_user(function, *arguments)` calls with the rights of the target's user. Relative names are looked up in `folder`.
    """

    def __init__(self, as_user: Callable[..., Any], folder: str) -> None:
        self._as_user = as_user
        self._folder = folder
        self._seen: set[tuple[str, int]] = set()
        self._lines = lru_cache(64)(self._read)

    def texts(self, frames: Iterable[Frame], libraries: Iterable[str]) -> Iterator[tuple[str, int, str]]:
        """Yield file, line and text of what was not yielded before, except for the files of the standard library."""
        folders = tuple(f"{folder}/" for folder in libraries)
        for file, line, _ in frames:
            if (file, line) in self._seen or len(self._seen) >= LINES_MOST:
                continue
            if file.startswith("<") or (file.startswith(folders) and "-packages/" not in file):
                continue
            self._seen.add((file, line))
            lines = self._lines(file)
            if 0 < line <= len(lines) and (text := lines[line - 1].strip()[:TEXT_MOST]):
                yield file, line, text

    def _read(self, file: str) -> list[str]:
        path = os.path.join(self._folder, file)
        if os.path.normpath(path).lstrip("/").startswith(_OF_WHO_LOOKS):
            return []
        try:
            data: bytes = self._as_user(read_regular, path)
        except (OSError, ValueError):
            return []
        return data.decode("utf-8", "backslashreplace").split("\n")


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
    """Return a descriptor of a regular file; anything else is not opened, or at least not waited for.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is no regular file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it has changed since
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return descriptor
