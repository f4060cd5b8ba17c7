"""Takes the status of children that a library made and later asks for in vain; and what looks like it, and is none.

A line with `what: stolen` says who took the child, where its owner asked, each as the line of the program, and what it got to
see; a line with `what: kept` is a child that nobody stole.
"""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

from witness import VERSION, say, until_zombie

HERE = os.path.basename(__file__)
CONTEXT = multiprocessing.get_context("fork")


def here(depth=1):
    """The place of the caller, as a site is written."""
    frame = sys._getframe(depth)
    return f"{HERE}:{frame.f_lineno} {frame.f_code.co_name}"


def nothing():
    pass


SEEN = {"multiprocessing": "exitcode None", "subprocess": "returncode 0", "asyncio": "returncode 255", "os-fork": "ECHILD"}


def stolen(case, pid, created_by, thief_site, owner_site, seen=None):
    sites = {"thief_tid": threading.get_native_id(), "thief_site": thief_site, "owner_site": owner_site}
    say(case, pid, what="stolen", created_by=created_by, seen=seen or SEEN[created_by], **sites)


def kept(case, pid):
    say(case, pid, what="kept")


TAKEN = {}


def take_all(number, frame):
    """A SIGCHLD handler that reaps whatever has ended."""
    while True:
        try:
            pid, site = os.waitpid(-1, os.WNOHANG)[0], here()
        except OSError:
            return
        if pid == 0:
            return
        TAKEN[pid] = site


class Handled:
    """A context with that handler."""

    def __enter__(self):
        signal.signal(signal.SIGCHLD, take_all)

    def __exit__(self, *_):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def until_taken(pid):
    while pid not in TAKEN:
        time.sleep(0.001)


def wait_against_multiprocessing():
    process = CONTEXT.Process(target=nothing)
    process.start()
    (pid, _), thief = os.wait(), here()
    assert pid == process.pid
    _, owner = process.join(), here()
    assert process.exitcode is None
    stolen("os.wait and join", pid, created_by="multiprocessing", thief_site=thief, owner_site=owner)

    process = CONTEXT.Process(target=nothing)
    process.start()
    (pid, _), thief = os.wait(), here()
    alive, owner = process.is_alive(), here()
    assert alive
    stolen("os.wait and is_alive", pid, created_by="multiprocessing", thief_site=thief, owner_site=owner)
    multiprocessing.process._children.clear()  # which it believes alive for ever


def handler_against_subprocess():
    with Handled():
        child = subprocess.Popen(["/bin/sh", "-c", "exit 3"])
        until_taken(child.pid)
        code, owner = child.wait(), here()
        assert code == 0
        stolen("handler and wait", child.pid, created_by="subprocess", thief_site=TAKEN[child.pid], owner_site=owner)
        child = subprocess.Popen(["/bin/sh", "-c", "exit 3"])
        until_taken(child.pid)
        code, owner = child.poll(), here()
        assert code is not None
        stolen("handler and poll", child.pid, created_by="subprocess", thief_site=TAKEN[child.pid], owner_site=owner)


def handler_against_multiprocessing():
    with Handled():
        process = CONTEXT.Process(target=nothing)
        process.start()
        until_taken(process.pid)
        _, owner = process.join(), here()
        stolen("handler and join", process.pid, created_by="multiprocessing", thief_site=TAKEN[process.pid], owner_site=owner)
        multiprocessing.process._children.clear()


def asyncio_against_subprocess():
    """asyncio's FastChildWatcher waits for any child."""

    async def main():
        child = await asyncio.create_subprocess_exec("/bin/cat", stdin=asyncio.subprocess.PIPE)
        other = subprocess.Popen(["/bin/sh", "-c", "exit 3"])
        while os.path.exists(f"/proc/{other.pid}"):
            await asyncio.sleep(0.001)
        code, owner = other.wait(), here()
        assert code == 0
        child.stdin.close()
        await child.wait()
        kept("asyncio's own child", child.pid)
        return other.pid, owner

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    watcher = asyncio.FastChildWatcher()
    watcher.attach_loop(loop)
    asyncio.set_child_watcher(watcher)
    (pid, owner), thief = loop.run_until_complete(main()), here()
    stolen("FastChildWatcher and wait", pid, created_by="subprocess", thief_site=thief, owner_site=owner)
    asyncio.set_child_watcher(None)
    watcher.close()
    loop.close()


