"""How the place of a dataset is written: a directory, or a URL. What reaches it is in `store`, and loads a library."""

from __future__ import annotations

import re
from typing import Final

from forktrace.errors import UsageError

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PASSWORD: Final = re.compile(r"(?<=://)[^/@]*@")


def is_url(name: str) -> bool:
    """Return whether it is a URL and not a directory."""
    return _SCHEME.match(name) is not None


def shown_name(name: str) -> str:
    """Return how a directory or a URL is written for people.

    Raises:
        UsageError: it is neither.
    """
    scheme = _SCHEME.match(name)
    if scheme is None:
        return name.rstrip("/") or name
    shown = _PASSWORD.sub("", name).partition("?")[0].rstrip("/")
    if scheme[1] not in ("s3", "file"):
        raise UsageError(f"{shown}: not a directory or an s3:// URL")
    return shown
