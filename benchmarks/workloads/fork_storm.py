"""fork_storm.py COUNT [DEPTH]: forks that many children one after the other, and waits for each, in that many nested calls.

fork_storm.py -: does so for each line `COUNT DEPTH` of its standard input. Prints the seconds that it took.
"""

import os
import sys
import time


def storm(count, depth):
    """Return the seconds."""
    if depth > 1:
        return storm(count, depth - 1)
    begin = time.perf_counter()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return time.perf_counter() - begin


def orders():
    """Yield the numbers of each storm."""
    if sys.argv[1] != "-":
        yield [int(text) for text in [*sys.argv[1:], "2"][:2]]
        return
    while line := sys.stdin.readline():
        yield [int(text) for text in line.split()]


sys.setrecursionlimit(5000)
for count, depth in orders():
    print(storm(count, depth - 1), flush=True)  # besides the frame of the module
