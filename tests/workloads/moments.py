"""A family that stands still three times while it is looked at with the real `ps`: a living program, zombies, an orphan."""

import json
import os
import signal
import subprocess
import time

from witness import say, until_zombie


def look(case):
    """Print what `ps` shows now, and a moment just before it was started."""
    time.sleep(0.05)  # /proc may say Z a moment before the parent is notified
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with subprocess.Popen(["ps", "-e", "-o", "pid=,ppid=,stat=,etime=,args="], stdout=subprocess.PIPE, text=True) as ps:
        shown = [line.split(None, 4) for line in ps.stdout]
    say(case, os.getpid(), now_ns=now_ns, shown=[row for row in shown if int(row[0]) != ps.pid])


def fork(function):
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(0)
    return pid


def leave_an_orphan():
    """Print the number of a grandchild whose parent has ended, and which lives until the pipe that is returned is closed."""
    told, tell = os.pipe()
    stay, leave = os.pipe()

    def linger():
        os.close(leave)
        parent = os.getppid()
        os.write(tell, b"up")
        while os.getppid() == parent:
            time.sleep(0.001)
        os.write(tell, json.dumps([os.getpid(), os.getppid()]).encode())
        os.read(stay, 1)

    def make():
        fork(linger)
        os.read(told, 2)

    os.waitpid(fork(make), 0)
    orphan, adopter = json.loads(os.read(told, 100))
    say("orphan", orphan, adopter=adopter)
    return leave


sleeper = subprocess.Popen(["sleep", "1000"])
until_exec = time.monotonic() + 100
while open(f"/proc/{sleeper.pid}/comm").read() != "sleep\n" and time.monotonic() < until_exec:
    time.sleep(0.001)
dead = fork(lambda: None)
until_zombie(dead)
leave = leave_an_orphan()
time.sleep(1.5)  # so that ELAPSED of the first and of what comes next differ
look("first")

os.waitpid(dead, 0)
sleeper.send_signal(signal.SIGTERM)
until_zombie(sleeper.pid)
look("second")

sleeper.wait()
os.close(leave)
look("third")
