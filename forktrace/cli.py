"""The commands. Each reads its options, calls one library function and prints: data on stdout, words on stderr.

What a command needs is imported in its body, so that `forktrace --help` stays fast and works where a dependency is missing.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn, TypeVar

import click

from forktrace import __version__
from forktrace.errors import CommandError, ForktraceError, PermissionMissing, UsageError, in_words
from forktrace.scenes import SCENES
from forktrace.trace.words import printable

if TYPE_CHECKING:
    from rich.console import Console

    from forktrace.analysis.recording import Recording

_RECORD_FAILED: Final = 125  # as env and timeout end when they themselves fail
_READER_LEFT: Final = 141  # 128 + SIGPIPE, as a shell sees the end of other programs whose reader has left
_TABLES: Final = (
    *("lifecycles", "events", "starts", "waits", "zombie_count", "branches", "signals", "failed_forks", "stolen", "orphans"),
)
_TABLE_FORMATS: Final = ("csv", "json", "parquet")
_WATCH_S: Final = 2.0
_LEAST_SIZE: Final = 64 << 10  # of a trace
_INQUIRY_S: Final = 10.0
_PROCESS: Final = re.compile(r"#?[0-9]+")
_SCENES: Final = tuple(each.name for each in SCENES)

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


class _ReaderLeft(Exception):
    """Nobody reads stdout any more (`| head`)."""


class _Group(click.Group):
    """The commands; the end of a reader is known from other failures, which click does not tell apart."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderLeft from None


class _Seconds(click.FloatRange):
    """A number of seconds; not `nan`, which is in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


class _Size(click.IntRange):
    """A number of bytes, which may be written as 100M: K, M, G and T are powers of 1024."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = re.fullmatch(r"([0-9]{1,9})([KMGT]?)", value.upper())
        if not found:
            self.fail(f"{value!r} is not a size such as 100M.", param, ctx)
        return super().convert(int(found[1]) << 10 * " KMGT".index(found[2] or " "), param, ctx)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="forktrace", message="%(prog)s %(version)s")
def cli() -> None:
    """Show every zombie process of a program: who forked it, how long it stayed, and who reaped it.

    \b
    Examples:
        forktrace doctor                            is all here that recording needs?
        forktrace record -- python consumer.py      asks sudo for the recorder alone
        forktrace report                            the newest recording here, in words
        forktrace why 4711                          one process, explained
        forktrace timeline -o consumer.png
        forktrace ps --watch                        the zombies of this machine, now
    """


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option("-o", "--output", metavar="FILE", help="The trace file, - for stdout [default: forktrace-NAME.PID.arrows].")
@force_option
@click.option("-d", "--duration", metavar="SEC", type=_Seconds(0, 1e9, min_open=True), help="Stop recording after SEC.")
@click.option(
    "--max-size", metavar="SIZE", type=_Size(_LEAST_SIZE), help="Stop recording before the trace exceeds SIZE: 100M, 2G."
)
@click.option("-q", "--quiet", is_flag=True, help="No words but those of errors.")
@click.option("--user", metavar="USER", help="As root, run the command as USER, a name or a number [default: you].")
@click.option("--no-stacks", is_flag=True, help="Record no Python stacks.")
@click.option("--no-source", is_flag=True, help="Leave the text of source lines out of the trace.")
@click.option(
    "--own", metavar="PREFIX", multiple=True, help="Files below PREFIX are your code too, wherever they are installed."
)
@click.option(
    "-p", "--pid", "pids", metavar="PID[,PID...]", multiple=True, help="Record these processes, which run already, and theirs."
)
@click.option("--cgroup", metavar="PATH", help="Record the processes of this control group, those that come to it included.")
@click.argument("command", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED)
def record(
    output: str | None,
    force: bool,
    duration: float | None,
    max_size: int | None,
    quiet: bool,
    user: str | None,
    no_stacks: bool,
    no_source: bool,
    own: tuple[str, ...],
    pids: tuple[str, ...],
    cgroup: str | None,
    command: tuple[str, ...],
) -> None:
    """Record a command's processes, or processes that run already.

    Ends as the command ended, with the same status or signal; after -d or at --max-size with 0, while the command runs on.
    Its own failures are 125, and 126 or 127 for a command that cannot be executed or found. With -p and --cgroup the
    processes are never signalled and nothing waits for them: Ctrl-C, SIGTERM, -d and --max-size end the recording, with 0.

    \b
    Examples:
        forktrace record -- python consumer.py
        forktrace record -o run.arrows -d 60 -- make test
        forktrace record --max-size 100M -- python consumer.py
        forktrace record -d 10 -p "$(pgrep -d, -f consumer.py)"
        forktrace record --cgroup /system.slice/consumer.service
    """
    shared: dict[str, Any] = {"output": output, "force": force, "duration_s": duration, "quiet": quiet}
    shared |= {"stacks": not no_stacks, "source": not no_source, "own": own, "max_size": max_size}
    try:
        if sum(map(bool, (command, pids, cgroup))) != 1:
            raise UsageError("record needs one of: a command, -p PID, --cgroup PATH", "forktrace record --help")
        if command:
            from forktrace.live import launch

            _end_as(launch.record(command, **shared, user=user))
        if user:
            raise UsageError("--user is for a command: what runs already has its user", "leave it out")
        from forktrace.live import attach

        attach.attach(attach.choose(pids) if pids else attach.choose_cgroup(str(cgroup)), **shared)
    except CommandError:
        raise
    except ForktraceError as error:
        error.exit_status = _RECORD_FAILED
        raise
    except OSError as error:
        from forktrace.kernel import limits

        failed = ForktraceError(f"this cannot be recorded: {in_words(error)}", limits.hint(error))
        failed.exit_status = _RECORD_FAILED
        raise failed from error


