"""BPF maps, read and written through the kernel."""

from __future__ import annotations

import os

import numpy as np
import pytest

from forktrace.errors import ForktraceError
from forktrace.kernel.bpf import create_map
from forktrace.kernel.bpf_maps import Map
from forktrace.kernel.objects import MapSpec

pytestmark = pytest.mark.root

BPF_MAP_TYPE_HASH = 1


def test_entries() -> None:
    """What is set is there, what is deleted is not; to delete what is not there is no error, to set too much is."""
    spec = MapSpec("entries", BPF_MAP_TYPE_HASH, 8, 4, 3, 0)
    descriptor = create_map(spec)
    made = Map(descriptor, "<u8", "<u4", spec)
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
