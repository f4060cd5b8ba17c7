"""Waits for a child that runs on: `hung.py WAY`; prints the numbers of itself, the child, and who else has its pipe.

`join` and `forkserver` join a Process of these start methods, `pipe` reads the output of a shell that has ended, of which a
process that it left behind has the other end, and `any` waits for any child.
"""

import multiprocessing
import os
import subprocess
import sys
import time

SECONDS = 1000


def say(*numbers):
    print(*numbers, flush=True)


def join(method):
    child = multiprocessing.get_context(method).Process(target=time.sleep, args=(SECONDS,), daemon=True)
    child.start()
    say(os.getpid(), child.pid)
    child.join()


def pipe():
    shell = subprocess.Popen(["sh", "-c", "sleep %d & echo $!" % SECONDS], stdout=subprocess.PIPE, text=True)
    say(os.getpid(), shell.pid, shell.stdout.readline().strip())
    shell.communicate()


def any_child():
    child = subprocess.Popen(["sleep", str(SECONDS)])
    say(os.getpid(), child.pid)
    os.wait()


if __name__ == "__main__":
    {"join": lambda: join("fork"), "forkserver": lambda: join("forkserver"), "pipe": pipe, "any": any_child}[sys.argv[1]]()
