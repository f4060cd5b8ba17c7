"""A program that is PID 1, as in a container, inherits the orphans of others and never waits for them; then the same, fixed.

    python pid1.py              in three ways, each in a PID namespace of its own
    python pid1.py alone        one of them

The service waits for everything that it starts itself: commands, and children that it makes by a double fork, the old recipe
against zombies. Yet what they leave running becomes a child of PID 1, when its parent ends.

    alone    the service is PID 1
    loop     the service is PID 1, and waits for whatever ends
    init     the service is below an init, which does nothing but that, as tini does
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

WORK_S, TURN_S, TURNS = 0.1, 0.25, 6
CLONE_NEWUSER, CLONE_NEWPID, PR_SET_CHILD_SUBREAPER = 0x10000000, 0x20000000, 36
WAYS = ("alone", "loop", "init")


class Service:
    """Takes a request each turn; all its times are divided by `speed`."""

    def __init__(self, way: str, speed: float) -> None:
        self.way, self.work_s, self.turn_s = way, WORK_S / speed, TURN_S / speed

    def run(self) -> None:
        """Serve, and say how many zombies there are in the end."""
        say(self.way, f"the service is PID {os.getpid()}")
        for turn in range(TURNS):
            if turn % 2:
                self.fork_twice()
            else:
                self.run_command()
            self.rest()
        say(self.way, f"{TURNS} requests, {zombies()} zombies")

    def run_command(self) -> None:
        """Run a command that leaves something in the background; its shell is waited for."""
        subprocess.run(["/bin/sh", "-c", f"sleep {self.work_s:.3f} &"], check=True)

    def fork_twice(self) -> None:
        """Leave the work to a grandchild; the child in between ends at once and is waited for."""
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                time.sleep(self.work_s)
            os._exit(0)
        os.waitpid(pid, 0)

    def rest(self) -> None:
        """Wait for the next request; what a service that is PID 1 should do meanwhile."""
        time.sleep(self.turn_s)
        if self.way == "loop":
            with contextlib.suppress(ChildProcessError):  # its own children are gone by now: whatever ends is an orphan
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def run_below_init(service: Service) -> None:
    """Be an init: start the service, wait for whatever ends, and end with the service."""
    pid = os.fork()
    if pid == 0:
        service.run()
        os._exit(0)
    while os.wait()[0] != pid:
        pass


def zombies() -> int:
    """Return how many zombies this process and its parent have, by their numbers outside, as this /proc has them."""
    stats = [stat for path in Path("/proc").glob("[0-9]*/stat") if (stat := fields(path))]
    family = fields(Path("/proc/self/stat"))[:2]
    return sum(state == "Z" and ppid in family for _, ppid, state in stats)


def fields(stat: Path) -> tuple[str, ...]:
    """Return the number, the parent's number and the state of a process; nothing when it is gone."""
    with contextlib.suppress(OSError):
        number, _, rest = stat.read_text().partition(" ")
        state, ppid = rest.rpartition(")")[2].split()[:2]
        return number, ppid, state
    return ()


def say(way: str, told: str) -> None:
    print(f"{way:6}{told}", flush=True)


def run_as_pid1(service: Service) -> None:
    """Run the service, or its init, as PID 1 of a new PID namespace; root needs no user namespace for that.

    Where only root may have one: as a subreaper, which inherits the orphans of its descendants just as well.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.unshare(CLONE_NEWPID if os.geteuid() == 0 else CLONE_NEWPID | CLONE_NEWUSER) == 0
    pid = os.fork()
    if pid == 0:
        if not made:
            say(service.way, f"no PID namespace ({os.strerror(ctypes.get_errno())}): a subreaper instead")
            libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        run_below_init(service) if service.way == "init" else service.run()
        os._exit(0)
    os.waitpid(pid, 0)


def main() -> None:
    """Run one way here, or all, each in a program of its own."""
    options = argparse.ArgumentParser(description="A program that is PID 1 and inherits the orphans of others.")
    options.add_argument("way", nargs="?", choices=WAYS)
    options.add_argument("--speed", type=float, default=1.0, metavar="X", help="divide all times by X")
    given = options.parse_args()
    if given.way:
        run_as_pid1(Service(given.way, given.speed))
        return
    for way in WAYS:
        subprocess.run([sys.executable, __file__, "--speed", str(given.speed), way], check=True)


if __name__ == "__main__":
    main()
