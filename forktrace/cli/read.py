"""The commands that read a recording: report, why, timeline, page, events, export."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

import click

from forktrace.cli.fleet import export_to_dataset
from forktrace.cli.now import INQUIRY_S, inquire
from forktrace.cli.options import (
    Seconds,
    Whole,
    causes_option,
    check_terminal,
    color_option,
    force_option,
    json_option,
    newest,
    opened,
    read,
    screen,
    selection_options,
    trace_and_process,
    trace_argument,
)
from forktrace.cli.spans import export_spans
from forktrace.errors import UsageError

_TABLES: Final = (
    *("lifecycles", "events", "starts", "waits", "zombie_count", "branches", "signals", "failed_forks"),
    *("late_waits", "open_waits", "stolen", "orphans"),
)
_TABLE_FORMATS: Final = ("csv", "json", "parquet")


@click.command()
@trace_argument
@click.argument("process", metavar="[PID]", required=False)
@selection_options
@causes_option
@json_option
@color_option
def report(
    trace: str | None,
    process: str | None,
    pid: str | None,
    since: str | None,
    until: str | None,
    causes: str | None,
    as_json: bool,
) -> None:
    """Say what happened, in words.

    Stolen exit statuses, what was never reaped, the longest zombies and who reaped them with which call, failed forks, and
    what was lost. PID is the same as --of PID.

    \b
    Examples:
        forktrace report
        forktrace report run.arrows 4711
        forktrace report --json | jq .figures
    """
    from forktrace.views.text.report import report

    trace, process = trace_and_process(trace, process)
    if process and pid:
        raise UsageError(f"only {process}, or only {pid}?", "leave one of them out")
    pid = pid or process
    recording = read(trace, pid, since, until, causes, says_cut=True)
    if as_json:
        from forktrace.views.formats import report_json

        click.echo(report_json.report(recording))
    else:
        report(recording, screen())


@click.command()
@trace_argument
@click.argument("pid", required=False)
@causes_option
@click.option("-p", "--pid", "running", metavar="PID", type=Whole(1), help="A process that runs now, or a zombie.")
@click.option(
    "-d", "--duration", metavar="TIME", type=Seconds(0, 1e6), help=f"With -p: answer after 30s, 1.5m [{INQUIRY_S:g}s]."
)
@json_option
@color_option
def why(
    trace: str | None, pid: str | None, causes: str | None, running: int | None, duration: float | None, as_json: bool
) -> None:
    """Explain one process, recorded or running.

    Of a recording: who forked it at which line, how it ended, how long it was a zombie, who reaped it and why not earlier,
    and what the program could do instead. PID may be '#ID' when several had the number; without PID it is the worst zombie.

    With -p PID, of a process that runs now: its zombies, where each of its threads is and what it waits for, then what it
    does within TIME: whether it starts or waits for children. Of a zombie it is the parent. The process is neither stopped
    nor signalled.

    \b
    Examples:
        forktrace why
        forktrace why run.arrows 4711
        sudo forktrace why -p 4711
    """
    if running is not None:
        if as_json:
            raise UsageError("--json is for a recording", "forktrace ps --json says in JSON what runs")
        if trace is not None:
            raise UsageError("a recording, or -p PID that runs now?", "leave one of them out")
        inquire(running, INQUIRY_S if duration is None else duration, causes)
        return
    if duration is not None:
        raise UsageError("-d is for -p PID", "leave it out")

    from forktrace.views.text.why import why

    trace, pid = trace_and_process(trace, pid)
    recording = read(trace, None, None, None, causes)
    process = recording.find_process(pid) if pid else None
    if as_json:
        from forktrace.views.formats import report_json

        click.echo(report_json.why(recording, process))
    else:
        why(recording, process, screen())


@click.command()
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
    from forktrace.views.pictures.timeline import format_of, write_timeline

    trace = trace or newest()
    output = output or f"{Path(trace).stem}.png"
    check_terminal(output, "a picture", "forktrace timeline -o FILE.png")
    form = "png" if output == "-" else format_of(output)
    recording = read(trace, pid, since, until)
    with opened(output, force) as sink:
        write_timeline(recording, sink, form)
    if output != "-":
        click.echo(f"wrote {output}", err=True)


@click.command()
@trace_argument
@click.option("-o", "--output", metavar="FILE", help="The HTML file, - for stdout [default: TRACE.html].")
@force_option
@selection_options
@causes_option
def page(
    trace: str | None,
    output: str | None,
    force: bool,
    pid: str | None,
    since: str | None,
    until: str | None,
    causes: str | None,
) -> None:
    """Write one HTML file that any browser opens, without network.

    It holds the report, a timeline to zoom into, a table that can be sorted and searched, and what `why` says of each process.

    \b
    Examples:
        forktrace page
        forktrace page run.arrows -o run.html
    """
    from forktrace.views.pictures.page import write_page

    trace = trace or newest()
    output = output or f"{Path(trace).stem}.html"
    recording = read(trace, pid, since, until, causes)
    with opened(output, force) as sink:
        write_page(recording, sink)
    if output != "-":
        click.echo(f"wrote {output}", err=True)


@click.command()
@trace_argument
@selection_options
def events(trace: str | None, pid: str | None, since: str | None, until: str | None) -> None:
    """Print every event, one line each.

    \b
    Examples:
        forktrace events
        forktrace events run.arrows --of 4711 | grep reap
    """
    from forktrace.views.text.events import lines

    for line in lines(read(trace, pid, since, until)):
        click.echo(line)


@click.command()
@trace_argument
@click.option(
    "-o", "--output", metavar="FILE", default="-", help="A .csv, .json, .parquet or .pftrace[.gz] file [default: stdout]."
)
@click.option("--otlp", metavar="FILE|URL", help="Spans for OpenTelemetry: a .jsonl file, or a collector's http://HOST:PORT.")
@click.option("--hive", metavar="DIR|URL", help="Add it to the dataset of many hosts there: DIR, s3://BUCKET/FOLDER.")
@click.option(
    "--drop",
    type=click.Choice(("argv", "none")),
    help="What spans and datasets leave out: command lines and folders, or nothing [argv].",
)
@click.option("--to", "to", type=click.Choice(_TABLE_FORMATS), help="The format [default: by the file's name; csv on stdout].")
@click.option("--table", type=click.Choice(_TABLES), metavar="NAME", default="lifecycles", help=f"One of {', '.join(_TABLES)}.")
@force_option
@selection_options
@causes_option
def export(
    trace: str | None,
    output: str,
    otlp: str | None,
    hive: str | None,
    drop: str | None,
    to: str | None,
    table: str,
    force: bool,
    pid: str | None,
    since: str | None,
    until: str | None,
    causes: str | None,
) -> None:
    """Write a table of the recording for other programs.

    Or all of it for Perfetto: FILE.pftrace or FILE.pftrace.gz is what ui.perfetto.dev opens; it takes the package perfetto.
    Or as spans for OpenTelemetry, which takes forktrace[otel]. Or, with --hive, as a file of a dataset of many hosts, of which
    `forktrace fleet` asks questions.

    \b
    Examples:
        forktrace export -o zombies.csv
        forktrace export run.arrows --table events --to json | jq .
        forktrace export run.arrows -o run.pftrace
        forktrace export run.arrows --otlp http://localhost:4318
        forktrace export run.arrows --hive s3://traces/fleet
    """
    from forktrace.views.formats import perfetto
    from forktrace.views.formats.export import format_of, write

    if hive is not None:
        _check_alone(otlp, output != "-", to, table != "lifecycles", force, pid, since, until)
        export_to_dataset(trace, hive, drop or "argv", causes)
        return
    if otlp is not None:
        if output != "-" or to or table != "lifecycles":
            raise UsageError("--otlp writes the whole recording, no table", "leave out -o, --to and --table")
        export_spans(partial(read, trace, pid, since, until, causes), otlp, argv=drop == "none", force=force)
        return
    if drop is not None:
        raise UsageError("--drop is for --otlp and --hive", "leave it out")
    if to is None and output.endswith(perfetto.SUFFIXES):
        if table != "lifecycles":
            raise UsageError("a Perfetto trace holds the whole recording, no table", "leave out --table")
        recording = read(trace, pid, since, until, causes)
        with opened(output, force) as sink:
            perfetto.write_perfetto(recording, sink, compressed=output.endswith(".gz"))
        click.echo(f"wrote {output}", err=True)
        return
    form = to or ("csv" if output == "-" else format_of(output))
    if form == "parquet":
        check_terminal(output, "parquet", "forktrace export -o FILE.parquet")
    recording = read(trace, pid, since, until, causes)
    with opened(output, force) as sink:
        write(recording, table, form, sink)
    if output != "-":
        click.echo(f"wrote {output}", err=True)


def _check_alone(*others: object) -> None:
    """A dataset holds whole recordings, under names that follow from them."""
    if any(others):
        hint = "leave out --otlp, -o, --to, --table, --force, --of, --since and --until"
        raise UsageError("--hive writes the lifecycles of a whole recording, as a file whose name follows from it", hint)
