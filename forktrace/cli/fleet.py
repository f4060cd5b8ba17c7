"""The commands about many hosts: fleet, and the part of export that makes what it reads."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import click

from forktrace.cli.options import color_option, force_option, opened, read, say, screen
from forktrace.errors import UsageError

_AGO: Final = re.compile(r"([0-9]{1,4})d")


class Day(click.ParamType[date]):
    """A day in UTC: `2026-11-29`, `today`, `yesterday`, or so many days ago, `7d`."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the day (click.ParamType)."""
        ago = _AGO.fullmatch(str({"today": "0d", "yesterday": "1d"}.get(value, value)))
        if ago:
            return datetime.now(UTC).date() - timedelta(days=int(ago[1]))
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a day such as 2026-11-29, yesterday or 7d.", param, ctx)


@click.command()
@click.argument("url")
@click.option("--since", metavar="DAY", type=Day(), help="Only files that begin on DAY (UTC) or later: 2026-11-29, 7d.")
@click.option("--until", metavar="DAY", type=Day(), help="Only files that begin on DAY or earlier [today].")
@click.option("--host", "hosts", metavar="HOST", multiple=True, help="Only this host, or those that 'web-*' matches.")
@click.option("--cause", "causes", metavar="CAUSE", multiple=True, help="Only zombies of this cause: next-start, never.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", help="What it prints [text].")
@click.option("-o", "--output", metavar="FILE", help="Draw it too, into a .png, .svg or .pdf file.")
@force_option
@color_option
def fleet(
    url: str,
    since: date | None,
    until: date | None,
    hosts: tuple[str, ...],
    causes: tuple[str, ...],
    form: str,
    output: str | None,
    force: bool,
) -> None:
    """Say which lines on which hosts leave how much zombie time.

    URL is what `export --hive` writes: a directory, or s3://BUCKET/FOLDER. It takes the package duckdb.

    \b
    Examples:
        forktrace fleet s3://traces/fleet --since 7d
        forktrace fleet fleet/ --host 'web-*' --cause never -o fleet.png
    """
    from forktrace.fleet import words
    from forktrace.fleet.question import Question, ask
    from forktrace.views.pictures.timeline import format_of

    picture = "" if output is None else format_of(output)
    if since and until and until < since:
        raise UsageError(f"--until {until} is before --since {since}")
    answer = ask(url, Question(since, until, hosts, causes))
    for remark in answer.remarks:
        say(f"forktrace: {remark}")
    if form == "json":
        click.echo(words.as_json(answer))
    else:
        words.show(screen(), answer)
    if output is not None:
        from forktrace.fleet.picture import write_fleet

        with opened(output, force) as sink:
            write_fleet(answer, sink, picture)
        say(f"wrote {output}")


def export_to_dataset(trace: str | None, url: str, drop: str, causes: str | None) -> None:
    """Write a recording into the dataset at `url`, and say where.

    Raises:
        UsageError: it is a rotation, which begins later with each file that `--keep` removes: no name for it would last.
    """
    from forktrace.fleet.dataset import write
    from forktrace.trace.rotation import is_rotation
    from forktrace.views import clocks

    if trace and is_rotation(trace):
        hint = "export each of its files once, when the next one has begun"
        raise UsageError(f"{trace} is a rotation, whose processes would be counted each time that it is exported", hint)
    recording = read(trace, None, None, None, causes)
    for remark in clocks.ahead(recording, time.time_ns()):
        say(f"forktrace: {remark}")
    say(f"wrote {write(recording, url, drop)}")
