"""Reads the source lines of the target's stacks, with the rights of the target's user only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from forktrace.system.capabilities import in_effect
from forktrace.system.files import read_regular
from forktrace.system.worker import Worker
from forktrace.trace.stacks import Frame

TEXT_MOST: Final = 200  # characters
LINES_MOST: Final = 20_000  # of a recording
_PER_PROCESS: Final = ("proc/", "dev/fd/", "dev/std")  # below the root: names that mean another file in each process


class ProcessRoot(NamedTuple):
    """The files of a process in which names mean other files than here, as in a container.

    Attributes:
        process: a descriptor of its directory in /proc, which remains that process's when the number is reused
        with_all_rights: whether they are opened with all rights of this process, or with those of the user alone
    """

    process: int
    with_all_rights: bool


def files_of(pids: Sequence[int], starts: Mapping[int, int], *, with_all_rights: bool) -> tuple[bool, ProcessRoot | None]:
    """Return whether names mean the same files in all of these processes, and one of them to look the names up in.

    None: names mean the same files as here. `starts` has the start of each (clock ticks) where it is known: a process whose
    number was reused since does not count.
    """
    with contextlib.ExitStack() as undo, _rights(with_all_rights):
        found: dict[tuple[str, str], int] = {}
        for pid in pids:
            try:
                process = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                known = undo.enter_context(contextlib.ExitStack())
                known.callback(os.close, process)
                if starts.get(pid, start := _start_of(process)) != start:
                    return False, None
                where = os.readlink("ns/mnt", dir_fd=process), os.readlink("root", dir_fd=process)
            except OSError:  # it is gone, or we may not look at it
                return False, None
            if found.setdefault(where, process) != process:
                known.close()  # one is enough: there can be more than a process may have open
        if len(found) != 1:
            return False, None
        ((where, process),) = found.items()
        if where == (os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/root")):
            return True, None
        return True, ProcessRoot(os.dup(process), with_all_rights)


def _rights(with_all: bool) -> contextlib.AbstractContextManager[None]:
    return in_effect() if with_all else contextlib.nullcontext()


def _start_of(process: int) -> int:
    """Return the start of a process (clock ticks), by its directory in /proc."""
    with open(os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process), errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19])


class Sources:
    """The source lines of frames, each once; a helper reads them.

    `as_user(function, *arguments)` calls with the rights of the target's user. Relative names are looked up in `folder`, all
    names in `files`; None: here.
    """

    def __init__(self, as_user: Callable[..., Any], folder: str, files: ProcessRoot | None = None) -> None:
        kept = () if files is None else (files.process,)
        self.helper = Worker(lambda request: lines_of(as_user, folder, files, *request), kept)
        self._seen: set[tuple[str, int]] = set()

    def ask(self, frames: Iterable[Frame], libraries: Iterable[str]) -> None:
        """Request the lines that were not requested before, except those of the standard library."""
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
        """Yield file, line and text of what was read; with `patience_s` of all that was requested."""
        for (file, _), found in self.helper.wait(patience_s):
            yield from ((file, line, text) for line, text in found or ())


def lines_of(
    as_user: Callable[..., Any], folder: str, files: ProcessRoot | None, file: str, lines: Iterable[int]
) -> list[tuple[int, str]]:
    """Return these lines of a file with their text, as far as it can be read and has them."""
    path = os.path.join(folder, file)
    if os.path.normpath(path).lstrip("/").startswith(_PER_PROCESS):
        return []
    try:
        there = _read_by(as_user, path, files).split(b"\n")
    except (OSError, ValueError):
        return []
    texts = ((line, there[line - 1]) for line in lines if 0 < line <= len(there))
    shown = ((line, raw.decode("utf-8", "backslashreplace").strip()[:TEXT_MOST]) for line, raw in texts)
    return [(line, text) for line, text in shown if text]


@lru_cache(4)
def _read_by(as_user: Callable[..., Any], path: str, files: ProcessRoot | None) -> bytes:
    root = None if files is None else _root_of(files)
    try:
        data: bytes = as_user(read_regular, path, root)
    finally:
        if root is not None:
            os.close(root)
    return data


def _root_of(files: ProcessRoot) -> int:
    """Return a descriptor of the root of a process.

    Raises:
        OSError: it is gone, or the user may not look at it.
    """
    with _rights(files.with_all_rights):
        return os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=files.process)
