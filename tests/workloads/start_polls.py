"""Starts processes beside living ones, each start on a line of its own, and says how many multiprocessing knew to live then.

A line with `what: start` is a start; the others are children, with how often a start has asked for them in vain.
"""

import multiprocessing
import multiprocessing.process
import os
import sys

from witness import VERSION, say, until_zombie

CONTEXT = multiprocessing.get_context("fork") if VERSION > (2, 7) else multiprocessing
READ, WRITE = os.pipe()
ASKED = {}  # of each living child that multiprocessing knows, how many starts came after its own


def block():
    os.close(WRITE)
    os.read(READ, 1)


def nothing():
    pass


def started(process):
    """Say what the start on the line before must have cost."""
    line = sys._getframe(1).f_lineno - 1
    say("start", process.pid, what="start", line=line, living=len(ASKED))
    for pid in ASKED:
        ASKED[pid] += 1
    ASKED[process.pid] = 0


def main():
    one, two, three, four, five, short = [CONTEXT.Process(target=block) for _ in range(5)] + [CONTEXT.Process(target=nothing)]
    one.start()
    started(one)
    two.start()
    started(two)
    unknown = os.fork()
    if unknown == 0:
        block()
        os._exit(0)
    three.start()
    started(three)
    short.start()
    started(short)
    until_zombie(short.pid)
    taken = ASKED.pop(short.pid)
    four.start()
    started(four)
    (multiprocessing.process._children if VERSION > (2, 7) else multiprocessing.current_process()._children).discard(one)
    forgotten = ASKED.pop(one.pid)
    five.start()
    started(five)
    os.close(WRITE)
    for process in (two, three, four, five):
        process.join()
    os.waitpid(one.pid, 0)
    os.waitpid(unknown, 0)
    ASKED.update({one.pid: forgotten, unknown: 0, short.pid: taken})
    for pid, asked in ASKED.items():
        say("child", pid, empty_waits=asked)


if __name__ == "__main__":
    main()
