"""What several commands have in common: their options, the trace they read, and where they write."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from forktrace.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from forktrace.analysis.recording import Recording

_Command = TypeVar("_Command", bound=Callable[..., Any])

trace_argument = click.argument("trace", required=False)
causes_option = click.option("--causes", metavar="FILE", help="Rules for causes that come before the built-in ones.")
force_option = click.option("--force", is_flag=True, help="Overwrite the output file.")


def selection_options(command: _Command) -> _Command:
    """Add the options that select a part of the recording."""
    for option in (
        click.option("--until", metavar="TIME", help="Only what was before TIME."),
        click.option("--since", metavar="TIME", help="Only what was after TIME: 0.9s after the start, or a clock: 10:27:43.5."),
        click.option("--pid", metavar="PID", help="Only this process and its descendants; #ID when several had the number."),
    ):
        command = option(command)
    return command


class Seconds(click.FloatRange):
    """A number of seconds; not `nan`, which is in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number (click.ParamType)."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


class Size(click.IntRange):
    """A number of bytes, which may be written as 100M: K, M, G and T are powers of 1024."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number of bytes (click.ParamType)."""
        found = re.fullmatch(r"([0-9]{1,9})([KMGT]?)", value.upper())
        if not found:
            self.fail(f"{value!r} is not a size such as 100M.", param, ctx)
        return super().convert(int(found[1]) << 10 * " KMGT".index(found[2] or " "), param, ctx)


def screen(*, to_stderr: bool = False) -> Console:
    """Return the screen, or what stands in its place; one whose reader has left is no error of its own."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Screen(stderr=to_stderr)


def read(
    trace: str | None,
    pid: str | None,
    since: str | None,
    until: str | None,
    causes: str | None = None,
    *,
    says_cut: bool = False,
) -> Recording:
    """Return the selected part of the trace, or of the newest one here; a cut is told unless the command says it by itself."""
    from forktrace.analysis.recording import read

    recording = read(trace or newest(), causes)
    if recording.cut and not says_cut:
        click.echo(f"forktrace: {recording.trace.path}: {recording.cut}", err=True)
    if since is not None or until is not None:
        first = None if since is None else recording.parse_time(since)
        last = None if until is None else recording.parse_time(until)
        if first is not None and last is not None and last < first:
            raise UsageError(f"--until {until} is before --since {since}")
        recording = recording.between(first, last)
    return recording.of(recording.find_process(pid)) if pid else recording


def newest() -> str:
    """Return the name of the newest trace in this directory, and say which it is."""
    found = sorted(Path().glob("forktrace-*.arrows"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise UsageError("no forktrace-*.arrows in this directory", "name a trace, or make one: forktrace record -- COMMAND")
    click.echo(f"forktrace: reading {found[-1]}", err=True)
    return str(found[-1])


@contextlib.contextmanager
def opened(output: str, force: bool, call: Callable[..., Any] = lambda do, *told: do(*told)) -> Iterator[BinaryIO]:
    """Open a new file for what a command writes; it is removed again when that fails. `-` is stdout. `call` opens, removes."""
    if output == "-":
        yield sys.stdout.buffer
        return
    try:
        file = call(open, output, "wb" if force else "xb")
    except FileExistsError:
        raise UsageError(f"{output} exists", "name another with -o, or overwrite it with --force") from None
    try:
        with file:
            yield file
    except BaseException:
        with contextlib.suppress(OSError):
            call(os.unlink, output)
        raise


def say(line: str) -> None:
    """Write a line of words, to stderr."""
    click.echo(line, err=True)
