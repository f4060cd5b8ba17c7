"""Where a line lies in the checkout that a forge or an editor shows: paths relative to its top."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import quote

from forktrace.analysis.gate.sites import site_of
from forktrace.analysis.recording import Recording
from forktrace.errors import UsageError


class Place(NamedTuple):
    """A line: its path, relative to the top of the checkout where `inside` it; `line` 0: not known."""

    path: str
    line: int
    inside: bool

    @property
    def uri(self) -> str:
        """The path as a reference (RFC 3986): relative inside of the checkout."""
        return quote(self.path) if self.inside else f"file://{quote(self.path)}"


class Places:
    """Finds the lines of a recording in a checkout: `root` is its top, `moved` says which directory lies where in it."""

    def __init__(self, recording: Recording, root: str, moved: Mapping[str, str] | None = None) -> None:
        self._recording = recording
        self.root = os.path.abspath(root)
        self._moved = sorted((moved or {}).items(), key=lambda pair: -len(pair[0]))

    def of_site(self, site: str | None) -> Place | None:
        """Return where a site lies; None: it is not known, or no line of a file."""
        if site is None:
            return None
        shown = site_of(site)
        return self.of_file(self._recording.file_of(shown.file) or shown.file, shown.line)

    def of_file(self, file: str, line: int) -> Place | None:
        """Return where a line of a file, as a frame names it, lies; None: it has no file."""
        if not file or file.startswith("<"):
            return None
        path = os.path.normpath(os.path.join(str(self._recording.header["cwd"]), file))
        for before, after in self._moved:
            if path == before or path.startswith(f"{before.rstrip('/')}/"):
                path = os.path.normpath(os.path.join(self.root, after, os.path.relpath(path, before)))
                break
        inside = PurePosixPath(path).is_relative_to(self.root)
        return Place(os.path.relpath(path, self.root) if inside else path, line, inside)


def moved(words: Sequence[str]) -> dict[str, str]:
    """Return what `--map /app=.` says: directories of the recording, and where they lie in the checkout.

    Raises:
        UsageError: it says nothing of that kind.
    """
    pairs = {}
    for word in words:
        before, sign, after = word.partition("=")
        if not (sign and after and before.startswith("/")):
            raise UsageError(f"--map {word}: not FROM=TO", "a directory of the recording and where it lies here: --map /app=.")
        pairs[before.rstrip("/") or "/"] = after
    return pairs


def checkout(folder: str, environment: Mapping[str, str]) -> str:
    """Return the top of the checkout: what GitHub says, else of the repository around `folder`, else `folder`."""
    if given := environment.get("GITHUB_WORKSPACE"):
        return given
    above = folder
    while not os.path.exists(os.path.join(above, ".git")):
        above, before = os.path.dirname(above), above
        if above == before:
            return folder
    return above
