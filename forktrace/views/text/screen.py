"""Printing on a terminal: text that wraps and tables that fit, whatever the width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from forktrace.views.findings import Facts

_GAP: Final = 3  # between the columns of a table: two paddings and what the box has there


class Grid(NamedTuple):
    """A table: its titles, each with the side that its column keeps to, and its rows, each with a style or None.

    Only the column `stretch` may be cut, to `least` characters; where that is not enough, the columns `spare` are left out, one
    after the other, which is said. `facts` are what each row is made of, as those of a `Finding`.
    """

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Sequence[str]]
    stretch: str
    least: int
    styles: Sequence[str | None] = ()
    spare: Sequence[str] = ()
    facts: Sequence[Facts] = ()

    @property
    def titles(self) -> list[str]:
        """The titles of the columns."""
        return [title for title, _ in self.columns]

    def fits(self, width: int) -> bool:
        """Whether the rows can stand side by side on a screen of `width` characters."""
        widths = [max(len(title), *(len(row[place]) for row in self.rows)) for place, title in enumerate(self.titles)]
        needed = [
            min(one, self.least) if title == self.stretch else one for title, one in zip(self.titles, widths, strict=True)
        ]
        return sum(needed) + _GAP * (len(needed) - 1) <= width

    def without(self, left_out: Sequence[str]) -> Grid:
        """The table without some columns."""
        keep = [place for place, title in enumerate(self.titles) if title not in left_out]
        rows = [[row[place] for place in keep] for row in self.rows]
        return self._replace(columns=[self.columns[place] for place in keep], rows=rows)


def print_text(console: Console, text: Text, before: str = "") -> None:
    """Print a text wrapped to the screen, `before` in front of its first line and as much room before the others."""
    for number, line in enumerate(text.wrap(console, max(console.width - len(before), 10))):
        line.rstrip()  # no spaces at the end, where a line broke
        console.print(Text(before if number == 0 else " " * len(before)) + line)


def print_grid(console: Console, grid: Grid) -> None:
    """Print a table without lines; where it does not fit in any way, the cells of a row stand one below the other."""
    spare = [title for title in grid.spare if title in grid.titles]
    for left_out in (spare[:number] for number in range(len(spare) + 1)):
        if (whole := grid.without(left_out)).fits(console.width):
            _print_rows(console, whole)
            _say_left_out(console, left_out)
            return
    _print_records(console, grid)


def _say_left_out(console: Console, titles: Sequence[str]) -> None:
    if titles:
        words = f"not shown, as the screen is too narrow: {', '.join(titles)}"
        print_text(console, Text(words, "dim"))


def _styled(grid: Grid) -> Iterator[tuple[Sequence[str], str]]:
    for place, row in enumerate(grid.rows):
        yield row, (grid.styles[place] or "") if grid.styles else ""


def _print_rows(console: Console, grid: Grid) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, header_style="dim")
    for title, side in grid.columns:
        # Rich takes the width that is missing from the columns that may wrap; the cells themselves do not.
        table.add_column(
            title, justify="right" if side == "right" else "left", no_wrap=title != grid.stretch, overflow="ellipsis"
        )
    for row, style in _styled(grid):
        table.add_row(*(Text(cell, no_wrap=True) for cell in row), style=style)
    console.print(table)


def _print_records(console: Console, grid: Grid) -> None:
    room = max(map(len, grid.titles)) + 2
    for number, (row, style) in enumerate(_styled(grid)):
        if number:
            console.print()
        for title, cell in zip(grid.titles, row, strict=True):
            print_text(console, Text(cell.strip(), style), f"{title:<{room}}")
