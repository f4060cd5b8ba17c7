"""Reaps children while the path of the code that does it cannot be read: argv[1] is the library that away.c makes.

That path has memory of its own, which is away for a moment, as a page is while another thread gets a copy of its own; or until
the call is through, and then for a moment again, in the same second and in the next one. A busy machine makes moments long: it
is tried until some were short.
"""

import ctypes
import json
import os
import sys
import time
from types import FunctionType

PAGE = 4096
A_MOMENT_NS = 60_000  # more than a few reads that fail take
SHORT_NS = 100_000  # less than the many take that are tried
FOR_GOOD_NS = -1
AWAY = ctypes.CDLL(sys.argv[1])
AWAY.reap_without.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long, ctypes.c_int]
AWAY.reap_without.restype = ctypes.c_long


def reap(pid, start, size, ns):
    return AWAY.reap_without(start, size, ns, pid)


def reaped(case, path, ns):
    """Say that a child was reaped; of a moment only if it was short. Returns whether it was said."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    code = reap.__code__.replace(co_filename=path)  # new each time, so that its path has to be read
    start = id(path) & -PAGE  # malloc maps memory for so long a text alone
    size = (id(path) + sys.getsizeof(path) - start) & -PAGE
    away_ns = FunctionType(code, globals())(pid, start, size, ns)
    assert away_ns >= 0
    if ns != FOR_GOOD_NS and away_ns > SHORT_NS:
        return False
    print(json.dumps({"case": case, "pid": pid}), flush=True)
    return True


def second():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) >> 30  # as the recorder counts them


def next_second():
    begun = second()
    while second() == begun:
        time.sleep(0.001)


def for_a_moment(path, case="for a moment"):
    # what was not touched for long takes longer
    return reaped("at once", path, 0) and reaped(case, path, A_MOMENT_NS)


def for_good(path):
    next_second()
    reaped("for good", path, FOR_GOOD_NS)
    for_a_moment(path, "in the same second")
    next_second()
    return for_a_moment(path, "in the next second")


def succeeded(work):
    """Whether it did in a process of its own: the recorder's patience is with each process."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if work("/srv/away/" + "a" * 50 * PAGE) else 3)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 3)
    return status == 0


def until(count, most, work):
    left = count
    for _ in range(most):
        left -= succeeded(work)
        if not left:
            return


if __name__ == "__main__":
    until(10, 500, for_a_moment)
    until(3, 15, for_good)
