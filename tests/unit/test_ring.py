"""The ring buffer's reader, on memory that is laid out as the kernel's."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys

import numpy as np

from forktrace.kernel.bpf_maps import Ring

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


def test_goes_on_at_the_beginning() -> None:
    """A record that lies across the end is handed out in one piece, and those behind it with it."""
    size, begin = 4096, mmap.PAGESIZE * 2
    descriptor = os.memfd_create("ring")
    os.ftruncate(descriptor, begin + 2 * size)
    first, second = (struct.pack("<II", 1000, 0) + bytes([mark]) * 1000 for mark in (1, 2))
    start = 5 * size - 64
    for offset in (0, mmap.PAGESIZE):  # what was read, and what was written
        os.pwrite(descriptor, struct.pack("<Q", start + (len(first) + len(second)) * (offset > 0)), offset)
    os.pwrite(descriptor, first, begin + size - 64)
    os.pwrite(descriptor, second, begin + len(first) - 64)
    ring = Ring(descriptor, size)
    assert ring.read() == first + second
    assert ring.read() == b""
    ring.close()
    os.close(descriptor)
