"""The keys of files in the probes (`file_key` in probes/pystack.bpf.h). Nobody can forge one without the secret."""

from __future__ import annotations

import os
from functools import reduce
from typing import Final

SECRET_BYTES: Final = 8
_U64: Final = (1 << 64) - 1
_FACTORS: Final = (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53)


def new_secret() -> int:
    """Return a secret for one recording."""
    return int.from_bytes(os.urandom(SECRET_BYTES), "little")


def key_of(secret: int, about: os.stat_result, *, number: int | None = None, device: int | None = None) -> int:
    """Return the key of a file; `number`, `device`: the kernel's inode and device numbers, where stat(2) has others."""
    number = about.st_ino if number is None else number
    device = device_number(os.major(about.st_dev), os.minor(about.st_dev)) if device is None else device
    return reduce(lambda key, one: stirred(key ^ one), (number, about.st_size, about.st_uid, device), secret)


def device_number(major: int, minor: int) -> int:
    """Return the kernel's internal device number."""
    return major << 20 | minor


def stirred(key: int) -> int:
    """Mix `key`: each bit of the result depends on all of its bits (MurmurHash3's finalizer)."""
    for factor in _FACTORS:
        key = (key ^ key >> 33) * factor & _U64
    return key ^ key >> 33
