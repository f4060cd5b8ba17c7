"""Exits from Python in six ways, in a main program and in two kinds of child, and shows what still runs then.

    python exits.py [--speed X]

One line for each: who exited in which way, its exit code (negative: the signal that ended it), and `yes` for what it still did.

    finally, atexit   ran a finally block that it was in; a handler that it registered
    stdout, file      wrote out what was in the buffer of its standard output; of a file that was still open
    parent            wrote once more what its parent had printed before the fork, ran its parent's atexit handler, or both

The program runs itself for each: `python exits.py PLACE WAY` exits so, or has a child that does, and says so on stdout.
"""

from __future__ import annotations

import argparse
import atexit
import multiprocessing
import os
import resource
import signal
import sys
import time
from typing import TextIO

WAYS = {
    "return": lambda: None,
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(4),
    "exception": lambda: 1 // 0,
    "signal": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "abort": os.abort,
}
PLACES = ("main", "multiprocessing", "os.fork")
DONE = ("finally", "atexit", "stdout", "file")
OF_PARENT = {"parent-stdout": "stdout", "parent-atexit": "atexit"}

opened: list[TextIO] = []  # files that the program has not closed when it exits


def note(what: str) -> None:
    """Write that this process did `what`, past every buffer."""
    os.write(1, f"{os.getpid()} {what}\n".encode())


def leave(way: str, seconds: float) -> None:
    """Exit in this way after some seconds. What is in the buffers now is seen only if they are written out."""
    print(os.getpid(), "stdout")
    opened.append(open(os.dup(1), "w"))  # noqa: SIM115 - nobody closes it
    opened[0].write(f"{os.getpid()} file\n")
    atexit.register(note, "atexit")
    time.sleep(seconds)
    try:
        WAYS[way]()
    finally:
        note("finally")


def act(place: str, way: str, seconds: float) -> None:
    """Exit in this way, or have a child that does."""
    if place == "main":
        leave(way, seconds)
        return
    print(os.getpid(), "parent-stdout")
    atexit.register(note, "parent-atexit")
    if place == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=leave, args=(way, seconds))
        process.start()
        process.join()
        note(f"child {process.pid} {process.exitcode}")
        return
    pid = os.fork()
    if pid == 0:
        leave(way, seconds)  # when this returns, the child goes on as if it were its parent
    else:
        note(f"child {pid} {code_of(os.waitpid(pid, 0)[1])}")


def code_of(status: int) -> int:
    """Return the exit code in a wait status, or the number of the signal, negative."""
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def watch(place: str, way: str, seconds: float) -> str:
    """Run a program that exits, or has a child that does; return the line about it."""
    read_end, write_end = os.pipe()
    quiet = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)  # tracebacks
    actions = [(os.POSIX_SPAWN_DUP2, write_end, 1), quiet]
    command = [sys.executable, __file__, place, way, str(seconds)]
    pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=actions)
    os.close(write_end)
    with open(read_end) as pipe:
        told = [line.split() for line in pipe]
    code = code_of(os.waitpid(pid, 0)[1])
    for _, what, *about in told:
        if what == "child":
            pid, code = map(int, about)
    did = [what for teller, what, *_ in told if int(teller) == pid]
    again = [what for what in OF_PARENT if [one for _, one, *_ in told].count(what) > 1]
    cells = ["yes" if what in did else "-" for what in DONE]
    return row(place, way, pid, code, *cells, "+".join(OF_PARENT[what] for what in again) or "-")


def row(place: object, way: object, pid: object, code: object, *cells: object) -> str:
    return f"{place:16}{way:10} {pid:>8} {code:>5}  " + " ".join(f"{cell:7}" for cell in cells).rstrip()


def main() -> None:
    options = argparse.ArgumentParser(description="Exit from Python in six ways, and show what still runs then.")
    options.add_argument("--speed", type=float, default=1.0, metavar="X", help="divide all times by X")
    options.add_argument("place", nargs="?", choices=PLACES)
    options.add_argument("way", nargs="?", choices=[*WAYS])
    options.add_argument("seconds", nargs="?", type=float, default=0.0, help="how long a process lives before it exits")
    given = options.parse_args()
    if given.place:
        act(given.place, given.way, given.seconds)
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # abort would leave a core file behind
    os.environ.pop("PYTHONUNBUFFERED", None)  # without a buffer there is nothing to see
    print(row("place", "way", "pid", "code", *DONE, "parent"), flush=True)
    for place in PLACES:
        for way in WAYS:
            print(watch(place, way, 0.2 / given.speed), flush=True)


if __name__ == "__main__":
    main()
