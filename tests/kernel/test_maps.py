"""BPF maps, read and written through the kernel."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

import numpy as np
import pytest

from forktrace.errors import ForktraceError
from forktrace.live.bpf import MACHINES
from forktrace.live.maps import Map

pytestmark = pytest.mark.root

BPF_MAP_CREATE, BPF_MAP_TYPE_HASH = 0, 1


def test_entries() -> None:
    """What is set is there, what is deleted is not; to delete what is not there is no error, to set too much is."""
    call = MACHINES[platform.machine()]["calls"]["BPF"]
    attributes = ctypes.create_string_buffer(struct.pack("<5I", BPF_MAP_TYPE_HASH, 8, 4, 3, 0) + bytes(100))
    descriptor = ctypes.CDLL(None).syscall(call, BPF_MAP_CREATE, attributes, len(attributes))
    assert descriptor >= 0
    made = Map(descriptor, "<u8", "<u4", 3, call)
    for key in (5, 6, 7):
        made.set(key, 10 * key)
    with pytest.raises(ForktraceError, match="cannot be written"):
        made.set(8, 80)
    made.delete(6)
    made.delete(99)
    keys, values = made.items()
    assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == {5: 50, 7: 70}
    assert keys.dtype == np.uint64
    os.close(descriptor)
