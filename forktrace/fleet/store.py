"""Where a dataset lies, a directory or a bucket, and what is said when it cannot be reached."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import pyarrow as pa
from pyarrow import fs

from forktrace.errors import ForktraceError, PermissionMissing, UsageError
from forktrace.fleet.urls import is_url, shown_name
from forktrace.trace.words import printable

_MOST_WORDS: Final = 200  # characters of what a library says of a failure
# What the SDK of S3 says, and what it means; of a HEAD request it knows only the status number.
_NO_BUCKET: Final = re.compile(r"NO_SUCH_BUCKET|HTTP status 404")
_REFUSED: Final = re.compile(r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|INVALID_SIGNATURE|HTTP status 40[13]")
_UNREACHED: Final = re.compile(r"NETWORK_CONNECTION")


class Store(NamedTuple):
    """A place for files: the file system, the folder in it, and how it is written for people, without a password."""

    files: fs.FileSystem
    folder: str
    shown: str

    @property
    def shows_parts(self) -> bool:
        """Whether a file can be seen while it is written; in a bucket it is there when it is whole."""
        return isinstance(self.files, fs.LocalFileSystem)

    def path(self, inside: str) -> str:
        """Return the path of a file from its place in the folder."""
        return f"{self.folder}/{inside}"

    def show(self, path: str) -> str:
        """Return how the path of a file is written for people."""
        return f"{self.shown}/{path.removeprefix(self.folder).lstrip('/')}"


def store_at(url: str | os.PathLike[str]) -> Store:
    """Return the store that a directory or a URL (`s3://BUCKET/FOLDER`) names; nothing is looked at yet.

    Raises:
        UsageError: it is no such URL.
    """
    name = os.fspath(url)
    shown = shown_name(name)
    if not is_url(name):
        return Store(fs.LocalFileSystem(), os.path.abspath(name), shown)
    try:
        files, folder = fs.FileSystem.from_uri(name)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{shown}: {first_line(error)}") from None
    if not folder.strip("/"):
        raise UsageError(f"{shown}: names no bucket", "s3://BUCKET/FOLDER")
    return Store(files, folder.rstrip("/"), shown)


@contextlib.contextmanager
def explained(store: Store, name: str = "") -> Iterator[None]:
    """Turn what a file system or a bucket refuses into one line that names it.

    Raises:
        PermissionMissing: access is refused.
        ForktraceError: there is no such bucket, nobody answers, or anything else.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise _error(error, name or store.shown) from None


def _error(error: BaseException, name: str) -> ForktraceError:
    said = str(error)
    if isinstance(error, PermissionError) or _REFUSED.search(said):
        return PermissionMissing(f"{name}: access is refused", "look who owns it, and which key is used (AWS_PROFILE)")
    if _NO_BUCKET.search(said):
        return ForktraceError(f"{name}: there is no such bucket", "make the bucket first, or name another")
    if _UNREACHED.search(said):
        return ForktraceError(
            f"{name}: no answer", "look at the network; another server is named by ?endpoint_override=HOST:PORT"
        )
    if isinstance(error, OSError) and error.errno:
        return ForktraceError(f"{name}: {os.strerror(error.errno)}")
    return ForktraceError(f"{name}: {first_line(error)}")


def comes_from_store(error: BaseException) -> bool:
    """Whether the store did not deliver a file, as against a file that was read and is damaged."""
    return bool(isinstance(error, OSError) and error.errno) or "AWS Error" in str(error)


def first_line(error: BaseException) -> str:
    """Return what a library says of a failure, cut to a line that can be printed."""
    return printable(str(error).partition("\n")[0])[:_MOST_WORDS] or type(error).__name__
