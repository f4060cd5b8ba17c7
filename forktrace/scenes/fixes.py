"""One consumer, and what it can do about the children that it starts: how long they stay zombies, and what that costs.

    python fixes.py          the consumer that starts a multiprocessing.Process per message, in ten ways, one after the other
    python fixes.py join     one of them
    python fixes.py --all    also children of subprocess, os.fork and asyncio, and orphans

Every way takes the same seven messages: three one by one, a burst of four, then none. A child works on its message for a while
and ends with the number of the message as its exit code, counted from 1. A line says how many messages a second the consumer
took, how long a message waited for it at most, how many exit codes (or results) it learned, and what else it noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from multiprocessing.context import ForkProcess

ARRIVALS_S = (0.0, 0.2, 0.4, 0.6, 0.6, 0.6, 0.6)
WORK_S = 0.05
END_S = 1.0
TURN_S = 0.02  # how long the consumer waits for a message before it looks after something else
WORKERS = 4
PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36

# Named, because from Python 3.14 on the default is forkserver, and then the children are those of the fork server.
fork = multiprocessing.get_context("fork")


@contextlib.contextmanager
def held(number: signal.Signals) -> Iterator[None]:
    """Block the signal until the `with` block, or the function that this decorates, has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # not unblocked: a handler may run as another block begins


