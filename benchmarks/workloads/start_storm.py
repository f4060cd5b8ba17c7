"""start_storm.py LIVING PAIRS: how long Process.start() takes beside that many living children.

For each pair one start while multiprocessing knows of the living children, and one while it does not; every second pair begins
with the latter. Prints the microseconds of CPU time of each pair as a line, `known unknown`: the clock would also measure what
else a busy machine does.
"""

import gc
import multiprocessing
import multiprocessing.process
import os
import sys
import time


def block():
    """Live until the other end of the pipe is closed."""
    os.close(write_end)
    os.read(read_end, 1)


def nothing():
    """End at once."""


def start_us():
    """Start a process, wait for it, and return the CPU time of the start."""
    process = context.Process(target=nothing)
    begin = time.thread_time()
    process.start()
    took = (time.thread_time() - begin) * 1e6
    process.join()
    return took


def without_us(known):
    """The same while the set that start() sweeps is empty."""
    known_now = set(known)
    known.clear()
    took = start_us()
    known |= known_now
    return took


context = multiprocessing.get_context("fork")
read_end, write_end = os.pipe()
living, pairs = int(sys.argv[1]), int(sys.argv[2])
known = multiprocessing.process._children
for _ in range(living):
    context.Process(target=block).start()
assert len(known) == living
gc.disable()  # a collection during a start is not its cost
for number in range(pairs):
    if number % 2:
        without = without_us(known)
        print(start_us(), without)
    else:
        print(start_us(), without_us(known))
    gc.collect()
os.close(write_end)
