"""Lines and functions by name: what an allowance names, and which function of an older recording a line belongs to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

_SITE = re.compile(r"(?P<file>.*):(?P<line>\d+|\?) ?(?P<function>.*)", re.DOTALL)


class Site(NamedTuple):
    """A line as the tables write it: `src/consumer.py:33 consume_task`; `line` 0: not known."""

    file: str
    line: int
    function: str


def site_of(text: str) -> Site:
    """Return the parts of a site; any other text is a file without a line."""
    found = _SITE.fullmatch(text)
    if not found:
        return Site(text, 0, "")
    return Site(found["file"], 0 if found["line"] == "?" else int(found["line"]), found["function"])


def names(word: str, text: str) -> bool:
    """Whether `word` names the site `text`: `consume_task`, `consumer.py:33`, `consumer.py consume_task`, or all of it."""
    site = site_of(text)
    wanted, function = site_of(word), word.rpartition(" ")[2]
    if wanted.line:
        same = wanted.line == site.line and wanted.function in ("", site.function)
        return same and ends_with(site.file, wanted.file)
    file = word.rpartition(" ")[0]
    return function == site.function and ends_with(site.file, file)


def ends_with(path: str, end: str) -> bool:
    """Whether `end` is the last parts of a path, or nothing."""
    return not end or path == end or path.endswith(f"/{end.removeprefix('./')}") or end.endswith(f"/{path}")


class Functions:
    """Finds functions of one recording in another: the same name, in a file whose path ends alike."""

    def __init__(self, known: Sequence[Site]) -> None:
        self._files: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for place, site in enumerate(known):
            self._files[site.function].append((site.file, place))

    def matching(self, site: Site) -> list[int]:
        """Return the positions of the known functions that `site` may lie in."""
        return [place for file, place in self._files.get(site.function, ()) if ends_with(file, site.file)]
