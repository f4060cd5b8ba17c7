"""The answer for a fleet in words, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.text import Text

from forktrace.fleet.question import Answer
from forktrace.trace.words import count, duration, printable
from forktrace.views.formats.documents import opening, plain, written
from forktrace.views.text.screen import Grid, print_grid, print_text
from forktrace.views.words import short_site, some
from forktrace.views.zombies import rows

MOST_ROWS: Final = 20
UNKNOWN_LINE: Final = "(line not known)"
_MOST_SITE: Final = 40  # characters of a line
_MOST_HOST: Final = 24
_COLUMNS: Final = (
    *(("line", "left"), ("why", "left"), ("zombies", "right"), ("zombie time", "right"), ("longest", "right")),
    *(("hosts", "left"), ("since", "left"), ("new", "left")),
)


def show(console: Console, answer: Answer) -> None:
    """Print a sentence, the lines with most zombie time, and what was read. Names from files are escaped."""
    print_text(console, Text(f"{sentence(answer)}.", "bold"))
    if len(answer.lines):
        console.print()
        lines = [_cells(row) for row in rows(answer.lines[:MOST_ROWS])]
        print_grid(console, Grid(_COLUMNS, lines, "line", 24, spare=("longest", "zombies", "since", "hosts")))
    if len(answer.lines) > MOST_ROWS:
        console.print(f"and {len(answer.lines) - MOST_ROWS:,} more; --format json has all")
    console.print()
    for line in read(answer):
        print_text(console, Text(line, "dim"))


def sentence(answer: Answer) -> str:
    """Return what matters most, in a sentence."""
    hosts, processes = count(len(answer.hosts), "host"), count(int(answer.hosts["processes"].sum()), "process")
    if answer.lines.empty:
        which = " of this cause" if answer.question.causes else ""
        return f"no zombie{which} lasted longer than 10 ms on {hosts}, of {processes}"
    zombies, total = int(answer.lines["zombies"].sum()), float(answer.lines["zombie_ms"].sum())
    found = f"{count(zombies, 'zombie')} on {answer.places['host'].nunique():,} of {hosts}, for {duration(total)} in all"
    new = answer.lines[answer.lines["new"].fillna(False)]
    return f"{found}; {count(len(new), 'line')} new since yesterday" if len(new) else found


def read(answer: Answer) -> Iterator[str]:
    """Yield what was read, and how far it can be trusted."""
    first, last = answer.hosts["first_day"].min(), answer.hosts["last_day"].max()
    days = f"{first}" if first == last else f"{first} to {last}"
    processes, incomplete = (int(answer.hosts[name].sum()) for name in ("processes", "incomplete"))
    size = sum(one.size for one in answer.files)
    read_size = f"{size / 1e6:,.0f} MB" if size >= 1e7 else f"{size / 1000:,.0f} kB"
    yield f"Read: {count(len(answer.files), 'file')} ({read_size}), {days}, {count(processes, 'process')}."
    if incomplete:
        yield f"Of {count(incomplete, 'process')} an event was lost or inferred; their zombie time is not sure."
    if answer.lines["new"].isna().any():
        yield "Which lines are new is not known: nothing from before yesterday was read."


def _cells(row: Any) -> list[str]:
    names = [printable(name)[:_MOST_HOST] for name in row.worst]
    still = f" ({row.still:,} still)" if row.still else ""
    return [
        line_of(row.line),
        printable(row.cause),
        f"{row.zombies:,}{still}",
        duration(row.zombie_ms),
        duration(row.longest_ms),
        some(names[:2], row.hosts, 1),
        f"{row.since}",
        _new(row),
    ]


def line_of(line: Any) -> str:
    """Return a line as a screen shows it."""
    return UNKNOWN_LINE if pd.isna(line) else short_site(printable(line), _MOST_SITE)


def _new(row: Any) -> str:
    if pd.isna(row.new):
        return "?"
    if row.new:
        return "yes"
    return f"on {row.new_hosts:,}" if row.new_hosts else ""


def as_json(answer: Answer) -> str:
    """Return all of it; docs/json.md describes the fields. Times are in ms, as their names say; days are UTC."""
    places = dict(iter(answer.places.groupby(["line", "cause"], dropna=False, sort=False)))
    document = {
        **opening("fleet"),
        "summary": sentence(answer),
        "files": len(answer.files),
        "bytes": sum(one.size for one in answer.files),
        "hosts": _records(answer.hosts.drop(columns="written")),
        "lines": [
            one | {"hosts": _records(places[row.line, row.cause].drop(columns=["line", "cause"]))}
            for one, row in zip(_records(answer.lines.drop(columns=["hosts", "worst"])), rows(answer.lines), strict=True)
        ],
        "remarks": answer.remarks,
    }
    return written(document)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: f"{one}" if isinstance(one, date) else plain(one) for name, one in zip(table.columns, row, strict=True)}
        for row in table.itertuples(index=False)
    ]