@cli.command()
@trace_argument
@selection_options
@causes_option
def report(trace: str | None, pid: str | None, since: str | None, until: str | None, causes: str | None) -> None:
    """Say what happened, in words.

    The longest zombies, who reaped them with which call, what was never reaped, failed forks, and what was lost.

    \b
    Examples:
        forktrace report
        forktrace report run.arrows --pid 4711
    """
    from forktrace.views.report import report

    report(_read(trace, pid, since, until, causes, says_cut=True), _console())


@cli.command()
@trace_argument
@click.argument("pid", required=False)
@causes_option
@click.option("-p", "--pid", "running", metavar="PID", type=click.IntRange(1), help="A process that runs now, or a zombie.")
@click.option("-d", "--duration", metavar="SEC", type=_Seconds(0, 1e6), help=f"With -p: answer after SEC [{_INQUIRY_S:g}].")
def why(trace: str | None, pid: str | None, causes: str | None, running: int | None, duration: float | None) -> None:
    """Explain one process, recorded or running.

    Of a recording: who forked it at which line, how it ended, how long it was a zombie, who reaped it and why not earlier,
    and what the program could do instead. PID may be '#ID' when several had the number; without PID it is the longest zombie.

    With -p PID, of a process that runs now: its zombies, where each of its threads is and what it waits for, then what it
    does within SEC: whether it starts or waits for children. Of a zombie it is the parent. The process is neither stopped
    nor signalled.

    \b
    Examples:
        forktrace why
        forktrace why run.arrows 4711
        sudo forktrace why -p 4711
    """
    if running is not None:
        if trace is not None:
            raise UsageError("a recording, or -p PID that runs now?", "leave one of them out")
        _inquire(running, _INQUIRY_S if duration is None else duration, causes)
        return
    if duration is not None:
        raise UsageError("-d is for -p PID", "leave it out")

    from forktrace.views.why import why

    if trace and pid is None and _PROCESS.fullmatch(trace) and not Path(trace).exists():
        trace, pid = None, trace
    recording = _read(trace, None, None, None, causes)
    why(recording, recording.find_process(pid) if pid else None, _console())


def _inquire(pid: int, seconds: float, causes: str | None) -> None:
    """Print what is known of a running process at once, and after `seconds` of watching what that has added."""
    from forktrace.live.inquiry import Inquirer, watch
    from forktrace.views import inquiry as view

    console = _console()
    with Inquirer(pid) as inquirer:
        first = inquirer.look()
        if first is None:
            raise UsageError(f"process {pid} has just ended")
        view.show(console, first)
        if first.parent and seconds:
            _say(f"forktrace: watching for {seconds:g} s whether it starts or waits for children (Ctrl-C: no longer)")
            watched = watch(inquirer, seconds)
            view.answer(console, first, watched, _read(watched.trace, None, None, None, causes) if watched.trace else None)
            if watched.missing:
                _say(f"forktrace: its forks and waits were not seen: {watched.missing}")
    if first.denied:
        more = "it takes CAP_SYS_PTRACE" if os.geteuid() == 0 else f'sudo "$(command -v forktrace)" why -p {pid}'
        raise PermissionMissing("where its threads are is not for you to see", more)


