"""One moment of a recording, as `ps` would have shown it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from forktrace.analysis.causes.names import name, printable
from forktrace.analysis.recording import Recording
from forktrace.trace.words import count
from forktrace.views.words import some


def lines(recording: Recording, time_ns: int) -> Iterator[str]:
    """Yield a heading and one line per process that was there at `time_ns`, CLOCK_BOOTTIME ns, in fork order.

    STAT is `Z` for a zombie and `-` for all else: whether a process ran, slept or was stopped is not recorded. `?` is not
    known. ELAPSED is since the fork, as `ps` writes it. `doubts` names what the trace does not know for sure.
    """
    table = recording.processes_at(time_ns)
    cells = [("PID", "PPID", "STAT", "ELAPSED", "COMMAND")]
    columns = ["pid", "ppid", "state", "elapsed_ms", "comm", "argv"]
    for pid, ppid, state, elapsed_ms, comm, argv in table[columns].astype(object).itertuples(index=False):
        stat = {"zombie": "Z", "running": "-"}.get(state, "?")
        cells.append((str(pid), _known(ppid), stat, elapsed(elapsed_ms), _command(state, comm, argv)))
    wide = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, parent, stat, since, command in cells:
        yield f"{number:>{wide[0]}}  {parent:>{wide[1]}}  {stat:<{wide[2]}}  {since:>{wide[3]}}  {command}"


def headline(recording: Recording, time_ns: int) -> str:
    """Return which moment this is and how many processes and zombies were there."""
    table = recording.processes_at(time_ns)
    clock = datetime.fromtimestamp((time_ns + recording.header["clock_offset_ns"]) / 1e9, UTC).astimezone()
    when = f"{clock:%Y-%m-%d %H:%M:%S}.{clock.microsecond // 1000:03}"
    zombies = count(int((table["state"] == "zombie").sum()), "zombie")
    return f"{(time_ns - recording.start_ns) / 1e9:+.3f} s, {when}: {count(len(table), 'process')}, {zombies}"


def doubts(recording: Recording, time_ns: int) -> Iterator[str]:
    """Yield what of that moment the trace does not know for sure."""
    table = recording.processes_at(time_ns)
    unsure = table[~table["complete"]]
    for note, rows in unsure.groupby("notes", sort=False):
        yield f"not certain: {some(rows['pid'].head(4).astype(str).tolist(), len(rows))} ({note})"
    moved = table[table["ppid"].isna()]
    if len(moved):
        yield f"not known: the new parent of {some(moved['pid'].head(4).astype(str).tolist(), len(moved))}"
    if lost := recording.lost(before_ns=time_ns):
        what = ", ".join(f"{number:,} of {printable(kind)}" for kind, number in lost.items())
        yield f"lost before or around this moment: {what}: processes may be missing here, or shown though they had gone"


def elapsed(ms: float) -> str:
    """Return a duration as `ps` writes ELAPSED: `00:05`, `01:02:03`, `4-01:02:03`."""
    minutes, seconds = divmod(max(int(ms // 1000), 0), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours:02}:{minutes:02}:{seconds:02}" if days or hours else f"{minutes:02}:{seconds:02}"
    return f"{days}-{clock}" if days else clock


def _known(number: Any) -> str:
    return "?" if pd.isna(number) else str(number)


def _command(state: Any, comm: Any, argv: Any) -> str:
    """As `ps -ef` has it: a zombie has no arguments any more, and a name in brackets is not a command line."""
    if state == "zombie":
        return f"[{name(comm)}] <defunct>"
    return f"[{name(comm)}]" if pd.isna(argv) else printable(" ".join(shlex.split(argv)))
