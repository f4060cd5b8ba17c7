"""mixed.py SECONDS REAPS FOLDER: two workers make processes in every way, one way after the other, as fast as they can.

REAPS is the program of reaps.c. FOLDER/made-PID is what process PID knows to have been made: lines with the way, between
which moments (CLOCK_BOOTTIME ns), the parent, and its children. Each worker prints how many processes there were through
it, itself included.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
SLICE_S = 1.0  # of one way


def leave(code=0):
    """Make a child that ends at once."""
    pid = os.fork()
    if pid == 0:
        os._exit(code)
    return pid


def ours(*pids):
    """Children of this process, as a way returns what was made: parent -> its children."""
    return {os.getpid(): list(pids)}


def inherited():
    """Reap what this process has inherited."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while True:
            found.append(os.wait()[0])
    return found


def storm(number, most_s=None):
    """From C."""
    path = os.path.join(sys.argv[3], f"storm-{os.getpid()}-{number}")  # another each time: none is taken for the one before
    program = subprocess.Popen([sys.argv[2], str(int(1000 * SLICE_S)), path])
    try:
        program.wait(most_s)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
    return ours(program.pid) | {program.pid: named(path)}


def named(path):
    """The children that a storm has named, and one that it had no time for any more: it lives on here."""
    lines = []
    for name in (path, path + ".new"):
        with contextlib.suppress(FileNotFoundError), open(name) as file:
            lines = file.readlines()
            os.unlink(name)
    pids = [int(line.split()[0]) for line in lines]
    waited_for = [] if not lines or lines[-1].endswith("\n") else pids[-1:]
    return pids + [pid for pid in inherited() if pid not in waited_for]


def broken(number):
    """From C, killed in the middle."""
    return storm(number, SLICE_S / 4)


def nested(number, depth=30):
    """In many nested calls."""
    if depth:
        return nested(number, depth - 1)
    pid = leave()
    os.waitpid(pid, 0)
    return ours(pid)


def spawned(number):
    """By subprocess, with an exec."""
    with subprocess.Popen(["/bin/true", str(number)]) as program:
        assert program.wait() == 0
    return ours(program.pid)


def zombies(number):
    """Many at once, reaped together."""
    made = [leave(3) for _ in range(100)]
    for _ in made:
        os.wait()
    return ours(*made)


def generated(number):
    """Through code that there was never before: each time another stack."""
    space = {"leave": leave}
    exec(compile(f"def made_{number}():\n    return leave()\n", f"/srv/made/{number}.py", "exec"), space)
    pid = space[f"made_{number}"]()
    os.waitpid(pid, 0)
    return ours(pid)


def unjoined(number):
    """By multiprocessing, which sweeps them with the next start."""
    context, made = multiprocessing.get_context("fork"), []
    for _ in range(10):
        child = context.Process(target=time.sleep, args=(0,))
        child.start()
        made.append(child.pid)
    for child in multiprocessing.active_children():
        child.join()
    return ours(*made)


def killed(number):
    """Stopped, continued, and killed."""
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    os.kill(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return ours(pid)


def threads(number):
    """In several threads."""
    made = []
    many = [threading.Thread(target=lambda: made.extend(*nested(number, 3).values())) for _ in range(4)]
    for one in many:
        one.start()
    for one in many:
        one.join()
    return ours(*made)


def orphans(number):
    """Whose parent ends first."""
    pid = os.fork()
    if pid == 0:
        leave(4)
        os._exit(0)
    os.waitpid(pid, 0)
    return ours(pid) | {pid: [os.wait()[0]]}


WAYS = (storm, broken, nested, spawned, zombies, generated, unjoined, killed, threads, orphans)


def now_ns():
    """The clock that says when a process began."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def note(way, since_ns, made):
    """Write down what was made since then; return how many that is."""
    moments = f"{way} {since_ns} {now_ns()}"
    with open(os.path.join(sys.argv[3], f"made-{os.getpid()}"), "a") as file:
        file.writelines(f"{moments} {parent} {' '.join(map(str, pids))}\n" for parent, pids in made.items())
    return sum(map(len, made.values()))


def work(first):
    """Go through the ways, from one of them on."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    made, number, way = 1, 0, first
    while time.monotonic() < end:
        until, make = min(end, time.monotonic() + SLICE_S), WAYS[way % len(WAYS)]
        while time.monotonic() < until:
            number, since_ns = number + 1, now_ns()
            made += note(make.__name__, since_ns, make(number))
        way += 1
    print(json.dumps({"case": "mixed", "what": "made", "made": made}), flush=True)


end = time.monotonic() + float(sys.argv[1])
workers = []
for place in range(2):
    start_ns = now_ns()
    workers.append(os.fork())
    if not workers[-1]:
        work(place * len(WAYS) // 2)
        os._exit(0)
    note("worker", start_ns, ours(workers[-1]))
status = 0
for worker in workers:
    status |= os.waitpid(worker, 0)[1]
sys.exit(1 if status else 0)