@cli.command()
@trace_argument
@click.option("-o", "--output", metavar="FILE", help="A .png, .svg or .pdf file, - for a PNG on stdout [default: TRACE.png].")
@force_option
@selection_options
def timeline(trace: str | None, output: str | None, force: bool, pid: str | None, since: str | None, until: str | None) -> None:
    """Draw a bar for each process.

    Running and zombie time are told apart, and starts are lines that show which zombies they cleared.

    \b
    Examples:
        forktrace timeline
        forktrace timeline run.arrows -o run.svg --since 2s --until 5s
    """
    from forktrace.views.timeline import format_of, write_timeline

    trace = trace or _newest()
    output = output or f"{Path(trace).stem}.png"
    form = "png" if output == "-" else format_of(output)
    recording = _read(trace, pid, since, until)
    with _sink(output, force) as sink:
        write_timeline(recording, sink, form)
    if output != "-":
        click.echo(f"wrote {output}", err=True)


@cli.command()
@trace_argument
@click.option("--at", metavar="TIME", help="A moment of a recording: 0.9s after the start, or a clock: 10:27:43.5.")
@click.option("--json", "as_json", is_flag=True, help="Write the zombies of now as JSON; with --watch a line each time.")
@click.option(
    "--watch",
    metavar="[SECONDS]",
    is_flag=False,
    flag_value=_WATCH_S,
    type=_Seconds(0.1, 86_400),
    help=f"Look again every SECONDS, until Ctrl-C [{_WATCH_S:g}].",
)
def ps(trace: str | None, at: str | None, as_json: bool, watch: float | None) -> None:
    """Show zombies now, or a moment of a recording.

    Without a trace: the zombies of this machine by parent, their ages, and how many more processes the limits allow. Reads
    /proc alone, so any user may ask. With a trace and --at: what ps would have shown at that moment.

    \b
    Examples:
        forktrace ps
        forktrace ps --watch
        forktrace ps run.arrows --at 2.5s
    """
    if trace is None and at is None:
        _show_zombies(as_json, watch)
        return
    if as_json or watch is not None:
        raise UsageError("--json and --watch are for the zombies of now", "leave TRACE and --at out")
    if at is None:
        raise UsageError(f"which moment of {trace}?", "say --at TIME; without a trace, forktrace ps shows the zombies of now")
    _show_moment(trace, at)


def _show_moment(trace: str | None, at: str) -> None:
    from forktrace.views import moment

    recording = _read(trace, None, None, None)
    time_ns = recording.parse_time(at)
    _say(f"forktrace: {moment.headline(recording, time_ns)}")
    for line in moment.lines(recording, time_ns):
        click.echo(line)
    for line in moment.doubts(recording, time_ns):
        _say(f"forktrace: {line}")


def _show_zombies(as_json: bool, watch_s: float | None) -> None:
    """Print what there is now, once or again and again; on a terminal in place."""
    from forktrace.live.zombies import Watcher
    from forktrace.views import ps as view

    watcher, console = Watcher(), _console()
    if as_json:
        click.echo(view.as_json(watcher.look(), one_line=watch_s is not None))
    elif watch_s is not None and console.is_terminal and not console.is_dumb_terminal:
        view.show_live(console, watcher.look, lambda: time.sleep(watch_s))
        return
    else:
        seen = watcher.look()
        view.show(console, seen, clock=watch_s is not None)
        if seen.zombies and watch_s is None:
            _say("forktrace: next: forktrace ps --watch, for how fast they grow")
            _say("  or record the program from its start, for the lines that fork them: forktrace record -- COMMAND")
    while watch_s is not None:
        time.sleep(watch_s)
        if as_json:
            click.echo(view.as_json(watcher.look(), one_line=True))
        else:
            console.print()
            view.show(console, watcher.look(), clock=True)


