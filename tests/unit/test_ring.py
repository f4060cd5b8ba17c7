"""The ring buffer's reader, on memory that is laid out as the kernel's."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

import numpy as np

from forktrace.live.maps import Ring

SIZE = 64 << 10
STEP = 248  # empty records, 31 headers: the position takes a carry over two bytes every few hundred reads
READS = 200_000
LOOKS = """
import mmap, sys
word = memoryview(mmap.mmap(int(sys.argv[1]), mmap.PAGESIZE)).cast("Q")
last, back = 0, 0
print(flush=True)
while last < int(sys.argv[2]):
    now = word[0]
    back += now < last
    last = now
print(back)
"""


def test_positions_change_in_one_piece() -> None:
    """Whoever looks at the reader's position meanwhile, as the kernel does, never sees half of a change."""
    descriptor = os.memfd_create("ring")
    os.ftruncate(descriptor, 2 * mmap.PAGESIZE + 2 * SIZE)
    ring = Ring(descriptor, SIZE)
    produced = np.frombuffer(mmap.mmap(descriptor, mmap.PAGESIZE, offset=mmap.PAGESIZE), np.uint64)
    command = [sys.executable, "-c", LOOKS, str(descriptor), str(STEP * READS)]
    with subprocess.Popen(command, pass_fds=[descriptor], stdout=subprocess.PIPE, text=True) as looks:
        assert looks.stdout is not None
        looks.stdout.readline()
        for number in range(1, READS + 1):
            produced[0] = number * STEP
            assert len(ring.read()) == STEP
        assert looks.stdout.read() == "0\n"
    ring.close()
    os.close(descriptor)
