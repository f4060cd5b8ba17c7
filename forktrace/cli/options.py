"""What several commands have in common: their options, the trace they read, and where they write."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import click

from forktrace.errors import UsageError
from forktrace.trace.words import printable

if TYPE_CHECKING:
    from rich.console import Console

    from forktrace.analysis.recording import Recording

_Command = TypeVar("_Command", bound=Callable[..., Any])

_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "ms": 0.001}
_COLOR: Final = "forktrace.color"  # where the option is kept
_PROCESS: Final = re.compile(r"#?[0-9]+")

trace_argument = click.argument("trace", required=False)
causes_option = click.option("--causes", metavar="FILE", help="Rules for causes that come before the built-in ones.")
json_option = click.option("--json", "as_json", is_flag=True, help="Write the same for programs, as JSON (docs/json.md).")
force_option = click.option("--force", is_flag=True, help="Overwrite the output file.")


def selection_options(command: _Command) -> _Command:
    """Add the options that select a part of the recording."""
    for option in (
        click.option("--until", metavar="TIME", help="Only what was before TIME."),
        click.option("--since", metavar="TIME", help="Only what was after TIME: 0.9s after the start, or a clock: 10:27:43.5."),
        click.option("--of", "--pid", "pid", metavar="PID", help="Only this process and its descendants; #ID of several."),
    ):
        command = option(command)
    return command


class Whole(click.IntRange):
    """A whole number within bounds, under the name that people have for it."""

    name = "whole number"


class Number(click.FloatRange):
    """A number within bounds, under the name that people have for it."""

    name = "number"


class Seconds(click.FloatRange):
    """A duration: `10` or `10s`, `1.5m`, `2h`, `500ms`; in seconds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number of seconds (click.ParamType)."""
        found = re.fullmatch(r"([0-9]{0,12}(?:\.[0-9]{1,12})?|[0-9]{1,12}\.)(ms|s|m|h|)", str(value))
        if not found or not found[1]:
            self.fail(f"{value!r} is not a duration such as 10s, 1.5m or 500ms.", param, ctx)
        return super().convert(float(found[1]) * _UNITS_S[found[2]], param, ctx)


class Size(click.IntRange):
    """A number of bytes, which may be written as 100M: K, M, G and T are powers of 1024."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number of bytes (click.ParamType)."""
        found = re.fullmatch(r"([0-9]{1,9})([KMGT]?)", value.upper())
        if not found:
            self.fail(f"{value!r} is not a size such as 100M.", param, ctx)
        return super().convert(int(found[1]) << 10 * " KMGT".index(found[2] or " "), param, ctx)


class Address(click.ParamType[Any]):
    """A port to listen at, or a host and a port: `9400`, `0.0.0.0:9400`, `[::]:9400`."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the host, by default the loopback, and the port (click.ParamType)."""
        found = re.fullmatch(r"(?:(\[[0-9a-fA-F:]+\]|[^:\[\]\s]+):)?([0-9]{1,5})", str(value))
        if not found or not 0 < int(found[2]) < 1 << 16:
            self.fail(f"{value!r} is not a port such as 9400, or 0.0.0.0:9400.", param, ctx)
        return (found[1] or "127.0.0.1").strip("[]"), int(found[2])


def color_option(command: _Command) -> _Command:
    """Add the option that says whether to colour, which `screen` obeys."""

    def keep(ctx: click.Context, param: click.Parameter, value: str) -> None:
        ctx.meta[_COLOR] = value

    choice = click.Choice(("auto", "always", "never"))
    words = "Colours: auto is on a terminal only, as NO_COLOR and CLICOLOR_FORCE ask [default: auto]."
    return click.option("--color", type=choice, default="auto", expose_value=False, callback=keep, help=words)(command)


def _colours() -> dict[str, Any]:
    """The colour options for rich: none where it decides itself, as on a terminal without NO_COLOR."""
    context = click.get_current_context(silent=True)
    wish = context.meta.get(_COLOR, "auto") if context else "auto"
    if wish == "auto" and os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0") and not os.environ.get("NO_COLOR"):
        wish = "always"
    told: dict[str, dict[str, Any]] = {
        "always": {"force_terminal": True, "color_system": "standard", "no_color": False},
        "never": {"no_color": True, "color_system": None},
    }
    return told.get(wish, {})


def screen(*, to_stderr: bool = False) -> Console:
    """Return the console on stdout; a reader that has left is no error of its own."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Screen(stderr=to_stderr, **_colours())


def check_terminal(output: str, what: str, instead: str) -> None:
    """Make sure that nothing binary goes to a terminal.

    Raises:
        UsageError: it would.
    """
    if output == "-" and sys.stdout.isatty():
        raise UsageError(f"{what} is not for a terminal", instead)


def trace_and_process(trace: str | None, pid: str | None) -> tuple[str | None, str | None]:
    """Return what the arguments `[TRACE] [PID]` mean: a lone `4711` or `#12` is a process of the newest trace."""
    if trace and pid is None and _PROCESS.fullmatch(trace) and not Path(trace).exists():
        return None, trace
    return trace, pid


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

    path = trace or newest()
    if os.path.isdir(path):
        recording, first, last = _read_rotation(path, since, until, causes)
    else:
        recording = read(path, causes)
        first, last = (None if text is None else recording.parse_time(text) for text in (since, until))
    if recording.cut and not says_cut:
        click.echo(f"forktrace: {recording.trace.path}: {recording.cut}", err=True)
    if first is not None and last is not None and last < first:
        raise UsageError(f"--until {until} is before --since {since}")
    if first is not None or last is not None:
        recording = recording.between(first, last)
    return recording.of(recording.find_process(pid)) if pid else recording


def _read_rotation(
    folder: str, since: str | None, until: str | None, causes: str | None
) -> tuple[Recording, int | None, int | None]:
    """Read those files of a rotation that the wanted stretch of time needs; return it too (CLOCK_BOOTTIME ns)."""
    from forktrace.analysis.recording import Recording
    from forktrace.analysis.selection import window
    from forktrace.trace import rotation

    found = rotation.find(folder)
    for remark in found.all_remarks():
        click.echo(f"forktrace: {printable(remark)}", err=True)
    first, last = window(found, since, until)
    return Recording(rotation.read_files(found, found.needed(first, last)), causes=causes), first, last


def newest() -> str:
    """Return the name of the newest trace in this directory, and say which it is."""
    found = sorted(filter(Path.is_file, Path().glob("*.arrows")), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise UsageError("no trace (*.arrows) in this directory", "name one, or make one: forktrace record -- COMMAND")
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
