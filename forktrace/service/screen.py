"""The screen of `forktrace top`: a row for each parent, kept up to date, by textual."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

from rich.console import Console
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static

from forktrace.errors import ForktraceError
from forktrace.now.inquiry import Inquirer
from forktrace.service.parents import NOT_LOOKED, Parents, Row
from forktrace.trace.snapshot import Snapshot
from forktrace.trace.words import printable
from forktrace.views.text import inquiry
from forktrace.views.text.inquiry import place_of
from forktrace.views.text.ps import age, headline, hidden, name, picture

EVERY_S: Final = 2.0
_MOST_ROWS: Final = 200


class Column(NamedTuple):
    """A column: its title, its width, what its cells say, and what it is sorted by, the largest first."""

    title: str
    width: int | None
    text: Callable[[Row], str]
    order: Callable[[Row], Any]


def _number(value: float | None, form: str = "{:,}") -> str:
    return "-" if value is None else form.format(value)


def _oldest(row: Row) -> str:
    return age(row.parent.zombies[0]) if row.parent.zombies else "-"


def _oldest_s(row: Row) -> float:
    return row.parent.zombies[0].age_at_most_s if row.parent.zombies else 0.0


def _room(row: Row) -> int | None:
    return row.parent.limits[0].left if row.parent.limits else None


COLUMNS: Final = (
    Column("zombies", 7, lambda row: f"{len(row.parent.zombies):,}", lambda row: len(row.parent.zombies)),
    Column("in/min", 6, lambda row: _number(row.came), lambda row: row.came or 0),
    Column("out/min", 7, lambda row: _number(row.went), lambda row: row.went or 0),
    Column("oldest", 9, _oldest, _oldest_s),
    Column("room", 7, lambda row: _number(_room(row)), lambda row: -(_room(row) or 1 << 62)),
    Column("forks/s", 7, lambda row: _number(row.forks_s, "{:,.1f}"), lambda row: row.forks_s or 0),
    Column("parent", None, lambda row: name(row.parent), lambda row: -row.parent.pid),
)

_NO_LINE: Final = {
    "denied": "a line that only its own user and root may see",
    "not-python": "no Python line: it is no Python program",
    "gone": "no line: it has ended",
    NOT_LOOKED.status: "a line that is not looked for: others have more zombies",
}


class Table(DataTable[Text]):
    """The rows, with what Enter does in the footer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "why")]