@cli.command()
@trace_argument
@selection_options
def events(trace: str | None, pid: str | None, since: str | None, until: str | None) -> None:
    """Print every event, one line each.

    \b
    Examples:
        forktrace events
        forktrace events run.arrows --pid 4711 | grep reap
    """
    from forktrace.views.events import lines

    for line in lines(_read(trace, pid, since, until)):
        click.echo(line)


@cli.command()
@trace_argument
@click.option("-o", "--output", metavar="FILE", default="-", help="A .csv, .json or .parquet file [default: stdout].")
@click.option("--to", "to", type=click.Choice(_TABLE_FORMATS), help="The format [default: by the file's name; csv on stdout].")
@click.option("--table", type=click.Choice(_TABLES), metavar="NAME", default="lifecycles", help=f"One of {', '.join(_TABLES)}.")
@force_option
@selection_options
@causes_option
def export(
    trace: str | None,
    output: str,
    to: str | None,
    table: str,
    force: bool,
    pid: str | None,
    since: str | None,
    until: str | None,
    causes: str | None,
) -> None:
    """Write a table of the recording for other programs.

    \b
    Examples:
        forktrace export -o zombies.csv
        forktrace export run.arrows --table events --to json | jq .
    """
    from forktrace.views.export import format_of, write

    form = to or ("csv" if output == "-" else format_of(output))
    if form == "parquet" and output == "-" and sys.stdout.isatty():
        raise UsageError("parquet is not for a terminal", "forktrace export -o FILE.parquet")
    recording = _read(trace, pid, since, until, causes)
    with _sink(output, force) as sink:
        write(recording, table, form, sink)
    if output != "-":
        click.echo(f"wrote {output}", err=True)


@cli.command()
@click.argument("scene", metavar="[SCENE]", type=click.Choice(_SCENES), required=False)
@click.option("--list", "listing", is_flag=True, help="Name the scenes, what they show and need, and end.")
@click.option("--speed", type=click.FloatRange(0.1, 10), default=1.0, help="Run the scene X times as fast.", metavar="X")
@click.option("--bootstrap-servers", metavar="HOST:PORT", help="kafka: a broker that runs already [default: one of its own].")
@click.option("--burst", metavar="N", type=click.IntRange(1, 300), help="kafka: messages of the burst [default: 5].")
@click.option("-o", "--output", metavar="NAME", help="Write NAME.arrows and NAME.png [default: forktrace-SCENE.PID].")
@force_option
def demo(
    scene: str | None,
    listing: bool,
    speed: float,
    bootstrap_servers: str | None,
    burst: int | None,
    output: str | None,
    force: bool,
) -> None:
    """Record a built-in scene and show the result.

    Prints its report and draws its timeline. Without SCENE it is kafka, a consumer that reads from a broker of its own, where
    kafka-python and confluent-kafka are installed, else start.

    \b
    Examples:
        forktrace demo
        forktrace demo --list
        forktrace demo kafka --speed 2 -o consumer
    """
    from forktrace.live import demo
    from forktrace.scenes import scene as scene_of

    if listing:
        for each in SCENES:
            needs = f"; needs {' and '.join(each.packages)}" if each.packages else ""
            click.echo(f"{each.name:8}  {each.summary}{needs}")
        return
    chosen = scene_of(scene) if scene else demo.default_scene()
    name = re.sub(r"\.(arrows|png)$", "", output or f"forktrace-{chosen.name}.{os.getpid()}")
    trace, picture = f"{name}.arrows", f"{name}.png"
    servers = ["--bootstrap-servers", bootstrap_servers] if bootstrap_servers else []
    feeding = [*servers, *(["--burst", str(burst)] if burst else [])]
    demo.check_feeder(chosen, feeding)
    demo.check_modules(chosen)
    if not force:
        demo.check_absent(Path(trace), Path(picture))
    status = demo.record_scene(chosen, Path(trace), speed=speed, force=force, say=_say, feeding=feeding)
    if status:
        sys.exit(status if status > 0 else 128 - status)
    _show(trace, picture, force)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _show(trace: str, picture: str, force: bool) -> None:
    """Print the report of a trace and draw its timeline; under sudo with the rights of its caller, who owns both."""
    from forktrace.analysis import recording  # noqa: F401 - with our own rights, like the two below
    from forktrace.live.user import as_user, invoking_user
    from forktrace.views.report import report
    from forktrace.views.timeline import write_timeline

    who = invoking_user()
    recorded = as_user(who, partial(_read, trace, None, None, None, says_cut=True))
    report(recorded, _console())
    with _sink(picture, force, partial(as_user, who)) as sink:
        write_timeline(recorded, sink, "png")
    _say(f"wrote {trace} and {picture}; next: forktrace why {trace}")


