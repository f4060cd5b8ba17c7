"""Makes every call by which a Process is watched or ended: which calls wait, which only look, and which of them reap.

    python join.py [--speed X]

A line for each call: what the process was before and after it (alive, a zombie, gone), how long the call took, and what it
returned. Runs under Python 2.7 too, whose join() with a timeout polls.
"""

from __future__ import print_function

import argparse
import multiprocessing
import os
import sys
import time

HOURS = 36000  # in seconds, for a child that is not meant to end by itself

# Named, because from Python 3.14 on the default is forkserver, and then the children are those of the fork server.
fork = multiprocessing.get_context("fork") if sys.version_info >= (3, 4) else multiprocessing


def say(text):
    print(os.getpid(), text)
    sys.stdout.flush()


def start(seconds):
    process = fork.Process(target=time.sleep, args=(seconds,))
    process.start()
    say("start() of {}".format(process.pid))
    return process


def state(pid):
    """Return what the kernel says of a process: `alive`, `zombie` or `gone`."""
    try:
        with open("/proc/{}/stat".format(pid)) as file:
            return "zombie" if file.read().rpartition(")")[2].split()[0] == "Z" else "alive"
    except EnvironmentError:
        return "gone"


def look(process):
    """Return the number and the state of a process before a call, and the time."""
    return process.pid, state(process.pid), time.time()


def tell(before, call, result):
    """Print what a call did, which was made after `before`."""
    pid, was, began = before
    took = 1000 * (time.time() - began)
    say("{:18} of {}: {:>6} -> {:6} {:8.1f} ms  {}".format(call, pid, was, state(pid), took, result))


def zombie(process, pause):
    """Return the process when it has ended and nobody has looked at it for a while."""
    while state(process.pid) == "alive":
        time.sleep(0.005)
    time.sleep(pause)
    return process


def main():
    options = argparse.ArgumentParser(description="Make every call by which a Process is watched or ended.")
    options.add_argument("--speed", type=float, default=1.0, metavar="X", help="divide all times by X")
    speed = options.parse_args().speed
    life, pause = 0.5 / speed, 0.3 / speed

    # A process that ends by itself.
    process = start(life)
    tell(look(process), "join()", process.join())
    process = start(life)
    tell(look(process), "join(20)", process.join(20))

    # One that has to be stopped.
    process = start(HOURS)
    tell(look(process), "join(0.3)", process.join(0.3 / speed))
    tell(look(process), "is_alive()", process.is_alive())
    tell(look(process), "exitcode", process.exitcode)
    tell(look(process), "active_children()", [child.pid for child in multiprocessing.active_children()])
    if hasattr(process, "close"):
        before = look(process)
        try:
            process.close()
        except ValueError as error:
            tell(before, "close()", type(error).__name__)
    tell(look(process), "terminate()", process.terminate())
    tell(look(zombie(process, pause)), "is_alive()", process.is_alive())
    tell(look(process), "exitcode", process.exitcode)

    # Zombies.
    process = zombie(start(life), pause)
    tell(look(process), "exitcode", process.exitcode)
    first, second = start(life), start(life)
    zombie(first, 0)
    zombie(second, pause)
    tell(look(first), "active_children()", multiprocessing.active_children())
    process = zombie(start(life), pause)
    tell(look(process), "join()", process.join())
    if hasattr(process, "kill"):
        process = start(HOURS)
        tell(look(process), "kill()", process.kill())
        tell(look(zombie(process, pause)), "join(0)", process.join(0))
        process = zombie(start(life), pause)
        tell(look(process), "close()", process.close())


if __name__ == "__main__":
    main()
