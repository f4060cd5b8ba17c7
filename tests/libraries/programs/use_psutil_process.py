"""psutil waits for a child that something else made."""

import os

import psutil

pid = os.fork()  # forks
if pid == 0:
    os._exit(3)
psutil.Process(pid).wait()  # reaps
