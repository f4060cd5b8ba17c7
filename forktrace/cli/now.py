"""`forktrace ps`, `forktrace top`, and `why -p`: what runs now, or ran at a moment of a recording."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from typing import Final

import click

from forktrace.cli.options import Seconds, color_option, read, say, screen, trace_argument
from forktrace.errors import PermissionMissing, UsageError, package_missing

_WATCH_S: Final = 2.0
INQUIRY_S: Final = 10.0


@click.command()
@trace_argument
@click.option("--at", metavar="TIME", help="A moment of a recording: 0.9s after the start, or a clock: 10:27:43.5.")
@click.option("--json", "as_json", is_flag=True, help="Write the zombies of now as JSON; with --watch a line each time.")
@click.option(
    "--watch",
    metavar="[TIME]",
    is_flag=False,
    flag_value=_WATCH_S,
    type=Seconds(0.1, 86_400),
    help=f"Look again every 10s, 500ms, until Ctrl-C [{_WATCH_S:g}s].",
)
@color_option
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


@click.command()
@click.option("-p", "--pid", "pids", metavar="PID[,PID...]", multiple=True, help="Only these processes, and theirs.")
@click.option("--cgroup", metavar="PATH", help="Only the processes of this control group.")
def top(pids: tuple[str, ...], cgroup: str | None) -> None:
    """Show the parents of zombies now, on a live screen.

    A row for each: zombies now, how many came and went in the last minute, the oldest, the room that is left, forks a second,
    and where the parent stands. Enter says why, s or a click on a title sorts, / filters, space freezes, q quits.

    With -p or --cgroup, and the rights for it, these processes are recorded into memory: then zombies too short to be seen
    count, forks and the cause of the last reap are known, and w writes the last minute as a trace.

    \b
    Examples:
        forktrace top
        sudo forktrace top -p 4711
    """
    if importlib.util.find_spec("textual") is None:
        raise package_missing("textual", "top", "forktrace ps --watch needs no package")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal", "forktrace ps --watch writes to a pipe")
    if pids and cgroup:
        raise UsageError("-p or --cgroup?", "leave one of them out")
    from forktrace.launcher.running import choose, choose_cgroup
    from forktrace.service.session import show

    show(choose(pids) if pids else choose_cgroup(cgroup) if cgroup else None)


def _show_moment(trace: str | None, at: str) -> None:
    from forktrace.views.text import moment

    recording = read(trace, None, None, None)
    time_ns = recording.parse_time(at)
    say(f"forktrace: {moment.headline(recording, time_ns)}")
    for line in moment.lines(recording, time_ns):
        click.echo(line)
    for line in moment.doubts(recording, time_ns):
        say(f"forktrace: {line}")


def _show_zombies(as_json: bool, watch_s: float | None) -> None:
    """Print what there is now, once or again and again; on a terminal in place."""
    from forktrace.now.zombies import Watcher
    from forktrace.views.text import ps as view

    watcher, console = Watcher(), screen()
    if as_json:
        click.echo(view.as_json(watcher.look(), one_line=watch_s is not None))
    elif watch_s is not None and sys.stdout.isatty() and not console.is_dumb_terminal:
        view.show_live(console, watcher.look, lambda: time.sleep(watch_s))
        return
    else:
        seen = watcher.look()
        (view.show if watch_s is None else view.show_growth)(console, seen)
        if seen.zombies and watch_s is None:
            say("forktrace: next: forktrace ps --watch, for how fast they grow")
            say("  or record the program from its start, for the lines that fork them: forktrace record -- COMMAND")
    while watch_s is not None:
        time.sleep(watch_s)
        if as_json:
            click.echo(view.as_json(watcher.look(), one_line=True))
        else:
            console.print()
            view.show_growth(console, watcher.look())


def inquire(pid: int, seconds: float, causes: str | None) -> None:
    """Print what is known of a running process at once, and after `seconds` of watching what that has added."""
    from forktrace.now.inquiry import Inquirer, watch
    from forktrace.views.text import inquiry as view

    console = screen()
    with Inquirer(pid) as inquirer:
        first = inquirer.look()
        if first is None:
            raise UsageError(f"process {pid} has just ended")
        view.show(console, first)
        if first.parent and seconds:
            say(f"forktrace: watching for {seconds:g} s whether it starts or waits for children (Ctrl-C: no longer)")
            watched = watch(inquirer, seconds)
            view.answer(console, first, watched, read(watched.trace, None, None, None, causes) if watched.trace else None)
            if watched.missing:
                say(f"forktrace: its forks and waits were not seen: {watched.missing}")
    if first.denied:
        more = "it takes CAP_SYS_PTRACE" if os.geteuid() == 0 else f'sudo "$(command -v forktrace)" why -p {pid}'
        raise PermissionMissing("only its own user and root may see where its threads are", more)
