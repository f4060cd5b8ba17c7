"""One part of a program takes the exit status that another part waits for; then the same again, fixed.

    python stolen.py

A wait for any child gets the one that ends first, even if another part of the program waits for it. That part, the owner, waits
in vain later, and what it is told then depends on the library. Every child that has an owner ends with exit code 3.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import time

CODE = 3
SHORT_S, LONG_S = 0.2, 0.6  # the child of the owner has long ended when that of the thief does

# Named, because from Python 3.14 on the default is forkserver, and then the children are those of the fork server.
fork = multiprocessing.get_context("fork")


class Program:
    """The parts of the program; all their times are divided by `speed`."""

    def __init__(self, speed: float) -> None:
        self.short_s, self.long_s = SHORT_S / speed, LONG_S / speed

    def task(self) -> None:
        """Work; this is what a Process does."""
        time.sleep(self.short_s)
        sys.exit(CODE)

    def popen(self) -> subprocess.Popen[bytes]:
        """Start a program that works."""
        return subprocess.Popen(["/bin/sh", "-c", f"sleep {self.short_s:.3f}; exit {CODE}"])

    def fork(self, seconds: float, code: int = 0) -> int:
        """Fork a child and return its number."""
        pid = os.fork()
        if pid == 0:
            time.sleep(seconds)
            os._exit(code)
        return pid

    def os_wait_and_join(self, mended: bool) -> None:
        """The program waits for a child that it forked, with os.wait(); multiprocessing has one as well."""
        process = fork.Process(target=self.task)
        process.start()
        own = self.fork(self.long_s)
        if mended:
            os.waitpid(own, 0)
        else:
            os.wait()  # is glad to see the wrong child
        process.join()
        say(process.pid, "os.waitpid(own) and join" if mended else "os.wait and join", f"exitcode {process.exitcode}")
        if not mended:
            os.waitpid(own, 0)

    def handler_and_popen(self, mended: bool) -> None:
        """The program has a SIGCHLD handler for the child that it forked; it also runs a command."""
        own: list[int] = []

        def take_any(*_: object) -> None:
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass

        def take_own(*_: object) -> None:
            own[:] = [pid for pid in own if not os.waitpid(pid, os.WNOHANG)[0]]

        signal.signal(signal.SIGCHLD, take_own if mended else take_any)
        process = self.popen()
        own.append(self.fork(self.long_s))
        time.sleep(2 * self.long_s)  # something else, through which the handler runs
        returned = process.wait()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        say(process.pid, "handler for its own and Popen" if mended else "handler and Popen", f"returncode {returned}")

    def popen_alone(self) -> None:
        """The same command without a handler: Popen waits for it anyway."""
        process = self.popen()
        say(process.pid, "no handler and Popen", f"returncode {process.wait()}")

    def two_libraries(self, mended: bool) -> None:
        """A library that keeps workers, and another one that has a job done: each forks, and neither knows of the other."""
        workers, job = Workers(self, mended), Job(self)
        workers.collect()
        say(job.pid, "Workers by number and Job" if mended else "Workers and Job", job.result())
        if not mended:
            workers.collect()


class Workers:
    """The first library: starts a worker and collects what has ended."""

    def __init__(self, program: Program, by_number: bool) -> None:
        self.pid = program.fork(program.long_s)
        self.by_number = by_number

    def collect(self) -> None:
        """Wait for a worker; for any child unless `by_number`, as if all children were workers."""
        os.waitpid(self.pid if self.by_number else -1, 0)


class Job:
    """The second library: does a job in a child."""

    def __init__(self, program: Program) -> None:
        self.pid = program.fork(program.short_s, CODE)

    def result(self) -> str:
        """Wait for it and return how it ended."""
        try:
            return f"exit code {os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])}"
        except ChildProcessError:
            return "ECHILD"


def say(pid: int | None, who: str, told: str) -> None:
    """Print what the owner of a child was told."""
    print(f"{who:30}  {pid} exited {CODE}, its owner is told {told}", flush=True)


def main() -> None:
    """Steal three exit statuses, and then none."""
    options = argparse.ArgumentParser(description="One part of a program takes the exit status that another waits for.")
    options.add_argument("--speed", type=float, default=1.0, help="how many times as fast")
    program = Program(options.parse_args().speed)
    for mended in (False, True):
        program.os_wait_and_join(mended)
        program.handler_and_popen(mended)
        program.two_libraries(mended)
    program.popen_alone()


if __name__ == "__main__":
    main()
