"""The files that traces lie in: their names, the numbers of those of a rotation, and how one is replaced."""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

SUFFIX: Final = ".arrows"
_DIGITS: Final = 6
_NUMBERED: Final = re.compile(rf"(.+)\.([0-9]{{{_DIGITS},18}}){re.escape(SUFFIX)}", re.DOTALL)
_UNFINISHED: Final = ".tmp"


class Numbered(NamedTuple):
    """The file of a rotation by its name, `NAME.000001.arrows`."""

    name: str
    number: int

    def __str__(self) -> str:
        return f"{self.name}.{self.number:0{_DIGITS}}{SUFFIX}"


def numbered(path: str) -> Numbered | None:
    """Return the name and the number in the path of a file of a rotation; None: it has none."""
    found = _NUMBERED.fullmatch(os.path.basename(path))
    return Numbered(found[1], int(found[2])) if found else None


def paths(folder: str) -> list[str]:
    """Return the traces in a directory, whatever they are, by name.

    Raises:
        OSError: it cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(one.path for one in entries if one.name.endswith(SUFFIX) and one.is_file() and one.name[0] != ".")


def named_alike(path: str) -> list[tuple[int, str]]:
    """Return the files beside a file of a rotation that differ in their number alone, in order, each with how much later it is.

    Raises:
        OSError: the directory cannot be read.
    """
    own = numbered(path)
    found = [(numbered(other), other) for other in paths(os.path.dirname(path) or ".")]
    return sorted((one.number - own.number, other) for one, other in found if own and one and one.name == own.name)


@contextlib.contextmanager
def replaced(path: str, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Give a new file beside `path` to write to, which takes its place at the end. An error leaves the old file as it is."""
    folder, name = os.path.split(path)
    new = os.path.join(folder, f".{name}.{os.urandom(4).hex()}{_UNFINISHED}")
    with open(new, "xb", opener=partial(os.open, mode=mode)) as file:
        try:
            yield file
            file.close()
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise


def remove_unfinished(folder: str, name: str) -> None:
    """Remove what writers that were killed have left of files of a rotation called `name`."""
    for path in Path(folder).glob(f".{glob.escape(name)}.*{SUFFIX}*{_UNFINISHED}"):
        with contextlib.suppress(OSError):
            path.unlink()
