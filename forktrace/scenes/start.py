"""Starts two processes, one at once and one after 10 s, and joins neither: start() clears the zombie that it finds.

    python start.py [--speed X]

The main process runs for 30 s, each child for 5 s. Four moments are printed, with the state of the children as `ps` shows it:
S sleeps, Z is a zombie. Times count from the start of the program, as those of a recording do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time

# Named, because from Python 3.14 on the default is forkserver, and then the children are those of the fork server.
fork = multiprocessing.get_context("fork")

STARTS = (0, 10)  # values of i, as in MOMENTS
MOMENTS = {
    2: "the first child runs",
    8: "it has ended, and nobody waits for it",
    12: "the second runs, and the first is gone",
    20: "it has ended too, and nobody waits for it",
}


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on; `gone` when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ["gone"]


def say(text: str) -> None:
    """Print one line, with the age of the program."""
    began = int(stat(os.getpid())[19]) / os.sysconf("SC_CLK_TCK")
    print(f"{time.clock_gettime(time.CLOCK_BOOTTIME) - began:.3f}s {text}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description="Start two processes and join neither.")
    options.add_argument("--speed", type=float, default=1.0, metavar="X", help="divide all times by X")
    speed = options.parse_args().speed
    children: list[int] = []
    say(f"{os.getpid()} begins")
    for i in range(30):
        if i in STARTS:
            process = fork.Process(target=time.sleep, args=(5 / speed,))
            process.start()
            children.append(process.pid or 0)
            say(f"i = {i}: started {process.pid}")
        if i in MOMENTS:
            seen = ", ".join(f"{pid} {stat(pid)[0]}" for pid in children)
            say(f"i = {i}: {MOMENTS[i]}: {seen}")
        time.sleep(1 / speed)
    say("ends")


if __name__ == "__main__":
    main()
