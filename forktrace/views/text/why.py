"""Why one process was a zombie for as long as it was: its chain from the fork to the reap, and what would help."""

from __future__ import annotations

from typing import Final

import pandas as pd
from rich.console import Console
from rich.text import Text

from forktrace.analysis.recording import Recording
from forktrace.views.text.screen import print_text
from forktrace.views.why import late
from forktrace.views.why.chain import chain
from forktrace.views.why.sentences import Line
from forktrace.views.words import shorten
from forktrace.views.zombies import worst, zombies_in

MOST_SOURCE: Final = 70
NO_ZOMBIE: Final = "No process of this recording was a zombie."


def why(recording: Recording, process: int | None, console: Console) -> None:
    """Print the chain of the process with id `process`; None: of the one with most harm. Names from the trace are escaped."""
    chosen = most_harm(recording) if process is None else process
    if chosen is None:
        print_text(console, Text(NO_ZOMBIE, "green"))
        return
    headline, *lines = chain(recording, chosen)
    print_text(console, Text(headline.text, headline.style))
    room = max((len(line.mark) for line in lines), default=0) + 1
    for line in lines:
        before, item = f" {line.mark:<{room}}", line.text.startswith("- ")
        text = line.text.removeprefix("- ")
        print_line(console, line._replace(text=text), f"{before}- " if item else before)
    zombies = zombies_in(recording)
    if process is None and zombies > 1:
        more = "the report names the others, and `forktrace why TRACE PID` explains one of them"
        print_text(console, Text(f"The first to look at of {zombies:,} zombies; {more}.", "dim"))


def most_harm(recording: Recording) -> int | None:
    """Return the worst zombie; else who failed unnoticed, or was waited for until the end; None: all is well."""
    found = worst(recording)
    if found is None:
        lost = late.asked(recording).query("lost and failed")["child_id"]
        waits = recording.open_waits()
        rest = pd.concat([lost.astype("Int64"), waits["child_id"].fillna(waits["id"])])
        found = None if rest.empty else int(rest.iloc[0])
    return found


def print_line(console: Console, line: Line, before: str) -> None:
    """Print a line, its source line beside it, or below where there is no room."""
    text, room = Text(line.text, line.style), console.width - len(before)
    if line.source is None:
        print_text(console, text, before)
        return
    source = Text(shorten(line.source, max(min(MOST_SOURCE, room), 10)), "cyan")
    if len(text) + 3 + len(source) <= room:
        print_text(console, Text.assemble(text, "   ", source), before)
    else:
        print_text(console, text, before)
        print_text(console, source, " " * len(before))
