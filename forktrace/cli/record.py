"""`forktrace record`."""

from __future__ import annotations

from typing import Final

import click

from forktrace.cli.options import Seconds, Size, check_terminal, force_option
from forktrace.cli.process import RECORD_FAILED, end_as
from forktrace.errors import CommandError, ForktraceError, UsageError, in_words

_LEAST_SIZE: Final = 64 << 10  # of a trace


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-o", "--output", metavar="FILE", help="The trace file, - for stdout [default: forktrace-NAME.PID.arrows].")
@force_option
@click.option(
    "-d", "--duration", metavar="TIME", type=Seconds(0, 1e9, min_open=True), help="Stop recording after 10s, 1.5m, 2h."
)
@click.option(
    "--max-size", metavar="SIZE", type=Size(_LEAST_SIZE), help="Stop recording before the trace exceeds SIZE: 100M, 2G."
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
    from forktrace.launcher.session import RecordOptions

    options = RecordOptions(
        output, force, duration, quiet, stacks=not no_stacks, source=not no_source, own=own, max_size=max_size
    )
    try:
        if sum(map(bool, (command, pids, cgroup))) != 1:
            raise UsageError("record needs one of: a command, -p PID, --cgroup PATH", "forktrace record --help")
        check_terminal(output or "", "a trace", "forktrace record -o FILE.arrows -- COMMAND")
        if command:
            from forktrace.launcher.command import record

            end_as(record(command, options, user))
        if user:
            raise UsageError("--user is for a command: what runs already has its user", "leave it out")
        from forktrace.launcher.running import attach, choose, choose_cgroup

        attach(choose(pids) if pids else choose_cgroup(str(cgroup)), options)
    except CommandError:
        raise
    except ForktraceError as error:
        error.exit_status = RECORD_FAILED
        raise
    except OSError as error:
        from forktrace.system import resource_limits

        failed = ForktraceError(f"this cannot be recorded: {in_words(error)}", resource_limits.hint(error))
        failed.exit_status = RECORD_FAILED
        raise failed from error
