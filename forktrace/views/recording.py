"""A recording as people at a prompt or in a notebook have it: with the words of the commands `report` and `why`."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator

from rich.console import Console

from forktrace.analysis import recording
from forktrace.analysis.causes.names import Names
from forktrace.trace import rotation
from forktrace.views.pictures import page
from forktrace.views.pictures.page import Page
from forktrace.views.text import report, why
from forktrace.views.text.report_tables import zombie_table
from forktrace.views.zombies import without_recorder


class Recording(recording.Recording):
    """The tables of one trace, or of a part of it, and what the commands `report`, `why` and `page` say of it."""

    def report(self) -> None:
        """Print the report: what matters most, the longest zombies, why they were reaped, and what is not known."""
        report.report(self, Console())

    def why(self, process: int | str | None = None) -> None:
        """Print why a process was a zombie, by its number or as `"#12"`; None: the one to look at first.

        Raises:
            UsageError: none has that number, or several have.
        """
        why.why(self, None if process is None else self.find_process(str(process)), Console())

    def page(self) -> Page:
        """Return the page of the command `page`, which a notebook shows."""
        return page.page(self)

    def _repr_html_(self) -> str:
        """Return the first lines of the report and the zombies to look at first: what a notebook shows of it."""
        return "".join(_page(self))


def read(path: str | os.PathLike[str], causes: str | os.PathLike[str] | None = None) -> Recording:
    """Return the recording in the trace `path`, a file or the directory of a rotation; `.cut` says when it was cut off.

    `causes` is a file of rules that come before the built-in ones (docs/causes.md).

    Raises:
        FileNotFoundError: there is no such file; it is a ForktraceError too.
        TraceError: empty, damaged, not a trace, or from a newer forktrace.
        UsageError: the file of rules is none.
    """
    return Recording(rotation.read_trace(path), causes=causes)


def _page(made: Recording) -> Iterator[str]:
    for line in report.summary(made):
        yield f"<p>{html.escape(line.plain)}</p>"
    grid = zombie_table(without_recorder(made.lifecycles()), Names(made.whole.lifecycles()))
    if grid.rows:
        yield f"<table><tr>{''.join(f'<th>{html.escape(title)}</th>' for title in grid.titles)}</tr>"
        yield from (f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in grid.rows)
        yield "</table>"
    yield "<p><code>recording.page()</code> shows all of it.</p>"
