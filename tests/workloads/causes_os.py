"""Makes children by the calls of `os`, and reaps each in one way of its own. Runs under Python 2.7 too."""

import os
import select
import signal
import time

from witness import VERSION, say, until_zombie

FORKED = {"created_by": "os-fork", "exit_path": "os-exit"}


def forked(code=0):
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    return pid


def waits():
    pid = forked()
    assert os.wait()[0] == pid
    say("os.wait", pid, reap_cause="os-wait", reap_target="any", **FORKED)
    for target in (-1, 0):
        pid = forked()
        assert os.waitpid(target, 0)[0] == pid
        say("os.waitpid(%d)" % target, pid, reap_cause="os-wait", reap_target="pgid" if target == 0 else "any", **FORKED)
    pid = forked()
    os.waitpid(pid, 0)
    say("os.waitpid(pid)", pid, reap_cause="os-wait", reap_target="pid", empty_waits=0, **FORKED)
    pid = forked()
    os.wait3(0)
    say("os.wait3", pid, reap_cause="os-wait", reap_target="any", **FORKED)
    pid = forked()
    os.wait4(pid, 0)
    say("os.wait4", pid, reap_cause="os-wait", reap_target="pid", **FORKED)


def polls():
    """5 looks at a child that lives, and one after it has ended."""
    gate, release = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(release)
        os.read(gate, 1)
        os._exit(0)
    for _ in range(5):
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.close(release)
    os.close(gate)
    until_zombie(pid)
    os.waitpid(pid, os.WNOHANG)
    say("os.waitpid(WNOHANG)", pid, reap_cause="os-wait", empty_waits=5, reap_options="WNOHANG", **FORKED)


def waitids():
    pid = forked()
    os.waitid(os.P_PID, pid, os.WEXITED)
    say("os.waitid(P_PID)", pid, reap_cause="os-wait", reap_call="waitid", reap_target="pid", **FORKED)
    pid = forked()
    os.waitid(os.P_ALL, 0, os.WEXITED)
    say("os.waitid(P_ALL)", pid, reap_cause="os-wait", reap_call="waitid", reap_target="any", **FORKED)
    pid = forked()
    os.waitid(os.P_PGID, os.getpgrp(), os.WEXITED)
    say("os.waitid(P_PGID)", pid, reap_cause="os-wait", reap_call="waitid", reap_target="pgid", **FORKED)
    if VERSION >= (3, 9):
        pid = forked()
        descriptor = os.pidfd_open(pid)
        select.select([descriptor], [], [])
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
        os.close(descriptor)
        say("os.waitid(P_PIDFD)", pid, reap_cause="os-wait", reap_call="waitid", reap_target="pidfd", **FORKED)


def pass_on(descriptor):
    if VERSION >= (3, 4):
        os.set_inheritable(descriptor, True)
    return descriptor


def spawns():
    pid = os.spawnv(os.P_NOWAIT, "/bin/true", ["true"])
    os.waitpid(pid, 0)
    say("os.spawnv(P_NOWAIT)", pid, created_by="os-fork", reap_cause="os-wait", exit_path="not-python")
    if VERSION >= (3, 8):
        pid = os.posix_spawn("/bin/true", ["true"], {})
        os.waitpid(pid, 0)
        say("os.posix_spawn", pid, created_by="posix-spawn", reap_cause="os-wait", exit_path="not-python")
    reader, writer = os.pipe()
    os.system("echo $$ >&%d" % pass_on(writer))
    say("os.system", int(os.read(reader, 20)), created_by="native", reap_cause="other-native", exit_path="not-python")
    os.close(reader)
    os.close(writer)
    pid, terminal = os.forkpty()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(terminal)
    say("os.forkpty", pid, reap_cause="os-wait", **FORKED)


REAPED = []


def reap_all(number=None, frame=None):
    """What reaps: installed as a handler, and called from the program."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except OSError:
            return
        if pid == 0:
            return
        REAPED.append(pid)


def by_way_of(number, frame):
    helper()


def helper():
    reap_all()


def until_reaped(pid, idle):
    while pid not in REAPED:
        idle()


def blocks():
    time.sleep(0.05)


def selects():
    try:
        select.select([], [], [], 0.05)
    except select.error:  # interrupted, in 2.7
        pass


def handlers():
    """A handler that waits itself or through a helper, over a program that computes, sleeps or selects."""
    for handler in (reap_all, by_way_of):
        signal.signal(signal.SIGCHLD, handler)
        for idle in (lambda: None, blocks, selects):
            pid = forked()
            until_reaped(pid, idle)
            say("handler %s" % handler.__name__, pid, reap_cause="signal-handler", **FORKED)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for call in (reap_all, helper):
        pid = forked()
        until_zombie(pid)
        call()
        assert REAPED[-1] == pid
        say("call of %s" % call.__name__, pid, reap_cause="os-wait", **FORKED)


def main():
    waits()
    polls()
    if VERSION >= (3, 3):
        waitids()
    spawns()
    handlers()


if __name__ == "__main__":
    main()