class Consumer:
    """Takes messages as they arrive; `codes` has the exit codes that it learned, by message."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.codes: dict[int, int | None] = {}
        self.waited_s: list[float] = []
        self.took_s = 0.0

    def turns(self, sleep: Callable[[float], object] = time.sleep) -> Iterator[int | None]:
        """Yield each message, and None whenever none came for a while, as KafkaConsumer.poll() returns then."""
        began = time.monotonic()
        for number, arrival_s in [*enumerate(ARRIVALS_S, 1), (None, END_S)]:
            due = began + arrival_s / self.speed
            while (left := due - time.monotonic()) > 0:
                sleep(min(left, TURN_S / self.speed))
                yield None
            if number is not None:
                self.waited_s.append(time.monotonic() - due)
                yield number
                self.took_s = time.monotonic() - began

    def messages(self) -> Iterator[int]:
        """Yield each message."""
        return (number for number in self.turns() if number is not None)

    def work(self, number: int) -> None:
        """Work on a message; this is what a child does."""
        time.sleep(WORK_S / self.speed)
        sys.exit(number)

    def start(self, number: int) -> ForkProcess:
        """Hand a message to a Process."""
        process = fork.Process(target=self.work, args=(number,))
        process.start()
        return process

    def popen(self, number: int) -> subprocess.Popen[bytes]:
        """Hand a message to a program."""
        return subprocess.Popen(self.command(number))

    def command(self, number: int) -> list[str]:
        """Return the program that works on a message."""
        return ["/bin/sh", "-c", f"sleep {WORK_S / self.speed:.3f}; exit {number}"]

    def fork(self, number: int) -> int:
        """Hand a message to a child of os.fork; return its number."""
        pid = os.fork()
        if pid == 0:
            time.sleep(WORK_S / self.speed)
            os._exit(number)
        return pid

    def fork_twice(self, number: int) -> None:
        """Hand a message to a grandchild: an orphan once the child in between has ended, which is waited for."""
        pid = os.fork()
        if pid == 0:
            self.fork(number)
            os._exit(0)
        os.waitpid(pid, 0)

    def told(self) -> str:
        """Return what it could observe, in words."""
        learned = sum(code == number for number, code in self.codes.items())
        rate = len(self.waited_s) / self.took_s
        return (
            f"{len(self.waited_s)} messages  {rate:5.1f}/s  waited up to {max(self.waited_s):.2f} s  "
            f"{learned} of {len(self.waited_s)} codes"
        )


# The consumer with multiprocessing. Each function returns what else it noticed.


def nothing(consumer: Consumer) -> str:
    for number in consumer.messages():
        consumer.start(number)
    return ""


def join(consumer: Consumer) -> str:
    for number in consumer.messages():
        process = consumer.start(number)
        process.join()
        consumer.codes[number] = process.exitcode
    return ""


def active_per_message(consumer: Consumer) -> str:
    for number in consumer.messages():
        multiprocessing.active_children()
        consumer.start(number)
    return ""


def active_children(consumer: Consumer) -> str:
    processes: dict[int, ForkProcess] = {}
    for number in consumer.turns():
        multiprocessing.active_children()
        if number is not None:
            processes[number] = consumer.start(number)
    consumer.codes |= {number: process.exitcode for number, process in processes.items()}
    return ""


def sentinel(consumer: Consumer) -> str:
    running: dict[int, ForkProcess] = {}

    def wait(seconds: float) -> None:
        ready = connection.wait([process.sentinel for process in running.values()], seconds)
        for number in [number for number, process in running.items() if process.sentinel in ready]:
            process = running.pop(number)
            process.join()
            consumer.codes[number] = process.exitcode

    for number in consumer.turns(wait):
        if number is not None:
            running[number] = consumer.start(number)
    return ""


def sigchld_ignored(consumer: Consumer) -> str:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    processes = {number: consumer.start(number) for number in consumer.messages()}
    consumer.codes |= {number: process.exitcode for number, process in processes.items()}
    alive = len(multiprocessing.active_children())
    return (
        f"{alive} of the dead are said to be alive; `exit 3` is said to return {subprocess.call(['/bin/sh', '-c', 'exit 3'])}"
    )


def sigchld_handler(consumer: Consumer) -> str:
    processes: dict[int, ForkProcess] = {}
    interruptions = 0

    @held(signal.SIGCHLD)  # or the exit of another child runs the handler within itself
    def reap(*_: object) -> None:
        nonlocal interruptions
        interruptions += 1
        consumer.codes |= {number: process.exitcode for number, process in processes.items()}

    signal.signal(signal.SIGCHLD, reap)
    for number in consumer.messages():
        with held(signal.SIGCHLD):  # until the handler can know it
            processes[number] = consumer.start(number)
    return f"interrupted {interruptions} times"


def pool(consumer: Consumer) -> str:
    with fork.Pool(WORKERS) as workers:
        results = {number: workers.apply_async(task, (number, consumer.speed)) for number in consumer.messages()}
        consumer.codes |= {number: result.get() for number, result in results.items()}
        workers.close()
        workers.join()
    with fork.Pool(1) as workers:
        try:
            workers.apply_async(os._exit, (1,)).get(0.2)
        except multiprocessing.TimeoutError:
            return "the result of a worker that died never comes"
    return "a worker that died has a result"


def executor(consumer: Consumer) -> str:
    with ProcessPoolExecutor(WORKERS, fork) as workers:
        results = {number: workers.submit(task, number, consumer.speed) for number in consumer.messages()}
        consumer.codes |= {number: result.result() for number, result in results.items()}
    with ProcessPoolExecutor(1, fork) as workers:
        try:
            workers.submit(os._exit, 1).result()
        except BrokenProcessPool:
            return "a worker that died broke it"
    return "a worker that died did not break it"


def task(number: int, speed: float = 1.0) -> int:
    """Work on a message in a worker, which is reused."""
    time.sleep(WORK_S / speed)
    return number


def double_fork(consumer: Consumer) -> str:
    for number in consumer.messages():
        consumer.fork_twice(number)
    return ""


# The same for children that multiprocessing did not start.


def popen_wait(consumer: Consumer) -> str:
    for number in consumer.messages():
        consumer.codes[number] = consumer.popen(number).wait()
    return ""


def popen_with(consumer: Consumer) -> str:
    for number in consumer.messages():
        with consumer.popen(number) as process:
            pass
        consumer.codes[number] = process.returncode
    return ""


def popen_poll(consumer: Consumer) -> str:
    processes: dict[int, subprocess.Popen[bytes]] = {}
    for number in consumer.turns():
        consumer.codes |= {number: process.poll() for number, process in processes.items()}
        if number is not None:
            processes[number] = consumer.popen(number)
    return ""


def subprocess_run(consumer: Consumer) -> str:
    for number in consumer.messages():
        consumer.codes[number] = subprocess.run(consumer.command(number), check=False).returncode
    return ""


def popen_ignored(consumer: Consumer) -> str:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    processes = {number: consumer.popen(number) for number in consumer.messages()}
    consumer.codes |= {number: process.wait() for number, process in processes.items()}
    return f"return codes are said to be {sorted(set(map(str, consumer.codes.values())))}"


def asyncio_wait(consumer: Consumer) -> str:
    async def handle(number: int) -> None:
        process = await asyncio.create_subprocess_exec(*consumer.command(number))
        consumer.codes[number] = await process.wait()

    async def consume() -> None:
        turns, tasks = consumer.turns(), []
        while (number := await asyncio.to_thread(next, turns, "end")) != "end":  # which would block the event loop
            if isinstance(number, int):
                tasks.append(asyncio.create_task(handle(number)))
        await asyncio.gather(*tasks)

    asyncio.run(consume())
    return ""


def fork_wait(consumer: Consumer) -> str:
    for number in consumer.messages():
        consumer.codes[number] = os.waitstatus_to_exitcode(os.waitpid(consumer.fork(number), 0)[1])
    return ""


def fork_nohang(consumer: Consumer) -> str:
    running: dict[int, int] = {}
    for number in consumer.turns():
        take(consumer, running)
        if number is not None:
            running[consumer.fork(number)] = number
    return ""


def take(consumer: Consumer, running: dict[int, int]) -> None:
    """Learn the exit codes of the children that have ended, by a wait for each number."""
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            consumer.codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)


def fork_handler(consumer: Consumer) -> str:
    running: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, held(signal.SIGCHLD)(lambda *_: take(consumer, running)))
    for number in consumer.messages():
        with held(signal.SIGCHLD):
            running[consumer.fork(number)] = number
    return ""


def fork_thread(consumer: Consumer) -> str:
    def wait(number: int, pid: int) -> None:
        consumer.codes[number] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    threads = []
    for number in consumer.messages():
        threads.append(threading.Thread(target=wait, args=(number, consumer.fork(number))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return ""


def fork_ignored(consumer: Consumer) -> str:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for number in consumer.messages():
        consumer.fork(number)
    return ""


def parent_waits(consumer: Consumer) -> str:
    """The child in between waits, and passes the exit code on."""
    running: dict[int, int] = {}
    for number in consumer.turns():
        take(consumer, running)
        if number is not None:
            pid = os.fork()
            if pid == 0:
                os._exit(os.waitstatus_to_exitcode(os.waitpid(consumer.fork(number), 0)[1]))
            running[pid] = number
    return ""


def below_an_init(consumer: Consumer) -> str:
    """The parent of the consumer inherits the orphans and does nothing but reap, as tini does."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.fork():
        with contextlib.suppress(ChildProcessError):
            while os.wait():
                pass
        os._exit(0)
    return double_fork(consumer)


