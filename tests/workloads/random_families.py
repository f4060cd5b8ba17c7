"""random_families.py SEED COUNT: COUNT families of processes that do at random what processes do to each other, and then die.

They fork from any thread, exec, wait in every way, look and do not reap, ignore SIGCHLD, become subreapers, stop and kill each
other singly and by the group, give memory back, and leave their children behind in any state.
"""

import contextlib
import ctypes
import os
import random
import signal
import sys
import threading
import time

PR_SET_CHILD_SUBREAPER = 36
MOST, DEEPEST = 6, 4

libc = ctypes.CDLL(None)


class Member:
    """One process of a family: what it may do, each a method."""

    def __init__(self, seed, depth):
        self.random = random.Random(seed)
        self.depth = depth
        self.children = []

    def live(self):
        """Do some things, then end."""
        steps = [self.fork, self.fork, self.fork, self.fork_in_a_thread, self.wait, self.wait_for_one, self.look, self.ignore]
        steps += [self.adopt, self.kill, self.stop, self.sleep, self.spawn, self.wait_in_a_thread, self.remember]
        for _ in range(self.random.randrange(2, 9)):
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                self.random.choice(steps)()
        self.end()

    def fork(self):
        if self.depth >= DEEPEST or len(self.children) >= MOST:
            return
        seed = self.random.random()
        pid = os.fork()
        if pid == 0:
            try:
                Member(seed, self.depth + 1).live()
            finally:
                os._exit(77)
        self.children.append(pid)

    def spawn(self):
        command = self.random.choice([["true"], ["false"], ["sh", "-c", "true & exit 3"], ["sh", "-c", "kill -9 $$"]])
        self.children.append(os.posix_spawnp(command[0], command, os.environ))

    def in_a_thread(self, step):
        def run():
            with contextlib.suppress(ChildProcessError, ProcessLookupError):
                step()

        thread = threading.Thread(target=run)
        thread.start()
        if self.random.random() < 0.8:
            thread.join()

    def fork_in_a_thread(self):
        self.in_a_thread(self.fork)

    def wait_in_a_thread(self):
        self.in_a_thread(self.wait)

    def wait(self):
        options = self.random.choice([0, os.WNOHANG, os.WNOHANG, os.WNOHANG | os.WUNTRACED])
        if options == 0:
            self.end_one()
        pid, status = self.random.choice([os.waitpid, os.wait4])(self.random.choice([-1, 0]), options)[:2]
        self.reaped(pid, not os.WIFSTOPPED(status))

    def wait_for_one(self):
        if self.children:
            pid = self.end_one()
            if self.random.random() < 0.5:
                os.waitpid(pid, 0)
            else:
                os.waitid(os.P_PID, pid, os.WEXITED)
            self.reaped(pid, True)

    def end_one(self):
        """Kill a child, if there is one, so that a wait comes back."""
        if self.children:
            pid = self.random.choice(self.children)
            os.kill(pid, signal.SIGKILL)
            return pid
        return 0

    def reaped(self, pid, ended):
        if ended and pid in self.children:
            self.children.remove(pid)

    def look(self):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)

    def ignore(self):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, self.random.choice([signal.SIG_IGN, signal.SIG_DFL]))

    def adopt(self):
        libc.prctl(PR_SET_CHILD_SUBREAPER, self.random.randrange(2), 0, 0, 0)

    def kill(self):
        if self.children:
            number = self.random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGUSR1, signal.SIGCHLD])
            os.kill(self.random.choice(self.children), number)

    def stop(self):
        if self.children:
            pid = self.random.choice(self.children)
            os.kill(pid, signal.SIGSTOP)
            os.kill(pid, self.random.choice([signal.SIGCONT, signal.SIGKILL]))

    def sleep(self):
        time.sleep(self.random.choice([0, 0.001, 0.005]))

    def remember(self):
        self.memory = bytearray(self.random.choice([1, 8]) << 20)

    def end(self):
        """Leave, in one of the ways there are; the children stay as they are."""
        how = self.random.randrange(6)
        if how == 0:
            os.kill(os.getpid(), self.random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV]))
        elif how == 1 and self.depth:
            os.execvp("sh", ["sh", "-c", f"exit {self.random.randrange(256)}"])
        elif how == 2:
            threading.Thread(target=lambda: os._exit(self.random.randrange(256))).start()
            time.sleep(0.01)
        os._exit(self.random.randrange(256))


def main(seed, count):
    """Each family is a process group, killed as a whole if it has not ended by itself. Its orphans go to pid 1, or come here
    and are reaped, or come here and are ignored."""
    chance = random.Random(seed)
    for _ in range(count):
        own, patience, orphans = (
            chance.random(),
            chance.choice([0.002, 0.01, 0.05, 0.2]),
            chance.choice(["leave", "reap", "ignore"]),
        )
        libc.prctl(PR_SET_CHILD_SUBREAPER, int(orphans != "leave"), 0, 0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN if orphans == "ignore" else signal.SIG_DFL)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setpgid(0, 0)
            Member(own, 0).live()
        time.sleep(patience)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()


main(int(sys.argv[1]), int(sys.argv[2]))
