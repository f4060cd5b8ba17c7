"""Forks as many children as it is told, one after the other, waits for each, and prints the seconds that it took."""

import os
import sys
import time

begin = time.perf_counter()
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
print(time.perf_counter() - begin)
