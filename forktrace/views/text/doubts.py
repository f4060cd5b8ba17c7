"""What a report says of the recording itself: which part is shown, whether it is whole, and what it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.text import Text

from forktrace.analysis.causes.names import printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.balance import Balance
from forktrace.trace.events import WAIT_CALLS
from forktrace.trace.words import NO_PROCESS, count, size
from forktrace.views import clocks, explanations
from forktrace.views.text.screen import Grid
from forktrace.views.words import how_many


def limits(recording: Recording) -> Iterator[Text]:
    """Yield what of the recording is shown, and whether it is whole."""
    if recording.whole is not recording:
        shown = recording.selected
        parts = [f"{len(recording.lifecycles()):,} of {count(len(recording.whole.lifecycles()), 'process')}"]
        parts += [f"from {at(recording, shown.since_ns)} s"] if shown.since_ns is not None else []
        parts += [f"until {at(recording, shown.until_ns)} s"] if shown.until_ns is not None else []
        yield Text(f"Only a part is shown: {', '.join(parts)}.")
    yield from _rotation(recording)
    if recording.cut:
        yield Text(f"The trace is not whole: {printable(recording.cut)}.", "red")
    if recording.full:
        yield Text(f"The recording ended because the trace was full: --max-size {size(recording.full)}.", "yellow")
    if lost := recording.lost():
        what = how_many(lost)
        yield Text(f"Events were lost: {what}. What they may have touched is marked *: numbers are then lower bounds.", "red")


def _rotation(recording: Recording) -> Iterator[Text]:
    """What of a rotation is before and after what was read."""
    table = recording.whole.lifecycles()
    before, after = int(table["carried"].sum()), int((table["state"] == "continued").sum())
    parts = [f"{count(before, 'process')} began in an earlier file"] * bool(before)
    parts += [f"{count(after, 'process')} ran on into the next one"] * bool(after)
    if parts:
        yield Text(f"A part of a rotation: {', '.join(parts)}.")


def mark_of(recording: Recording) -> str:
    """Return what stands beside a number that a loss may have touched: `*`; "" when nothing was lost."""
    return "*" if recording.lost() else ""


def marked(grid: Grid, mark: str) -> Grid:
    """Return a table of sums with the mark at the titles of its numbers."""
    return grid._replace(columns=[(title + mark if side == "right" else title, side) for title, side in grid.columns])


def at(recording: Recording, time_ns: int) -> str:
    """Return a moment in s since the target's start: `+1.204`."""
    return f"{(time_ns - recording.start_ns) / 1e9:+.3f}"


def doubts(recording: Recording, table: pd.DataFrame) -> Iterator[Text]:
    """Yield what the trace does not know: rows that are not complete, and a sum that does not come out."""
    doubtful = table.loc[~table["complete"], "notes"]
    for note, number in doubtful.value_counts().items():
        yield Text(f"{count(number, 'process')}: {note}.")
    yield from _missing_stacks(table)
    for file, why in recording.not_walked:
        yield Text(f"The {explanations.not_walked(file, why)}.")
    inferred = int(table["notes"].str.contains("clearing start inferred", regex=False, na=False).sum())
    if inferred:
        yield Text(f"{count(inferred, 'process')}: which start cleared it is inferred from the order of calls of one thread.")
    yield from (Text(f"{one[0].upper()}{one[1:]}.") for one in clocks.set_while_recording(recording))
    yield from _balance(recording.balance())
    yield from _lacking(recording.header)


def _lacking(header: dict[str, Any]) -> Iterator[Text]:
    """What the kernel does not give, and what was not recorded on a machine that was too full."""
    lacks = [str(one) for one in header.get("lacks", ())]
    refused = [one for one in lacks if NO_PROCESS in one]
    given = [one for one in lacks if one not in refused]
    if given:
        yield Text(f"Linux {printable(header['kernel'])} does not give: {printable('; '.join(given))}.")
    yield from (Text(f"Not recorded: {printable(one)}.", "red") for one in refused)


def _balance(balance: Balance) -> Iterator[Text]:
    """The sum of all processes, where it does not come out, or something is missing."""
    if balance.holds and not balance.lost:
        return
    ended = f"{balance.reaped:,} reaped, {balance.autoreaped:,} autoreaped, {balance.zombie:,} zombies"
    known = f"{ended}, {balance.running:,} running and {balance.lost:,} lost"
    if balance.started != balance.known:
        yield Text(f"{count(balance.started, 'process')} were started, but known are {known}.", "red")
    else:
        yield Text(f"{count(balance.started, 'process')} were started: {known}.", "red")
    if balance.unexplained:
        yield Text(
            f"{count(balance.unexplained, 'release')} of these cannot be explained by what the kernel counted as lost.", "red"
        )


def _missing_stacks(table: pd.DataFrame) -> Iterator[Text]:
    """How many forks and reaps have no line of a program, by the reason."""
    forks = table.loc[table["origin"] == "forked", "fork_stack_status"]
    reaps = table.loc[table["reap_call"].isin(WAIT_CALLS), "reap_stack_status"]  # these always have a stack
    both = pd.concat([forks, reaps])
    if len(forks) and both.isna().all():
        yield Text("Recorded without Python stacks: no lines, and causes only where the kernel tells them.")
        return
    missing = both[both.notna() & (both != "ok")].value_counts()
    missing = missing[missing > 0]
    if len(missing):
        reasons = explanations.texts()["stack-count"]
        listed = ", ".join(f"{number:,} {reasons[status]}" for status, number in missing.items())
        yield Text(
            f"No or not the whole Python stack of {count(int(missing.sum()), 'fork or reap', 'forks and reaps')}: {listed}."
        )
