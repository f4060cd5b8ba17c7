"""`forktrace record`."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NoReturn

import click

from forktrace.cli.gate import judged, limit_options, policy_of, show
from forktrace.cli.options import Address, Seconds, Size, Whole, check_terminal, force_option
from forktrace.cli.process import RECORD_FAILED, end_as
from forktrace.errors import CommandError, ForktraceError, UsageError, in_words, package_missing

if TYPE_CHECKING:
    from forktrace.analysis.gate.policy import Policy
    from forktrace.launcher.companion import Companion, Run
    from forktrace.launcher.options import RotationPlan
    from forktrace.system.users import User

_LEAST_SIZE: Final = 64 << 10  # of a trace
_LAST_EXPORT_S: Final = 60.0  # for a file of many processes
_ROTATE: Final = "as in --rotate 1h, --rotate 30m or --rotate 100M"


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-o", "--output", metavar="FILE", help="The trace file, - for stdout [default: forktrace-NAME.PID.arrows].")
@force_option
@click.option(
    "-d", "--duration", metavar="TIME", type=Seconds(0, 1e9, min_open=True), help="Stop recording after 10s, 1.5m, 2h."
)
@click.option(
    "--max-size", metavar="SIZE", type=Size(_LEAST_SIZE), help="Stop recording before the trace exceeds SIZE: 100M, 2G."
)
@click.option(
    "--rotate", metavar="TIME|SIZE", multiple=True, help="Write many files to the directory -o: one for each 1h, or each 100M."
)
@click.option("--keep", metavar="N", type=Whole(1), help="With --rotate: remove the oldest file when there are more.")
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
@click.option("--metrics", metavar="FILE.prom", help="Write metrics every 15 s, for node_exporter's textfile collector.")
@click.option("--metrics-port", metavar="[HOST:]PORT", type=Address(), help="Let Prometheus scrape metrics [127.0.0.1].")
@click.option("--hive", metavar="DIR|URL", help="With --rotate: add each file to the dataset there, as export --hive does.")
@click.option("--check", is_flag=True, help="Then hold it against the limits below, or those of a file: forktrace check.")
@limit_options
@click.argument("command", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED)
def record(
    output: str | None,
    force: bool,
    duration: float | None,
    max_size: int | None,
    rotate: tuple[str, ...],
    keep: int | None,
    quiet: bool,
    user: str | None,
    no_stacks: bool,
    no_source: bool,
    own: tuple[str, ...],
    pids: tuple[str, ...],
    cgroup: str | None,
    metrics: str | None,
    metrics_port: tuple[str, int] | None,
    hive: str | None,
    check: bool,
    allow: tuple[str, ...],
    baseline: str | None,
    command: tuple[str, ...],
    **limits: str | None,
) -> None:
    """Record a command's processes, or processes that run already.

    Ends as the command ended, with the same status or signal; after -d or at --max-size with 0, while the command runs on.
    Its own failures are 125, and 126 or 127 for a command that cannot be executed or found. With -p and --cgroup the
    processes are never signalled and nothing waits for them: Ctrl-C, SIGTERM, -d and --max-size end the recording, with 0.
    With --check it ends with 1 where that was 0 and a limit is broken, and with 66 where it cannot be told.

    \b
    Examples:
        forktrace record -- python consumer.py
        forktrace record -o run.arrows -d 60 -- make test
        forktrace record --max-size 100M -- python consumer.py
        forktrace record -d 10 -p "$(pgrep -d, -f consumer.py)"
        forktrace record --cgroup /system.slice/consumer.service
        forktrace record --metrics web.prom --cgroup /system.slice/web.service
        forktrace record --rotate 1h --keep 48 -o traces/ -p 4711
        forktrace record --check --max-zombie 5s -- pytest
    """
    from forktrace.launcher.options import RecordOptions

    with _own_failures():
        _require_one(command, pids, cgroup, user)
        companions = _metrics(metrics, metrics_port, output, cgroup) if metrics or metrics_port else ()
        companions += _exports(hive, rotate) if hive is not None else ()
        options = RecordOptions(
            output, force, duration, quiet, not no_stacks, not no_source, own, max_size, companions=companions
        )
        if rotate or keep is not None:
            options = replace(options, rotation=_plan(rotate, keep, max_size, output))
        check_terminal(output or "", "a trace", "forktrace record -o FILE.arrows -- COMMAND")
        if not check and (allow or baseline or any(value is not None for value in limits.values())):
            raise UsageError("limits are for record --check", "add --check")
        checking = _Checking(limits, allow, baseline, output, user) if check else None
        written = checking.paths.append if checking else None
        if command:
            from forktrace.launcher.command import record

            status = record(command, options, user, written)
            if status or not checking:
                end_as(status)
        else:
            from forktrace.launcher.running import attach, choose, choose_cgroup

            attach(choose(pids) if pids else choose_cgroup(str(cgroup)), options, written)
        if checking:
            checking.end(quiet)


def _require_one(command: tuple[str, ...], pids: tuple[str, ...], cgroup: str | None, user: str | None) -> None:
    """Make sure that it is told what to record, once.

    Raises:
        UsageError: it is not.
    """
    if sum(map(bool, (command, pids, cgroup))) != 1:
        raise UsageError("record needs one of: a command, -p PID, --cgroup PATH", "forktrace record --help")
    if user and not command:
        raise UsageError("--user is for a command: what runs already has its user", "leave it out")


def _metrics(
    file: str | None, address: tuple[str, int] | None, output: str | None, cgroup: str | None
) -> tuple[Companion, ...]:
    """Return what makes metrics beside the recording.

    Raises:
        MachineLacks: prometheus-client is missing.
        UsageError: the trace cannot be read again.
    """
    from forktrace.launcher.companion import Companion
    from forktrace.launcher.session import is_stream

    if importlib.util.find_spec("prometheus_client") is None:
        raise package_missing("prometheus-client", "metrics")
    if file and not file.endswith(".prom"):
        raise UsageError(f"{file} does not end in .prom", "node_exporter's textfile collector reads no other file")
    if output == "-" or (output and is_stream(output)):
        raise UsageError("metrics are made from the trace as it grows, and a pipe cannot be read twice", "name a file with -o")
    file = file and os.path.abspath(file)

    def load() -> Run:
        from forktrace.service.metrics import Options, follow
        from forktrace.service.tally import Tally

        return functools.partial(follow, Options(file, address, cgroup), Tally())

    return (Companion("metrics", load),)


def _exports(url: str, rotate: tuple[str, ...]) -> tuple[Companion, ...]:
    """Return what adds the files of a rotation to the dataset at `url`.

    Raises:
        UsageError: there is no rotation, or `url` is neither a directory nor a URL.
    """
    from forktrace.fleet.urls import shown_name
    from forktrace.launcher.companion import Companion

    if not rotate:
        raise UsageError("--hive adds each file of a rotation", "add --rotate 1h, or use forktrace export --hive afterwards")
    shown_name(url)

    def load() -> Run:
        from forktrace.analysis.causes import rules
        from forktrace.service.exports import follow

        rules.load()
        return functools.partial(follow, url)

    return (Companion("dataset", load, _LAST_EXPORT_S),)


def _plan(rotate: tuple[str, ...], keep: int | None, max_size: int | None, output: str | None) -> RotationPlan:
    """Return when the files of a rotation begin, and which are kept.

    Raises:
        UsageError: that cannot be.
    """
    from forktrace.launcher.options import RotationPlan

    if not rotate:
        raise UsageError("--keep is for --rotate", "add --rotate 1h or --rotate 100M")
    if output is None or output == "-":
        raise UsageError("--rotate writes many files", "name a directory with -o")
    every, sizes = (list(filter(None, each)) for each in zip(*map(_every_or_size, rotate), strict=True))
    if len(every) > 1 or len(sizes) > 1:
        raise UsageError(f"--rotate {rotate[1]}: there is one such limit already", "one time, one size, or one of each")
    if max_size is not None and max_size < 2 * _LEAST_SIZE:
        raise UsageError("--max-size is too small for several files", f"at least {2 * _LEAST_SIZE >> 10}K")
    return RotationPlan(next(iter(every), None), next(iter(map(int, sizes)), None), keep, max_size)


def _every_or_size(text: str) -> tuple[float | None, float | None]:
    """Return the seconds or the bytes of a turn: `m` is minutes, `M` MiB."""
    try:
        if text[-1:].islower():
            return Seconds(1, 1e9).convert(text, None, None), None
        if text[-1:].isupper():
            return None, Size(_LEAST_SIZE).convert(text, None, None)
    except click.BadParameter as error:
        raise UsageError(f"--rotate {text}: {error.message}", _ROTATE) from None
    raise UsageError(f"--rotate {text}: neither a time nor a size", _ROTATE)


@contextlib.contextmanager
def _own_failures() -> Iterator[None]:
    """End with the status of record's own failures, but where the command cannot be started."""
    try:
        yield
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


class _Checking:
    """What `--check` asks for, known to be right before anything is recorded; `paths` gets the trace.

    Raises:
        UsageError: there is no limit, one that cannot be, or no file to read again.
    """

    def __init__(
        self, limits: dict[str, str | None], allow: tuple[str, ...], baseline: str | None, output: str | None, user: str | None
    ) -> None:
        from forktrace.launcher.session import is_stream
        from forktrace.system.users import as_user, invoking_user, named_user

        if output == "-" or (output and is_stream(output)):
            raise UsageError("--check reads the trace when it is written, and a pipe is gone then", "name a file with -o")
        self._who: User = named_user(user) if user else invoking_user()
        self._policy: Policy = as_user(self._who, policy_of, limits, allow)
        self._baseline = baseline
        self.paths: list[str] = []

    def end(self, quiet: bool) -> NoReturn:
        """Say what came of it, and end so. What root was for is done: from here on this process is the user's."""
        from forktrace.analysis.recording import read
        from forktrace.system.users import become

        become(self._who)
        recording = read(self.paths[0])
        verdict = judged(recording, self._policy, self._baseline)
        if verdict.exit_status or not quiet:
            show(recording, verdict, to_stderr=True)
        sys.exit(verdict.exit_status)
