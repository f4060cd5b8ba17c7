"""Decodes the wait status that wait4 fills in (wait(2): the W* macros; bit 7 of a killed status is the core dump)."""

from __future__ import annotations

from typing import NamedTuple


class Ending(NamedTuple):
    """How a process ended: an exit code or a signal number, never both."""

    exit_code: int | None
    term_signal: int | None
    core_dumped: bool


def decode(status: int) -> Ending:
    """Return the ending that `status` encodes.

    Raises:
        ValueError: the status is that of a stop or a continue, or no wait status at all.
    """
    number = status & 0x7F
    if status < 0 or status > 0xFFFF or number == 0x7F:
        raise ValueError(f"{status:#x} is not the wait status of a process that ended")
    if number:
        return Ending(None, number, bool(status & 0x80))
    return Ending(status >> 8, None, False)


def signal_name(number: int) -> str:
    """Return `SIGTERM` for 15; real-time signals count from SIGRTMIN (`SIGRTMIN+3`), unknown numbers are `SIG99`.

    The numbers are those of Linux on x86-64 and aarch64, wherever this runs.
    """
    if 1 <= number <= len(_NAMES):
        return _NAMES[number - 1]
    if 34 <= number <= 64:
        return f"SIGRTMIN+{number - 34}" if number > 34 else "SIGRTMIN"
    return f"SIG{number}"


_NAMES = (
    "SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM "
    "SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO "
    "SIGPWR SIGSYS"
).split()
