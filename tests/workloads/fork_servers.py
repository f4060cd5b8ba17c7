"""Has fork servers fork in all the ways there are, and prints as JSON lines which line asked for which process."""

import json
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver

CONTEXT = multiprocessing.get_context("forkserver")


def line_before():
    """The line before the one that calls this."""
    frame = sys._getframe(1)
    return "%s:%d %s" % (os.path.basename(frame.f_code.co_filename), frame.f_lineno - 1, frame.f_code.co_name)


def say(case, pid, site, certain=True):
    line = json.dumps({"case": case, "pid": pid, "site": site, "certain": certain}) + "\n"
    os.write(1, line.encode())  # in one piece: threads and children say something at the same time


def work():
    pass


def first(case):
    process = CONTEXT.Process(target=work)
    process.start()
    say(case, process.pid, line_before())
    return process


def second(case):
    process = CONTEXT.Process(target=work)
    process.start()
    say(case, process.pid, line_before())
    return process


def one_after_the_other():
    for process in [first("plain"), second("plain"), first("plain")]:
        process.join()


def restarted():
    server = forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGKILL)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    second("restarted").join()


def in_another_thread():
    thread = threading.Thread(target=lambda: first("thread").join())
    thread.start()
    thread.join()


def crowd(case, count, *functions):
    """Threads that ask at the same time; of those on different lines it cannot always be told which was answered first."""

    def ask(function):
        for _ in range(count):
            process = CONTEXT.Process(target=work)
            function(case, process)
            process.join()

    threads = [threading.Thread(target=ask, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def upper(case, process):
    process.start()
    say(case, process.pid, line_before(), case == "same line")


def lower(case, process):
    process.start()
    say(case, process.pid, line_before(), case == "same line")


def ask_from_below():
    """A worker of the server asks for one of its own, from a server of its own."""
    first("nested").join()


def nested():
    process = CONTEXT.Process(target=ask_from_below)
    process.start()
    say("above", process.pid, line_before())
    process.join()


def with_a_pool():
    with CONTEXT.Pool(2) as pool:
        site = line_before()
        pids = [one.pid for one in pool._pool]
    for pid in pids:
        say("pool", pid, site)


def with_an_executor():
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as pool:
        pool.submit(work).result()
        say("executor", next(iter(pool._processes)), line_before())


def with_a_manager():
    """Its clients connect to it, which asks for nothing; it is a child of the server itself."""
    manager = CONTEXT.Manager()
    say("manager", manager._process.pid, line_before())
    shared = manager.list([1])
    threads = [threading.Thread(target=lambda: shared.append(2)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second("with a manager").join()
    manager.shutdown()


if __name__ == "__main__":
    one_after_the_other()
    restarted()
    in_another_thread()
    crowd("same line", 5, upper, upper, upper)
    crowd("other lines", 5, upper, lower)
    nested()
    with_a_pool()
    if sys.version_info >= (3, 7):
        with_an_executor()
    with_a_manager()
    first("after all of it").join()
