"""Starts two processes by each start method: fork, spawn and forkserver. Whose children are they, and who reaps them?

    python methods.py [--speed X]

Each child works for 0.5 s. Nobody looks at it for 0.5 s more, then its starter calls join().
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from multiprocessing.process import BaseProcess
from typing import Any

METHODS = ("fork", "spawn", "forkserver")


def say(text: str) -> None:
    """Print a line with one write, since the children print too."""
    print(f"{os.getpid()} {text}\n", end="", flush=True)


def state(pid: int) -> str:
    """Return the state of a process as `ps` shows it, Z for a zombie; `gone` when there is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def work(method: str, called: float, seconds: float) -> None:
    """Print whose child this is, and how long after the call of start() it runs; then work."""
    say(f"{method}: child of {os.getppid()}, at work {1000 * (time.monotonic() - called):.1f} ms after start()")
    time.sleep(seconds)


def watch(method: str, process: BaseProcess, pause: float) -> None:
    """Print what becomes of a process of this method that nobody joins, then join it."""
    pid = process.pid or 0
    while state(pid) not in ("Z", "gone"):
        time.sleep(0.005)
    say(f"{method}: {pid} has ended")
    time.sleep(pause)
    say(f"{method}: {pid} before join(): {state(pid)}")
    process.join()
    say(f"{method}: {pid} after join(): {state(pid)}, exitcode {process.exitcode}")


def main() -> None:
    options = argparse.ArgumentParser(description="Start two processes by each start method.")
    options.add_argument("--speed", type=float, default=1.0, metavar="X", help="divide all times by X")
    pause = 0.5 / options.parse_args().speed
    for method in METHODS:
        context: Any = multiprocessing.get_context(method)
        for _ in range(2):
            called = time.monotonic()
            process = context.Process(target=work, args=(method, called, pause))
            process.start()
            say(f"{method}: start() took {1000 * (time.monotonic() - called):.1f} ms")
            watch(method, process, pause)


if __name__ == "__main__":
    main()
