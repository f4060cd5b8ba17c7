"""fork_storm.py COUNT [DEPTH]: forks that many children one after the other, and waits for each, in that many nested calls.

Prints the seconds that it took; then waits until its standard input ends. Runs under any Python 3.
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


sys.setrecursionlimit(5000)
depth = int(sys.argv[2]) - 1 if len(sys.argv) > 2 else 1  # besides the frame of the module
print(storm(int(sys.argv[1]), depth), flush=True)
sys.stdin.read()
