"""Children end while their parent waits for them in all the ways there are, or does not; JSON lines say what is so."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time

WAITS = {"x86_64": ("61", "247"), "aarch64": ("260", "95")}[platform.machine()]  # wait4, waitid
MOST = 16  # waits that the probes look at
SLEEPS = "import time; time.sleep(0.1)"


def say(case, pid, **known):
    print(json.dumps({"case": case, "pid": pid} | known), flush=True)


def until(condition, *arguments):
    while not condition(*arguments):
        time.sleep(0.001)


def is_waiting(pid, tid):
    """Whether a thread is in a wait call."""
    with open(f"/proc/{pid}/task/{tid}/syscall") as file:
        return file.read().split()[0] in WAITS


def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def is_state(pid, letter):
    return state(pid) == letter


def child(condition, *arguments):
    """A child that ends as soon as something is so."""
    pid = os.fork()
    if not pid:
        until(condition, *arguments)
        os._exit(0)
    return pid


def alike():
    """What a child asks of its parent's main thread."""
    return child(is_waiting, os.getpid(), os.getpid())


def in_time():
    for case, wait in {
        "pid": lambda pid: os.waitpid(pid, 0),
        "any": lambda pid: os.waitpid(-1, 0),
        "group": lambda pid: os.waitpid(0, 0),
        "waitid": lambda pid: os.waitid(os.P_PID, pid, os.WEXITED),
        "pidfd": lambda pid: os.waitid(os.P_PIDFD, os.pidfd_open(pid), os.WEXITED),
        "all kinds": lambda pid: os.waitpid(pid, 0x40000000),
    }.items():
        pid = alike()
        wait(pid)
        say(case, pid, awaited=True)


def in_a_thread():
    """A thread waits, and the main one does not."""
    started, made = threading.Event(), []

    def wait():
        made.append(child(is_waiting, os.getpid(), threading.get_native_id()))
        os.waitpid(made[0], 0)
        started.set()

    threading.Thread(target=wait).start()
    started.wait()
    say("thread", made[0], awaited=True)


def in_a_thread_for_its_own():
    """A thread waits for the children that it has made itself, of which this is none."""
    ready, done = threading.Event(), threading.Event()
    numbers = []

    def wait():
        numbers.append(threading.get_native_id())
        ready.wait()
        other = child(is_state, numbers[1], "Z")
        os.waitpid(-1, 0x20000000)  # __WNOTHREAD
        assert is_gone(other)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: numbers)
    pid = child(is_waiting, os.getpid(), numbers[0])
    numbers.append(pid)
    ready.set()
    done.wait()
    os.waitpid(pid, 0)
    say("another thread's", pid, awaited=False)


def is_gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def otherwise():
    """Waits that do not take this child, or not then."""
    pid = alike()
    other = child(is_state, pid, "Z")
    os.waitpid(other, 0)
    os.waitpid(pid, 0)
    say("another child", pid, awaited=False)
    pid = alike()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.waitpid(pid, 0)
    say("a look that leaves it", pid, awaited=False)
    pid = child(lambda: True)
    until(is_state, pid, "Z")
    os.waitpid(pid, 0)
    say("late", pid, awaited=False)
    pid = child(lambda: True)
    until(lambda: os.waitpid(pid, os.WNOHANG)[0])
    say("poll", pid, awaited=False)


def crowded(case, count, awaited):
    """So many threads wait for another child."""
    ready, told = os.pipe()
    other = os.fork()
    if not other:
        os.close(told)
        os.read(ready, 1)
        os._exit(0)
    os.close(ready)
    threads = [threading.Thread(target=os.waitid, args=(os.P_PID, other, os.WEXITED | os.WNOWAIT)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        until(is_waiting, os.getpid(), thread.native_id)
    pid = child(lambda: True)
    until(is_state, pid, "Z")
    os.waitpid(pid, 0)
    os.close(told)
    for thread in threads:
        thread.join()
    os.waitpid(other, 0)
    say(case, pid, awaited=awaited)


def parent_of(waits_first):
    """A process with a child; both do what they are told. Returns its number, the child's, and whom to tell."""
    (ends, end), (begins, begin), (numbers, number) = os.pipe(), os.pipe(), os.pipe()
    parent = os.fork()
    if not parent:
        pid = os.fork()
        if not pid:
            os.read(ends, 1)
            os._exit(0)
        os.write(number, str(pid).encode())
        if not waits_first:
            os.read(begins, 1)
        os.waitpid(pid, 0)
        os._exit(0)
    return parent, int(os.read(numbers, 16)), end, begin


def stopped_in_the_wait():
    parent, pid, end, _ = parent_of(waits_first=True)
    until(is_waiting, parent, parent)
    os.kill(parent, signal.SIGSTOP)
    until(is_state, parent, "T")
    os.write(end, b"x")
    until(is_state, pid, "Z")
    time.sleep(0.02)
    os.kill(parent, signal.SIGCONT)
    os.waitpid(parent, 0)
    say("stopped before", pid, awaited=False, parent=parent)


def stopped_later():
    parent, pid, end, begin = parent_of(waits_first=False)
    os.write(end, b"x")
    until(is_state, pid, "Z")
    os.kill(parent, signal.SIGSTOP)
    until(is_state, parent, "T")
    time.sleep(0.02)
    os.kill(parent, signal.SIGCONT)
    os.write(begin, b"x")
    os.waitpid(parent, 0)
    say("stopped after", pid, awaited=False, parent=parent)


def subprocesses():
    made = subprocess.Popen([sys.executable, "-c", SLEEPS])
    made.wait()
    say("Popen.wait", made.pid, awaited=True)
    made = subprocess.Popen(["sh", "-c", "sleep 0.3 & echo"], stdout=subprocess.PIPE)
    made.communicate()
    say("pipe held", made.pid, awaited=False)


if __name__ == "__main__":
    in_time()
    in_a_thread()
    in_a_thread_for_its_own()
    otherwise()
    crowded("as many waits as are looked at", MOST, False)
    crowded("more waits", MOST + 1, None)
    stopped_in_the_wait()
    stopped_later()
    subprocesses()
