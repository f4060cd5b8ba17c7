"""Leaves zombies and then waits for orders, as a consumer waits for messages; prints `idle PID...` with the zombies' numbers.

`idle.py WAY [N]`: `consumer` has N (3) zombies of multiprocessing, `join` too while it joins a child that runs on, `fork` of
os.fork, `popen` of subprocess, `none` has none. The order `start` makes one more; the end of its input ends it.
"""

import multiprocessing
import os
import subprocess
import sys
import time

from witness import until_zombie

GATE = os.pipe()


def work():
    os.close(GATE[1])
    os.read(GATE[0], 1)


def consume_task():
    process = multiprocessing.Process(target=work)
    process.start()
    return process.pid


def forked():
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    return pid


def opened(kept=[]):  # noqa: B006 - for the rest of the program
    kept.append(subprocess.Popen(["true"]))
    return kept[-1].pid


def poll():
    return sys.stdin.readline()


def main():
    way, many = sys.argv[1], int((sys.argv[2:] or ["3"])[0])
    start = {"fork": forked, "popen": opened}.get(way, consume_task)
    child = multiprocessing.Process(target=time.sleep, args=(1000,))
    child.daemon = True
    if way == "join":
        child.start()
    pids = [start() for _ in range(0 if way == "none" else many)]
    os.write(GATE[1], b"x" * many)
    for pid in pids:
        until_zombie(pid)
    sys.stdout.write("idle %s\n" % " ".join(map(str, pids)))
    sys.stdout.flush()
    if way == "join":
        child.join()
    while poll():
        start()
        os.write(GATE[1], b"x")


if __name__ == "__main__":
    main()
