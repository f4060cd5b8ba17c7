"""What changed between recordings, for a terminal or a pipe."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.text import Text

from forktrace.analysis.comparison.changes import Comparison
from forktrace.trace.words import printable
from forktrace.views import comparison as words
from forktrace.views.text.screen import Grid, print_grid, print_text
from forktrace.views.words import short_site

MOST_ROWS: Final = 10  # of each group
MOST_SITE: Final = 40  # characters of a line
TITLES: Final = ("zombies", "s/1,000", "longest", "p50, p90")
COLUMNS: Final = (("line", "left"), ("why", "left"), *((title, "right") for title in TITLES))


def show(console: Console, found: Comparison) -> None:
    """Print a sentence, the figures, then the rows by line and cause. Names from the traces are escaped."""
    print_text(console, Text(f"{words.sentence(found)}.", "bold"))
    console.print()
    columns = (("figure", "left"), ("old", "right"), ("new", "right"), ("", "left"))
    print_grid(console, Grid(columns, words.figures(found), "figure", 12))
    for title, rows in words.groups(found):
        console.print()
        console.print(Text(title, "bold"))
        lines = [[short_site(words.where(row), MOST_SITE), printable(row.cause), *words.cells(row)] for row in rows[:MOST_ROWS]]
        print_grid(console, Grid(COLUMNS, lines, "line", 16, spare=TITLES[-1:]))
        if len(rows) > MOST_ROWS:
            console.print(f"and {len(rows) - MOST_ROWS:,} more")
    console.print()
    for line in (words.how(found), *found.remarks):
        print_text(console, Text(printable(line), "dim"))
