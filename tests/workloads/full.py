"""A consumer that forks a child per message and waits for none: its zombies fill RLIMIT_NPROC, and forks fail.

    python full.py [MESSAGES] [LIMIT]

Says each number that it forks and each fork that fails; then it waits for all, and forks once more.
"""

import errno
import os
import resource
import sys
import time

PAUSE_S = 0.02
MESSAGES, LIMIT = [int(word) for word in sys.argv[1:]] or [30, 20]


def take(message):
    """Hand a message to a child; say so."""
    try:
        pid = os.fork()
    except OSError as error:
        print(message, errno.errorcode[error.errno], flush=True)
        time.sleep(PAUSE_S)
        return
    if pid == 0:
        time.sleep(0.005)
        os._exit(0)
    print(message, pid, flush=True)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has ended; it stays
    time.sleep(PAUSE_S)


def main():
    resource.setrlimit(resource.RLIMIT_NPROC, (LIMIT, LIMIT))
    for message in range(MESSAGES):
        take(message)
    try:
        while os.wait():
            pass
    except ChildProcessError:
        take(MESSAGES)
        os.wait()


main()
