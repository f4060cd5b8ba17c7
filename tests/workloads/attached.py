"""Starts children and clears them as it is told on stdin, and says what it did: `start`, `clear`, `sleep`.

A child of `start` ends at once, with its number among the children as its exit code, and is left as a zombie.
"""

import json
import multiprocessing
import os
import sys
import time


def now_ns():
    return int(time.clock_gettime(7) * 1e9)  # CLOCK_BOOTTIME, of which 3.6 does not know the name


def say(**values):
    print(json.dumps(values), flush=True)


def end(code):
    sys.exit(code)


def start(number):
    before_ns = now_ns()
    process = multiprocessing.get_context("fork").Process(target=end, args=(number,))
    process.start()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    say(pid=process.pid, exit_code=number, before_fork_ns=before_ns, after_exit_ns=now_ns())


def main():
    say(pid=os.getpid())
    for number, line in enumerate(sys.stdin):
        if line == "start\n":
            start(number)
        elif line == "clear\n":
            multiprocessing.active_children()
            say(after_reap_ns=now_ns())


main()
