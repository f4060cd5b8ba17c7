"""Has zombies, and does what it is told on stdin.

    python zombies.py [ignore|handle|block] [uid=N] [nproc=N] [cgroup=FILE]

`make` ends a child and prints its number, the moments around its end, and how it ended; `fork` makes children until that
fails and prints how many; `name` ends a child with a hostile name. Everything is gone at the end of stdin.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time

PR_SET_DUMPABLE = 4  # linux/prctl.h
HOSTILE = "a) Z (\x1b[2J\nb"


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def say(**values):
    print(json.dumps(values), flush=True)


def make(number, name=None):
    before_ns = now_ns()
    pid = os.fork()
    if pid == 0:
        if name:
            with open("/proc/self/comm", "w") as file:
                file.write(name)
        if number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(number)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    say(pid=pid, before_ns=before_ns, after_ns=now_ns(), exit_code=None if number % 2 else number)


def fork_until_it_fails():
    made = 0
    while made < 10_000:
        try:
            pid = os.fork()
        except BlockingIOError:
            break
        if pid == 0:
            os._exit(0)
        made += 1
    say(made=made)


options = sys.argv[1:]
if "ignore" not in options:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
if "handle" in options:
    signal.signal(signal.SIGCHLD, lambda *_: None)
if "block" in options:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
values = dict(option.split("=", 1) for option in options if "=" in option)
if "cgroup" in values:
    with open(values["cgroup"], "w") as procs:
        procs.write("0")
if "nproc" in values:
    resource.setrlimit(resource.RLIMIT_NPROC, (int(values["nproc"]),) * 2)
if "uid" in values:
    os.setgroups([])
    os.setresgid(*[int(values["uid"])] * 3)
    os.setresuid(*[int(values["uid"])] * 3)
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as after an exec: it is the user's to look at
say(pid=os.getpid())
for count, line in enumerate(sys.stdin):
    if line == "fork\n":
        fork_until_it_fails()
    else:
        make(count, HOSTILE if line == "name\n" else None)
        if "ignore" in options:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
