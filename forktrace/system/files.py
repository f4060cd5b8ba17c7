"""Opens files that somebody else controls: only regular files, and none outside a root."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from typing import Final

FILE_MOST: Final = 4 << 20  # bytes; of a longer file only the first lines are shown
_OPENAT2: Final = 437  # on every processor
_RESOLVE: Final = 0x10 | 0x02  # linux/openat2.h: RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS
_libc: Final = ctypes.CDLL(None, use_errno=True)


def read_regular(path: str, root: int | None = None) -> bytes:
    """Return the beginning of a regular file; nothing else is opened. `root` is `/` for `path`.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    descriptor = open_regular(path, root)
    try:
        return os.read(descriptor, min(FILE_MOST, os.fstat(descriptor).st_size))
    finally:
        os.close(descriptor)


def open_regular(path: str, root: int | None = None) -> int:
    """Return a descriptor of a regular file. Nothing else is opened: opening a device or a pipe can have effects.

    Raises:
        OSError: it cannot be opened, is no regular file, or somebody holds a lease on it (fcntl(2)).
    """
    found = os.open(path, os.O_PATH | os.O_CLOEXEC) if root is None else _open_within(root, path)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError(f"{path} is no regular file")
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(found)


def _open_within(root: int, path: str) -> int:
    """Open a file below a root; no symbolic link leads out of it (openat2(2), 5.6 and later).

    Raises:
        OSError: there is none.
    """
    how = struct.pack("<QQQ", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE)
    found: int = _libc.syscall(_OPENAT2, root, os.fsencode(path), how, len(how))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return found
