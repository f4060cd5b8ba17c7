"""Makes children by ProcessPoolExecutor, start methods fork and spawn: shut down, used in a `with`, broken, replaced."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from witness import VERSION, say, until_gone

MADE = {"created_by": "executor", "reap_cause": "executor"}


def number(_=None):
    return os.getpid()


def executors(method):
    context = multiprocessing.get_context(method)
    executor = ProcessPoolExecutor(2, mp_context=context)
    list(executor.map(number, range(4)))
    workers = list(executor._processes)
    executor.shutdown()
    for pid in workers:
        say(f"{method} shutdown", pid, exit_path="bootstrap", **MADE)
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        pid = executor.submit(number).result()
    say(f"{method} with", pid, exit_path="bootstrap", **MADE)
    executor = ProcessPoolExecutor(1, mp_context=context)
    pid = executor.submit(number).result()
    try:
        executor.submit(os._exit, 9).result()
    except BrokenProcessPool:
        until_gone(pid)
    say(f"{method} broken", pid, exit_code=9, exit_path="os-exit", **MADE)
    executor.shutdown()


def replaced():
    """Workers that make room for others after a task each."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as executor:
        workers = [executor.submit(number).result() for _ in range(2)]
    for pid in workers:
        say("max_tasks_per_child", pid, exit_path="bootstrap", **MADE)


def main():
    executors("fork")
    executors("spawn")
    if VERSION >= (3, 11):
        replaced()
    executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
    say("at exit", executor.submit(number).result(), exit_path="bootstrap", **MADE)


if __name__ == "__main__":
    main()
