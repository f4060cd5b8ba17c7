"""Makes children by multiprocessing, and has each reaped by another way of it: `causes_multiprocessing.py METHOD`.

Runs under Python 2.7 too, where METHOD is fork, as it forks without asking.
"""

import gc
import multiprocessing
import os
import signal
import sys
import time

from witness import VERSION, say, until_gone, until_zombie

METHOD = sys.argv[1] if len(sys.argv) > 1 else "fork"
MADE = {"created_by": "multiprocessing", "exit_path": "bootstrap"}
KILLED = {"created_by": "multiprocessing", "exit_path": "signal"}
RETURNS = sys.version_info >= (3, 14, 7) or (3, 13, 15) <= sys.version_info < (3, 14)  # main, after SystemExit too


def nothing():
    pass


def leave(code):
    sys.exit(code)


def leave_at_once(code):
    os._exit(code)


def fail():
    sys.stderr = open(os.devnull, "w")
    raise ValueError


def number(_):
    return os.getpid()


def started(context, target=nothing, *arguments, **more):
    process = context.Process(target=target, args=arguments)
    process.daemon = more.get("daemon", False)
    process.start()
    return process


def ended(context):
    """A process that is a zombie."""
    process = started(context)
    until_zombie(process.pid)
    return process


def processes(context, name):
    swept = ended(context)
    joined = started(context)
    say(name + " swept by a start", swept.pid, reap_cause="next-start", reap_options="WNOHANG", **MADE)
    joined.join()
    say(name + " join", joined.pid, reap_cause="join", **MADE)
    joined = started(context)
    joined.join(20)
    say(name + " join(timeout)", joined.pid, reap_cause="join", **MADE)

    process = ended(context)
    process.join()
    say(name + " join of a zombie", process.pid, reap_cause="join", **MADE)
    process = started(context, time.sleep, 60)
    for _ in range(3):
        assert process.is_alive()
    process.terminate()
    until_zombie(process.pid)
    assert not process.is_alive()
    say(name + " is_alive", process.pid, reap_cause="poll", empty_waits=3, term_signal="SIGTERM", **KILLED)
    process = ended(context)
    assert process.exitcode == 0
    say(name + " exitcode", process.pid, reap_cause="poll", **MADE)
    process = ended(context)
    assert repr(process)
    say(name + " repr", process.pid, reap_cause="poll", **MADE)
    process = ended(context)
    multiprocessing.active_children()
    say(name + " active_children", process.pid, reap_cause="active-children", **MADE)
    if VERSION >= (3, 7):
        process = ended(context)
        say(name + " close", process.pid, reap_cause="poll", **MADE)
        process.close()


def endings(context, name):
    failed = "unknown" if RETURNS and METHOD == "spawn" else "bootstrap"  # its import could have failed, too
    for target, code, path in ((leave, 3, "bootstrap"), (fail, 1, failed), (leave_at_once, 4, "os-exit")):
        process = started(context, target, *[] if target is fail else [code])
        process.join()
        values = {"exit_code": code, "exit_path": path, "created_by": "multiprocessing"}
        say("%s %s" % (name, target.__name__), process.pid, reap_cause="join", **values)


def pools(context, name):
    made = {"created_by": "pool", "reap_cause": "pool"}
    pool = context.Pool(2)
    workers = [worker.pid for worker in pool._pool]
    pool.map(number, range(4))
    pool.close()
    pool.join()
    for pid in workers:
        say(name + " Pool.join", pid, exit_path="bootstrap", **made)
    pool = context.Pool(2)
    workers = [worker.pid for worker in pool._pool]
    pool.map(number, range(4))
    pool.terminate()
    pool.join()
    for pid in workers:
        say(name + " Pool.terminate", pid, **made)
    pool = context.Pool(1, maxtasksperchild=1)
    replaced = pool.map(number, range(3), 1)
    assert len(set(replaced)) == 3
    pool.close()
    pool.join()
    for pid in replaced:
        say(name + " Pool(maxtasksperchild)", pid, exit_path="bootstrap", **made)
    pool = context.Pool(1)
    pid = pool.apply(number, (0,))
    pool.apply_async(leave_at_once, (6,))
    until_gone(pid)
    say(name + " Pool with a worker that leaves", pid, exit_code=6, exit_path="os-exit", **made)
    pool.terminate()
    if VERSION >= (3, 3):
        with context.Pool(1) as pool:
            pid = pool.apply(number, (0,))
        until_gone(pid)
        say(name + " with Pool", pid, **made)


def managers(context, name):
    manager = context.Manager()
    assert manager.list([1])[0] == 1
    pid = manager._process.pid
    manager.shutdown()
    say(name + " Manager", pid, reap_cause="join", exit_path="bootstrap", created_by="multiprocessing")


def fork_servers(context):
    """Children that the fork server makes and reaps; the fork server itself, killed and made anew."""
    from multiprocessing import forkserver

    servers = []
    for _ in range(2):
        process = started(context)
        process.join()
        until_gone(process.pid)
        servers.append(forkserver._forkserver._forkserver_pid)
        made = {"created_by": "forkserver", "exit_path": "bootstrap", "reaper_pid": servers[-1]}
        say("child of a fork server", process.pid, reap_cause="forkserver", **made)
        if len(servers) == 1:
            os.kill(servers[0], signal.SIGKILL)
            until_zombie(servers[0])
    say("fork server", servers[0], reap_cause="forkserver", created_by="forkserver", term_signal="SIGKILL")
    pool = context.Pool(1)
    pid = pool.apply(number, (0,))
    pool.close()
    pool.join()
    until_gone(pid)
    say("pool of a fork server", pid, reap_cause="forkserver", created_by="forkserver", reaper_pid=servers[1])
    say("fork server at the end", servers[1], created_by="forkserver", reap_cause="parent-exit", complete=None)


def resource_trackers():
    """A tracker that was killed is reaped by whoever starts the next."""
    from multiprocessing import resource_tracker

    tracker = resource_tracker._resource_tracker
    tracker.ensure_running()
    pid = tracker._pid
    os.kill(pid, signal.SIGKILL)
    until_zombie(pid)
    with open(os.devnull, "w") as sys.stderr:  # where it warns
        tracker.ensure_running()
    sys.stderr = sys.__stderr__
    assert tracker._pid != pid
    say("resource tracker", pid, reap_cause="resource-tracker", created_by="multiprocessing", term_signal="SIGKILL")


def at_exit(context, name):
    """A daemon, one that still runs and a zombie, all left to the end of the program."""
    process = started(context, time.sleep, 60, daemon=True)
    say(name + " at exit, a daemon", process.pid, reap_cause="exit-handler", term_signal="SIGTERM", **KILLED)
    process = started(context, time.sleep, 0.5)
    say(name + " at exit, running", process.pid, reap_cause="exit-handler", **MADE)
    process = ended(context)
    say(name + " at exit, a zombie", process.pid, reap_cause="exit-handler", **MADE)


def main():
    context = multiprocessing.get_context(METHOD) if VERSION >= (3, 4) else multiprocessing
    if METHOD == "forkserver":
        fork_servers(context)
        return
    processes(context, METHOD)
    endings(context, METHOD)
    managers(context, METHOD)
    pools(context, METHOD)
    gc.collect()
    if METHOD == "spawn" and VERSION >= (3, 8):
        resource_trackers()
    at_exit(context, METHOD)


if __name__ == "__main__":
    main()
