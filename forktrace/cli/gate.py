"""The commands that hold a recording against limits, or against another: check and diff."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from forktrace.cli.options import Whole, causes_option, force_option, opened, read, say, screen, trace_argument
from forktrace.errors import CannotTell, ForktraceError, GateFailed, UsageError

if TYPE_CHECKING:
    from forktrace.analysis.comparison.changes import Comparison, RiseLimit
    from forktrace.analysis.gate.policy import Policy
    from forktrace.analysis.gate.verdict import Verdict
    from forktrace.analysis.recording import Recording
    from forktrace.views.formats.places import Places

_Command = TypeVar("_Command", bound=Callable[..., Any])
_FORMATS: Final = ("text", "json", "junit", "github", "sarif")
_LIMITS: Final = {  # the options, in the order of their help; analysis.gate.limits knows what they mean
    "max-zombie": ("TIME", "No zombie may last longer: 5s, 500ms, 2m."),
    "max-unreaped": ("N", "So many may be zombies still at the end."),
    "max-zombies": ("N", "So many may be zombies at once."),
    "max-stolen": ("N", "So many exit statuses may be stolen."),
    "max-failed-forks": ("N", "So many forks may fail."),
    "max-orphans": ("N", "So many orphans may be left as zombies by who inherited them."),
    "max-zombie-seconds": ("S", "Zombie seconds per 1,000 forks."),
    "max-running": ("N", "So many children may still run at the end."),
}


def limit_options(command: _Command) -> _Command:
    """Add an option for each limit, and for what they do not count."""
    allow = "A function or line whose processes no limit counts: 'consumer.py consume_task', consumer.py:55."
    baseline = "An older recording: what breaks a limit there too counts only where it is worse now."
    command = click.option("--baseline", metavar="TRACE", help=baseline)(command)
    command = click.option("--allow", metavar="SITE", multiple=True, help=allow)(command)
    for name, (metavar, words) in reversed(_LIMITS.items()):
        command = click.option(f"--{name}", metavar=metavar, help=words)(command)
    return command


def failing_with_70(command: _Command) -> _Command:
    """End with 70 whatever fails in a command, except by its input, which has a status of its own."""

    @functools.wraps(command)
    def called(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except (click.exceptions.Exit, click.Abort, click.ClickException, BrokenPipeError, PermissionError):
            raise
        except ForktraceError as error:
            if error.exit_status != ForktraceError.exit_status:
                raise
            raise GateFailed(str(error), error.hint) from error
        except Exception as error:
            raise GateFailed(f"{command.__name__} failed: {error or type(error).__name__}") from error

    return called  # type: ignore[return-value]


def policy_of(given: Mapping[str, str | None], allow: Sequence[str]) -> Policy:
    """Return the limits and allowances of the command line, and those of the nearest file that it does not name.

    Raises:
        UsageError: there is no limit at all, or one that cannot be.
    """
    from forktrace.analysis.gate.limits import BY_NAME, parse
    from forktrace.analysis.gate.policy import find_policy
    from forktrace.analysis.gate.verdict import Allowance

    file = find_policy(Path.cwd())
    limits = {one.kind.name: one for one in file.limits}
    named = {name: given[name.replace("-", "_")] for name in BY_NAME}
    limits |= {name: parse(name, value) for name, value in named.items() if value is not None}
    if not limits:
        hint = "name one, as in --max-zombie 5s, or write them into forktrace.toml: [check] max-unreaped = 0"
        raise UsageError("there is no limit to check", hint)
    return file._replace(limits=list(limits.values()), allowances=[*file.allowances, *map(Allowance, allow)])


def judged(recording: Recording, policy: Policy, baseline: str | None, causes: str | None = None) -> Verdict:
    """Return the verdict on a recording."""
    from forktrace.analysis.gate.verdict import judge

    older = None if baseline is None else read(baseline, None, None, None, causes)
    return judge(recording, policy.limits, policy.allowances, older)


@click.command()
@trace_argument
@limit_options
@click.option("--format", "form", type=click.Choice(_FORMATS), default="text", help="What it prints [text].")
@click.option("-o", "--output", metavar="FILE", default="-", help="Where it is written [default: stdout].")
@force_option
@click.option("--root", metavar="DIR", help="Paths are relative to DIR [default: the top of the repository].")
@click.option("--map", "maps", metavar="FROM=TO", multiple=True, help="A directory of the recording lies at TO: /app=src.")
@click.option("--of", metavar="PID", help="Only this process and its descendants; #ID when several had the number.")
@causes_option
@failing_with_70
def check(
    trace: str | None,
    allow: tuple[str, ...],
    baseline: str | None,
    form: str,
    output: str,
    force: bool,
    root: str | None,
    maps: tuple[str, ...],
    of: str | None,
    causes: str | None,
    **limits: str | None,
) -> None:
    """Hold a recording against limits.

    Ends with 0 when all hold, with 1 when one is broken, and with 66 when the recording lacks what could break one. Limits
    and what they do not count may stand in forktrace.toml or pyproject.toml.

    \b
    Examples:
        forktrace check --max-zombie 5s --max-unreaped 0
        forktrace check run.arrows --max-stolen 0 --format sarif -o run.sarif
        forktrace check new.arrows --max-zombie 1s --baseline old.arrows
    """
    from forktrace.views.formats import places

    policy, moved = policy_of(limits, allow), places.moved(maps)
    recording = read(trace, of, None, None, causes, says_cut=True)
    verdict = judged(recording, policy, baseline, causes)
    where = places.Places(recording, root or places.checkout(os.getcwd(), os.environ), moved)
    if form == "text" and output == "-":
        show(recording, verdict)
    else:
        with opened(output, force) as sink:
            sink.write(_document(form, recording, verdict, where).encode(errors="backslashreplace"))
    if form == "github" and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        _add_summary(summary, recording, verdict)
    click.get_current_context().exit(verdict.exit_status)


def show(recording: Recording, verdict: Verdict, *, to_stderr: bool = False) -> None:
    """Print a verdict; beside a command, whose stdout is its own, to stderr."""
    from forktrace.views.text import check as view

    view.show(screen(to_stderr=to_stderr), recording, verdict)


def _document(form: str, recording: Recording, verdict: Verdict, where: Places) -> str:
    from forktrace.views.formats import github, junit, sarif, verdict_json

    if form == "junit":
        return junit.document(recording, verdict)
    if form == "github":
        return "".join(f"{line}\n" for line in github.errors(recording, verdict, where))
    if form == "text":
        return _text(recording, verdict)
    write = sarif.document if form == "sarif" else verdict_json.document
    return write(recording, verdict, where) + "\n"


def _text(recording: Recording, verdict: Verdict) -> str:
    from rich.console import Console

    from forktrace.views.text.check import show

    page = io.StringIO()
    show(Console(file=page, width=100), recording, verdict)
    return page.getvalue()


def _add_summary(path: str, recording: Recording, verdict: Verdict) -> None:
    from forktrace.views.formats import github

    with open(path, "a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(github.summary(recording, verdict))


@click.command()
@click.argument("old", required=False)
@click.argument("new", required=False)
@click.option("--old", "olds", metavar="TRACE", multiple=True, help="One of several old recordings, or their directory.")
@click.option("--new", "news", metavar="TRACE", multiple=True, help="One of several new recordings, or their directory.")
@click.option("--fail-if", "gates", metavar="RISE", multiple=True, help="End with 1 if so: zombie-seconds+10%, unreaped+0.")
@click.option(
    "--format", "form", type=click.Choice(("text", "json", "markdown")), default="text", help="What it prints [text]."
)
@click.option("-o", "--output", metavar="FILE", help="Draw both too, into a .png, .svg or .pdf file.")
@force_option
@click.option("--seed", metavar="N", type=Whole(0), default=0, help="Of the bootstrap [0].")
@causes_option
@failing_with_70
def diff(
    old: str | None,
    new: str | None,
    olds: tuple[str, ...],
    news: tuple[str, ...],
    gates: tuple[str, ...],
    form: str,
    output: str | None,
    force: bool,
    seed: int,
    causes: str | None,
) -> None:
    """Say what changed between recordings.

    By fork line and cause: how many zombies, their time per 1,000 forks, how long they lasted. What chance explains
    is marked with ~. With --fail-if it ends with 1 when a figure rose by more, and with 66 when losses touch it.

    \b
    Examples:
        forktrace diff old.arrows new.arrows
        forktrace diff old.arrows new.arrows --fail-if zombie-seconds+10%
        forktrace diff --old before/ --new after/ -o change.png
    """
    from forktrace.analysis.comparison.changes import compare, parse_rise_limit

    rises = [parse_rise_limit(text) for text in gates]
    if (old is None) != (new is None) or (bool(olds) != bool(news)) or bool(old) == bool(olds):
        raise UsageError("diff needs two sides", "forktrace diff OLD NEW, or several with --old OLD --new NEW")
    picture = _picture_format(output)
    sides = [[read(path, None, None, None, causes) for path in _paths(side)] for side in (olds or [old], news or [new])]
    found = compare(sides[0], sides[1], seed)
    _print_diff(form, found)
    if output is not None:
        from forktrace.views.pictures.diff import write_diff

        with opened(output, force) as sink:
            write_diff(sides[0][0], sides[1][0], sink, picture)
        say(f"wrote {output}")
    _end_as(found, rises)


def _picture_format(output: str | None) -> str:
    from forktrace.views.pictures.timeline import format_of

    return "" if output is None else format_of(output)


def _paths(named: Sequence[str | None]) -> list[str]:
    """The traces that are named, those of directories among them.

    Raises:
        UsageError: a directory has none.
    """
    from forktrace.trace.rotation import is_rotation

    found = []
    for path in map(str, filter(None, named)):
        is_one = not os.path.isdir(path) or is_rotation(path)
        inside = [path] if is_one else sorted(map(str, Path(path).glob("*.arrows")))
        if not inside:
            raise UsageError(f"{path}: no *.arrows in this directory", "name a trace, or a directory of traces")
        found += inside
    return found


def _print_diff(form: str, found: Comparison) -> None:
    from forktrace.views.formats import diff as formats
    from forktrace.views.text.diff import show

    if form == "text":
        show(screen(), found)
    else:
        click.echo(formats.as_json(found) if form == "json" else formats.as_markdown(found))


def _end_as(found: Comparison, rises: Sequence[RiseLimit]) -> None:
    """End with 1 when a figure rose by more than it may, with 66 when losses touch one that did not."""
    changes = [(rise, found.figure(rise.name)) for rise in rises]
    met = [rise for rise, one in changes if not one.missing and rise.met(one)]
    open_ = [(rise, one) for rise, one in changes if one.missing]
    for rise in met:
        say(f"forktrace: --fail-if {rise.text} is met")
    if not met and open_:
        raise CannotTell(f"--fail-if {open_[0][0].text} cannot be told: {'; '.join(open_[0][1].missing)}")
    click.get_current_context().exit(1 if met else 0)
