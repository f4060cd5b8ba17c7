"""The resource limits of a process (getrlimit(2)): the recorder inherits those of its user, which may be too small for it."""

from __future__ import annotations

import contextlib
import errno
import resource
from typing import Final

# What a recorder needs of each, and the option of ulimit that sets it.
_NEEDED: Final = {
    "RLIMIT_NPROC": (resource.RLIMIT_NPROC, resource.RLIM_INFINITY, "-u"),
    "RLIMIT_NOFILE": (resource.RLIMIT_NOFILE, 1024, "-n"),
    "RLIMIT_CPU": (resource.RLIMIT_CPU, resource.RLIM_INFINITY, "-t"),
    "RLIMIT_AS": (resource.RLIMIT_AS, resource.RLIM_INFINITY, "-v"),
    "RLIMIT_DATA": (resource.RLIMIT_DATA, resource.RLIM_INFINITY, "-d"),
    "RLIMIT_RTPRIO": (resource.RLIMIT_RTPRIO, 1, "-r"),  # to read maps without being preempted (kernel/bpf_maps.py)
}
_BY_ERROR: Final = {
    errno.EMFILE: ("RLIMIT_NOFILE",),
    errno.ENOMEM: ("RLIMIT_AS", "RLIMIT_DATA"),
}
_FULL: Final = "no process can be started here: pids.max of the control group is met, or RLIMIT_NPROC (ulimit -u)"


def raise_all() -> None:
    """Raise each limit to what a recorder needs, as far as this process may."""
    for number, wanted, _ in _NEEDED.values():
        soft, hard = resource.getrlimit(number)
        if _is_enough(soft, wanted):
            continue
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(number, (wanted, wanted if not _is_enough(hard, wanted) else hard))
            continue
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(number, (hard, hard))


def hint(error: OSError | MemoryError) -> str:
    """Return which limit may be the reason of an error, and what sets it; "": no limit is."""
    number = errno.ENOMEM if isinstance(error, MemoryError) else error.errno or 0
    for name in _BY_ERROR.get(number, ()):
        limit, wanted, option = _NEEDED[name]
        soft, _ = resource.getrlimit(limit)
        if not _is_enough(soft, wanted):
            return f"{name} is {soft:,} here: ulimit {option} sets it"
    return _FULL if number == errno.EAGAIN else ""


def _is_enough(has: int, wanted: int) -> bool:
    return has == resource.RLIM_INFINITY or (wanted != resource.RLIM_INFINITY and has >= wanted)
