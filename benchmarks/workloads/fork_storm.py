"""fork_storm.py COUNT [DEPTH]: forks that many children one after the other, and waits for each, in that many nested calls.

fork_storm.py -: does so for each line `COUNT DEPTH` of its standard input. Prints the seconds that it took.
"""

import os
import sys
import time


def chain(depth):
    """Return storm, called through so many functions, each with code of its own, eight to a file."""
    called = storm
    for place in range(depth):
        code = f"def step_{place}(count):\n    seconds = called(count)\n    return seconds\n"
        path = f"/usr/lib/python3/dist-packages/service/handlers_{place // 8}.py"
        space = {"called": called}
        exec(compile(code, path, "exec"), space)
        called = space[f"step_{place}"]
    return called


def storm(count):
    """Return the seconds."""
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
    print(chain(depth - 2)(count), flush=True)  # besides the frames of storm and the module