@cli.command()
@click.option("--sudoers", is_flag=True, help="Print the rule by which you may record without a password, and nothing else.")
def doctor(sudoers: bool) -> None:
    """Check what recording needs of this machine, and try it.

    One line for each requirement; a failure names the command that mends it. With the rights to record the probes are loaded
    one by one, and a child is recorded from its fork to its reap. The last line is the verdict.

    \b
    Examples:
        forktrace doctor
        sudo forktrace doctor
        forktrace doctor --sudoers | sudo tee /etc/sudoers.d/forktrace
    """
    if sudoers:
        from forktrace.live.elevation import sudoers_rule
        from forktrace.live.user import invoking_user

        click.echo(sudoers_rule(invoking_user().name), nl=False)
        return
    from forktrace.errors import MachineLacks
    from forktrace.live.doctor import examine, try_out, verdict

    findings = []
    for look in (examine, try_out):
        for finding in look():
            findings.append(finding)
            click.echo(finding.line())
        if not all(finding.good for finding in findings):
            break
    click.echo(verdict(findings))
    if not all(finding.good for finding in findings):
        sys.exit(MachineLacks.exit_status)


def _console() -> Console:
    """Return the screen, or what stands in its place; one whose reader has left is no error of its own."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Screen()


def _read(
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

    recording = read(trace or _newest(), causes)
    if recording.cut and not says_cut:
        click.echo(f"forktrace: {recording.trace.path}: {recording.cut}", err=True)
    if since is not None or until is not None:
        first = None if since is None else recording.parse_time(since)
        last = None if until is None else recording.parse_time(until)
        if first is not None and last is not None and last < first:
            raise UsageError(f"--until {until} is before --since {since}")
        recording = recording.between(first, last)
    return recording.of(recording.find_process(pid)) if pid else recording


def _newest() -> str:
    found = sorted(Path().glob("forktrace-*.arrows"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise UsageError("no forktrace-*.arrows in this directory", "name a trace, or make one: forktrace record -- COMMAND")
    click.echo(f"forktrace: reading {found[-1]}", err=True)
    return str(found[-1])


@contextlib.contextmanager
def _sink(output: str, force: bool, call: Callable[..., Any] = lambda do, *told: do(*told)) -> Iterator[BinaryIO]:
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


def _end_as(wait_status: int) -> NoReturn:
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


_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h


def _flush() -> None:
    """Write what is left; where nobody takes it any more, Python must not find it at its end: it would end with 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main() -> NoReturn:
    """Run the command line and end with the status of DESIGN.md, section 6. Errors of users are one line, no traceback."""
    _open_standard_streams()
    try:
        status = cli.main(prog_name="forktrace", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        status = _complain_of_usage(error)
    except click.Abort:
        status = 130  # 128 + SIGINT
    except (ForktraceError, _ReaderLeft, OSError) as error:
        _let_go_of_stdout()  # as long as there is the error: what pandas has put around stdout goes with it
        status = _complain_of(error)
    sys.exit(status)


def _open_standard_streams() -> None:
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


def _let_go_of_stdout() -> None:
    """Where stdout takes no more (`| head`, a full disk): else Python complains when it closes it, and 3.14 ends with 120."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain_of(error: ForktraceError | _ReaderLeft | OSError) -> int:
    if isinstance(error, (_ReaderLeft, BrokenPipeError)) or isinstance(error.__cause__, BrokenPipeError):
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


def _complain_of_usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return UsageError.exit_status
    path = context.command_path if context else "forktrace"
    status = _RECORD_FAILED if path.endswith(" record") else UsageError.exit_status
    return _complain(error.format_message(), f"{path} --help shows how it is used", status)
