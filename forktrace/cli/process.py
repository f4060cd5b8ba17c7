"""The process of a command: its standard streams, its complaints, and how it ends."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, Final, NoReturn

import click

from forktrace.errors import ForktraceError, PermissionMissing, UsageError, in_words
from forktrace.trace.words import printable

_READER_LEFT: Final = 141  # 128 + SIGPIPE, as a shell sees the end of other programs whose reader has left
RECORD_FAILED: Final = 125  # as env and timeout end when they themselves fail
_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


class ReaderLeft(Exception):
    """Nobody reads stdout any more (`| head`)."""


class Group(click.Group):
    """The commands; failures say what click leaves out: which command it was, and that the reader has left."""

    def invoke(self, ctx: click.Context) -> Any:
        """Call the command (click.Command)."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderLeft from None
        except click.UsageError as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            if command and error.ctx is None:  # as of an option without its value
                error.ctx = click.Context(command, ctx, command.name)
            raise


def end_as(wait_status: int) -> NoReturn:
    """End this process as the recorded command ended: with its status, or by its signal (and no core file of our own)."""
    import ctypes
    import signal

    from forktrace.trace import waitstatus

    ending = waitstatus.decode(wait_status)
    _flush()
    if ending.term_signal is None:
        sys.exit(ending.exit_code)
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if ending.term_signal not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(ending.term_signal, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [ending.term_signal])
    os.kill(os.getpid(), ending.term_signal)
    sys.exit(128 + ending.term_signal)  # the init of a PID namespace survives its own signals


def _flush() -> None:
    """Write what is left; drop it where nobody reads any more: else Python would end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, lest a file of ours become one; what we start finds it closed still."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - it stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def let_go_of_stdout() -> None:
    """Replace a stdout that takes no more (`| head`, a full disk): else Python complains at its end, and 3.14 ends with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain_of(error: ForktraceError | ReaderLeft | OSError) -> int:
    """Say in one line what failed, in a second what to do, and return the exit status."""
    if isinstance(error, (ReaderLeft, BrokenPipeError)) or isinstance(error.__cause__, BrokenPipeError):
        return _READER_LEFT
    if isinstance(error, ForktraceError):
        return _complain(str(error), error.hint, error.exit_status)
    kind = PermissionMissing if isinstance(error, PermissionError) else ForktraceError
    return _complain(in_words(error), "", kind.exit_status)


def _complain(message: str, hint: str, status: int) -> int:
    click.echo(f"forktrace: {printable(message)}", err=True)
    if hint:
        click.echo(f"  {hint}", err=True)
    return status


def complain_of_usage(error: click.ClickException) -> int:
    """Say what is wrong with the command line, and return the exit status."""
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return UsageError.exit_status
    path = context.command_path if context else "forktrace"
    status = RECORD_FAILED if path.endswith(" record") else UsageError.exit_status
    return _complain(error.format_message(), f"{path} --help shows how it is used", status)
