"""mixed.py SECONDS REAPS FOLDER: two workers make processes in every way, one way after the other, as fast as they can.

REAPS is the program of reaps.c. Each worker prints how many processes there were through it, itself included.
"""

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


def storm(number):
    """From C."""
    path = os.path.join(sys.argv[3], f"mixed-{os.getpid()}")
    subprocess.run([sys.argv[2], str(int(1000 * SLICE_S)), path], check=False)
    with open(path) as lines:
        return 1 + sum(1 for _ in lines)


def nested(number, depth=30):
    """In many nested calls."""
    if depth:
        return nested(number, depth - 1)
    os.waitpid(leave(), 0)
    return 1


def spawned(number):
    """By subprocess, with an exec."""
    subprocess.run(["/bin/true", str(number)], check=True)
    return 1


def zombies(number):
    """Many at once, reaped together."""
    made = [leave(3) for _ in range(100)]
    for _ in made:
        os.wait()
    return len(made)


def generated(number):
    """Through code that there was never before: each time another stack."""
    space = {"leave": leave}
    exec(compile(f"def made_{number}():\n    return leave()\n", f"/srv/made/{number}.py", "exec"), space)
    os.waitpid(space[f"made_{number}"](), 0)
    return 1


def unjoined(number):
    """By multiprocessing, which sweeps them with the next start."""
    context = multiprocessing.get_context("fork")
    for _ in range(10):
        context.Process(target=time.sleep, args=(0,)).start()
    for child in multiprocessing.active_children():
        child.join()
    return 10


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
    return 1


def threads(number):
    """In several threads."""
    many = [threading.Thread(target=nested, args=(number, 3)) for _ in range(4)]
    for one in many:
        one.start()
    for one in many:
        one.join()
    return len(many)


def orphans(number):
    """Whose parent ends first."""
    pid = os.fork()
    if pid == 0:
        leave(4)
        os._exit(0)
    os.waitpid(pid, 0)
    os.wait()
    return 2


WAYS = (storm, nested, spawned, zombies, generated, unjoined, killed, threads, orphans)


def work(first):
    """Go through the ways, from one of them on."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    made, number, way = 1, 0, first
    while time.monotonic() < end:
        until = min(end, time.monotonic() + SLICE_S)
        while time.monotonic() < until:
            number += 1
            made += WAYS[way % len(WAYS)](number)
        way += 1
    print(json.dumps({"case": "mixed", "what": "made", "made": made}), flush=True)


end = time.monotonic() + float(sys.argv[1])
workers = []
for place in range(2):
    workers.append(os.fork())
    if not workers[-1]:
        work(place * len(WAYS) // 2)
        os._exit(0)
status = 0
for worker in workers:
    status |= os.waitpid(worker, 0)[1]
sys.exit(1 if status else 0)