def wait_against_asyncio():
    """The loop cannot look at the child before the program has waited for it."""

    async def main():
        reader, writer = os.pipe()
        child = await asyncio.create_subprocess_exec("/bin/sh", "-c", "read line; exit 3", stdin=reader)
        os.close(reader)
        os.close(writer)
        (pid, _), thief = os.wait(), here()
        assert pid == child.pid
        assert await child.wait() == 255
        return pid, thief

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    if VERSION < (3, 14):  # from then on it is the loop's own
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)
    (pid, thief), owner = loop.run_until_complete(main()), here()
    stolen("os.wait and asyncio", pid, created_by="asyncio", thief_site=thief, owner_site=owner)
    if VERSION < (3, 14):
        asyncio.set_child_watcher(None)
    loop.close()


def handler_against_the_program():
    """A program that asks again for what its own handler has reaped."""
    with Handled():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        until_taken(pid)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            owner = f"{HERE}:{sys._getframe().f_lineno - 2} {sys._getframe().f_code.co_name}"
        stolen("handler and os.waitpid", pid, created_by="os-fork", thief_site=TAKEN[pid], owner_site=owner)


def handler_against_a_dropped_popen():
    """Nobody asks, but subprocess itself, when the object goes."""
    with Handled():
        child = subprocess.Popen(["/bin/true"])
        pid = child.pid
        until_taken(pid)
        owner = f"{HERE}:{sys._getframe().f_lineno + 1} {sys._getframe().f_code.co_name}"
        del child
        stolen("handler and del", pid, created_by="subprocess", thief_site=TAKEN[pid], owner_site=owner, seen="not asked")


def interrupted_join():
    """The join that the handler interrupts has the status already; the handler then finds no child."""
    with Handled():
        process = CONTEXT.Process(target=time.sleep, args=(0.02,))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert process.pid not in TAKEN
        kept("a join that a handler interrupts", process.pid)


def own_children():
    """What the program forked itself it may reap where it likes."""
    with Handled():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        until_taken(pid)
        kept("os.fork and a handler", pid)


def ignored():
    """Nobody takes a child whose parent ignores SIGCHLD; subprocess asks in vain all the same."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    child = subprocess.Popen(["/bin/sh", "-c", "exit 3"])
    assert child.wait() == 0
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    kept("SIGCHLD ignored", child.pid)


def asked_by_a_child():
    """A forked child has the Popen object of its parent's child, and asks for what is not its own."""
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE)
    pid = os.fork()
    if pid == 0:
        os._exit(child.wait())
    os.waitpid(pid, 0)
    child.stdin.close()
    until_zombie(child.pid)
    assert os.waitpid(-1, 0)[0] == child.pid
    child.returncode = 0
    kept("asked by a child before", child.pid)


def two_threads():
    """Both threads join; one gets the status, the other ECHILD."""
    process = CONTEXT.Process(target=time.sleep, args=(0.05,))
    process.start()
    threads = [threading.Thread(target=process.join) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept("two joins", process.pid)


def never_asked():
    """A child that a handler reaps, and whose owner never asks."""
    with Handled():
        child = subprocess.Popen(["/bin/true"])
        until_taken(child.pid)
        child.returncode = 0
        kept("never asked for", child.pid)


def main():
    warnings.simplefilter("ignore")
    wait_against_multiprocessing()
    handler_against_subprocess()
    handler_against_multiprocessing()
    if hasattr(asyncio, "FastChildWatcher"):
        asyncio_against_subprocess()
    if VERSION >= (3, 9):
        wait_against_asyncio()
    handler_against_the_program()
    handler_against_a_dropped_popen()
    interrupted_join()
    own_children()
    ignored()
    asked_by_a_child()
    two_threads()
    never_asked()


if __name__ == "__main__":
    main()