def adopter_waits(consumer: Consumer) -> str:
    """The consumer itself inherits the orphans. It looks which child has ended, and leaves its own to Popen."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    own = subprocess.Popen(["/bin/sh", "-c", "exit 3"])
    for number in consumer.turns():
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid == own.pid:
                    own.poll()
                else:
                    os.waitpid(ended.si_pid, 0)
        if number is not None:
            consumer.fork_twice(number)
    return f"its own child returned {own.wait()}"


WAYS = (
    *(nothing, join, active_per_message, active_children, sentinel, sigchld_ignored, sigchld_handler),
    *(pool, executor, double_fork),
)
OTHERS = (
    *(popen_wait, popen_with, popen_poll, subprocess_run, popen_ignored, asyncio_wait),
    *(fork_wait, fork_nohang, fork_handler, fork_thread, fork_ignored),
    *(parent_waits, below_an_init, adopter_waits),
)


def name_of(way: Callable[[Consumer], str]) -> str:
    """Return what a way is called on the command line."""
    return way.__name__.replace("_", "-")


def main() -> None:
    """Run one way here, or several, each in a program of its own."""
    options = argparse.ArgumentParser(description="A consumer, and what it can do about its zombies.")
    ways = {name_of(way): way for way in WAYS + OTHERS}
    options.add_argument("way", nargs="?", choices=ways, metavar="WAY", help=", ".join(ways))
    options.add_argument("--all", action="store_true", help="also the ways for children that multiprocessing did not start")
    options.add_argument("--speed", type=float, default=1.0, help="how many times as fast")
    given = options.parse_args()
    if given.way:
        ctypes.CDLL(None).prctl(PR_SET_NAME, given.way.encode())  # what ps -o comm shows of it and of its children
        consumer = Consumer(given.speed)
        note = ways[given.way](consumer)
        print(f"{given.way:18}  {consumer.told()}  {note}".rstrip(), flush=True)
        return
    for way in WAYS + OTHERS if given.all else WAYS:
        subprocess.run([sys.executable, __file__, "--speed", str(given.speed), name_of(way)], check=True)


if __name__ == "__main__":
    main()