class Top(App[None]):
    """Looks at the parents every `every_s` seconds, until it is left.

    `limits` says what cannot be seen this way. `keep` writes the last minute as a trace and says so; None: nothing is recorded.
    """

    TITLE = "forktrace top"
    CSS = """
    #head, #about, #limits { height: auto; }
    #about { border-top: solid $secondary; }
    #filter { display: none; }
    Table { height: 1fr; }
    Why { align: center middle; }
    Why VerticalScroll { width: 95%; height: 90%; border: round $accent; background: $surface; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "sort"),
        Binding("slash", "filter", "filter"),
        Binding("space", "freeze", "freeze"),
        Binding("w", "keep", "write"),
        Binding("q", "quit", "quit"),
    ]

    def __init__(
        self,
        parents: Parents,
        *,
        limits: Callable[[], Sequence[str]] = tuple,
        keep: Callable[[], str] | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        super().__init__()
        self._parents, self._limits, self._keep, self._every_s = parents, limits, keep, every_s
        self._seen: Snapshot | None = None
        self._rows: list[Row] = []
        self._shown: list[Row] = []
        self._sorted_by, self._wanted, self._is_frozen, self._is_looking = 0, "", False, False
        self._drawn: list[list[Text]] = []
        self._said: dict[Static, Text] = {}
        self.table = Table(cursor_type="row", zebra_stripes=True)
        self._head, self._about = Static(Text("looking ..."), id="head"), Static(id="about")
        self._below = Static(id="limits")

    def compose(self) -> ComposeResult:
        """Yield the parts of the screen (textual.app.App)."""
        yield self._head
        yield self.table
        yield self._about
        yield self._below
        yield Input(placeholder="part of a name, or a number", id="filter")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        for place, column in enumerate(COLUMNS):
            self.table.add_column(column.title, width=column.width, key=str(place))
        self.table.focus()
        self._look()
        self.set_interval(self._every_s, self._look)

    def _look(self) -> None:
        """Begin a look, unless the one before goes on: it may take longer on a busy machine."""
        if not self._is_frozen and not self._is_looking:
            self._is_looking = True
            self._look_in_thread()

    @work(thread=True)
    def _look_in_thread(self) -> None:
        seen, rows = self._parents.look()
        self.call_from_thread(self._take, seen, rows)

    def _take(self, seen: Snapshot, rows: list[Row]) -> None:
        self._is_looking = False
        if not self._is_frozen and self.is_running:
            self._seen, self._rows = seen, rows
            self._draw()

    def _draw(self) -> None:
        """Show the rows of now; the cursor stays on its parent, or where it was. What stays the same is not drawn again."""
        chosen, line = self.chosen, self.table.cursor_row
        order = COLUMNS[self._sorted_by].order
        found = [row for row in self._rows if self._wanted in name(row.parent)]
        self._shown = sorted(found, key=order, reverse=True)[:_MOST_ROWS]
        self._fill([_cells(row) for row in self._shown])
        places = [place for place, row in enumerate(self._shown) if chosen and row.parent.pid == chosen.parent.pid]
        self.table.move_cursor(row=places[0] if places else min(line, max(len(self._shown) - 1, 0)), animate=False)
        self._say(self._head, self._title())
        self._say(self._below, Text("\n".join(self._limits()), "dim"))
        self._tell()

    def _fill(self, cells: list[list[Text]]) -> None:
        if len(cells) != len(self._drawn):
            self.table.clear()
            for row in cells:
                self.table.add_row(*row)
        else:
            for line, (row, before) in enumerate(zip(cells, self._drawn, strict=True)):
                for column in (place for place, cell in enumerate(row) if _differ(cell, before[place])):
                    self.table.update_cell_at(Coordinate(line, column), row[column])
        self._drawn = cells

    def _say(self, part: Static, text: Text) -> None:
        if part not in self._said or _differ(text, self._said[part]):
            self._said[part] = text
            part.update(text)

    def _title(self) -> Text:
        state = f"  sorted by {COLUMNS[self._sorted_by].title}"
        state += f"; only {printable(self._wanted)}" if self._wanted else ""
        state += "; frozen" if self._is_frozen else ""
        assert self._seen is not None
        return Text.assemble((headline(self._seen), "bold"), (state, "dim"), *(f"\n{line}" for line in hidden(self._seen)))

    @property
    def chosen(self) -> Row | None:
        """The row that the cursor is on."""
        place = self.table.cursor_row
        return self._shown[place] if 0 <= place < len(self._shown) else None

    def _tell(self) -> None:
        """Say more of the parent that the cursor is on."""
        text = about_row(self.chosen) if self.chosen else Text("no parent of zombies", "dim")
        self._say(self._about, text)

    def on_data_table_row_highlighted(self) -> None:
        """The cursor has moved."""
        self._tell()

    def on_data_table_row_selected(self) -> None:
        """Enter, or a click on the row that the cursor is on."""
        if self.chosen:
            self.push_screen(Why(self.chosen.parent.pid))

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click on a title sorts by it."""
        self._sort_by(event.column_index)

    def action_sort(self) -> None:
        """Sort by the next column."""
        self._sort_by((self._sorted_by + 1) % len(COLUMNS))

    def _sort_by(self, column: int) -> None:
        self._sorted_by = column
        if self._seen:
            self._draw()

    def action_freeze(self) -> None:
        """Freeze the screen, or let it go on."""
        self._is_frozen = not self._is_frozen
        if self._seen:
            self._draw()
        self._look()

    def action_filter(self) -> None:
        """Ask for a part of the name."""
        field = self.query_one("#filter", Input)
        field.styles.display = "block"
        field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as the text is typed."""
        self._wanted = event.value
        if self._seen:
            self._draw()

    def on_input_submitted(self) -> None:
        """Return to the rows."""
        self.query_one("#filter", Input).styles.display = "none" if not self._wanted else "block"
        self.table.focus()

    def action_keep(self) -> None:
        """Write the last minute as a trace."""
        if self._keep is None:
            self.notify("nothing is recorded: sudo forktrace top -p PID, or --cgroup PATH", severity="warning")
            return
        self.notify(self._keep())


def _cells(row: Row) -> list[Text]:
    """The cells of a row; red where forks are about to fail."""
    style = "red" if row.parent.fails_in_s is not None else ""
    return [Text(one.text(row), style, justify="left" if one.width is None else "right") for one in COLUMNS]


def _differ(one: Text, other: Text) -> bool:
    """Whether they look different: rich compares their characters alone."""
    return one != other or one.style != other.style


def about_row(row: Row) -> Text:
    """Return two lines about a parent."""
    cause = f"; last child released by {row.cause}" if row.cause else ""
    return Text.assemble((name(row.parent), "bold"), f"\nstands at {site_of(row)}{cause}")


def site_of(row: Row) -> str:
    """Return the line of the program's own on which the main thread of a parent stands; or why there is none."""
    thread = row.main_thread
    if not thread.frames:
        return _NO_LINE.get(thread.status, f"? ({thread.status})")
    return place_of(thread.frames, dict.fromkeys(thread.libraries, thread.version), row.parent.argv or ())


class Why(ModalScreen[None]):
    """What `forktrace why -p` says of a process at once."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q", "dismiss", "back"),
    ]

    def __init__(self, pid: int) -> None:
        super().__init__()
        self._pid = pid

    def compose(self) -> ComposeResult:
        """Yield its parts (textual.screen.Screen)."""
        with VerticalScroll():
            yield Static(Text("looking ..."))

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one(VerticalScroll).focus()
        self._look()

    @work(thread=True)
    def _look(self) -> None:
        text = self._text(max(self.app.size.width * 9 // 10 - 4, 20))
        self.app.call_from_thread(self.query_one(Static).update, text)

    def _text(self, width: int) -> Text:
        try:
            with Inquirer(self._pid) as inquirer:
                seen = inquirer.look()
        except ForktraceError as error:
            return Text(f"{error}")
        if seen is None:
            return Text(f"process {self._pid} has just ended")
        return picture(Console(width=width, color_system="standard"), partial(inquiry.show, seen=seen))
