"""Which part of a recording is wanted: a process with what it started, and a stretch of time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.names import name
from forktrace.analysis.log import Flags, Ints
from forktrace.errors import UsageError
from forktrace.trace.rotation import File, Rotation

_DAY_NS: Final = 24 * 3600 * 10**9
_UNITS_NS: Final = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


@dataclass(frozen=True)
class Selection:
    """`ids` of the processes that are wanted (None: all), and the first and the last ns (None: open)."""

    ids: Ints | None = None
    since_ns: int | None = None
    until_ns: int | None = None

    def in_time(self, time_ns: Ints) -> Flags:
        """Return which moments lie in the stretch, its ends included."""
        return self.overlaps(time_ns, time_ns)

    def overlaps(self, first_ns: Ints, last_ns: Ints) -> Flags:
        """Return which spans share a moment with the stretch."""
        wanted = np.ones(len(first_ns), bool)
        if self.since_ns is not None:
            wanted &= last_ns >= self.since_ns
        if self.until_ns is not None:
            wanted &= first_ns <= self.until_ns
        return wanted

    def of_ids(self, *columns: pd.Series) -> Flags:
        """Return the rows that name a wanted process in any of `columns`."""
        if self.ids is None:
            return np.ones(len(columns[0]), bool)
        named: Flags = np.logical_or.reduce([column.isin(self.ids).to_numpy(bool) for column in columns])
        return named


def find_process(lifecycles: pd.DataFrame, text: str) -> int:
    """Return the id of the process that `text` names: `4711`, or `#12` for the row 12.

    Raises:
        UsageError: none has that number, or several have; these are listed with their `#ID`.
    """
    number = text.removeprefix("#")
    if not re.fullmatch(r"[0-9]{1,18}", number):
        raise UsageError(f"{text}: neither a process number nor #ID")
    found = lifecycles[lifecycles["id" if text.startswith("#") else "pid"] == int(number)]
    if found.empty:
        raise UsageError(f"no process {text} in this recording")
    if len(found) > 1:
        times = found["fork_time"].dt.strftime("%H:%M:%S.%f").str[:-3]
        listed = "\n".join(
            f"  #{i}  {t} UTC  {c}" for i, t, c in zip(found["id"], times, map(name, found["comm"]), strict=True)
        )
        raise UsageError(f"{len(found)} processes had the number {text}", f"name one of them:\n{listed}")
    return int(found["id"].iloc[0])


def descendants(lifecycles: pd.DataFrame, process: int) -> Ints:
    """Return the ids of `process` and of all that it and its children started, sorted."""
    parent = lifecycles["parent_id"].to_numpy(np.int64, na_value=-1)
    ancestor = np.append(np.where(np.arange(len(parent)) == process, process, parent), -1)
    for _ in range(len(parent).bit_length()):  # each time twice as far up; the last place stands for -1
        ancestor = ancestor[ancestor]
    return np.flatnonzero(ancestor[:-1] == process)


def span_ns(text: str) -> int | None:
    """Return the ns of `0.9s`, `500ms`, `1.5m` (also `ns us h`, with a sign); None: it is written otherwise."""
    if not (match := re.fullmatch(r"([+-]?[0-9]{1,12}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h)", text.strip())):
        return None
    whole, _, fraction = match[1].partition(".")
    return int(whole + fraction) * _UNITS_NS[match[2]] // int("1" + "0" * len(fraction))


def window(rotation: Rotation, since: str | None, until: str | None) -> tuple[int | None, int | None]:
    """Return the moments (CLOCK_BOOTTIME ns) that two texts mean in a rotation, None for None; `parse_time` reads them.

    A time of day is the last one before the newest file was written to.
    """
    newest = rotation.files[-1]
    end_ns = os.stat(newest.path).st_mtime_ns - newest.header["clock_offset_ns"]
    known = (file.header["target_start_ns"] for file in rotation.files)
    target_ns = next((one for one in known if one is not None), newest.header["rotation"])
    first, last = (None if text is None else _in_rotation(text, target_ns, end_ns, newest) for text in (since, until))
    return first, last


def _in_rotation(text: str, target_ns: int, end_ns: int, newest: File) -> int:
    origin_ns = target_ns if span_ns(text) is not None else max(target_ns, end_ns - _DAY_NS)
    return parse_time(text, origin_ns=origin_ns, clock_offset_ns=newest.header["clock_offset_ns"])


def parse_time(text: str, *, origin_ns: int, clock_offset_ns: int) -> int:
    """Return the CLOCK_BOOTTIME ns that `text` means.

    `0.9s` (also `ns us ms m h`) counts from `origin_ns`, the target's start. Otherwise a wall clock, of this machine's time
    zone unless it names one: `2026-11-23T10:27:43.5`, or `10:27:43.5`: the first such time from the target's start on.

    Raises:
        UsageError: neither.
    """
    if (span := span_ns(text)) is not None:
        return origin_ns + span
    origin = datetime.fromtimestamp((origin_ns + clock_offset_ns) // 10**9).astimezone()
    try:
        moment = _wall_clock(text.strip(), origin)
    except (ValueError, OverflowError):
        raise UsageError(f"{text}: no time", "write 0.9s after the target's start, or a wall clock like 10:27:43.5") from None
    since_epoch = moment - datetime.fromtimestamp(0, moment.tzinfo)
    return since_epoch // timedelta(microseconds=1) * 1000 - clock_offset_ns


def _wall_clock(text: str, origin: datetime) -> datetime:
    if not re.match(r"[0-9]{1,2}:", text):
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.astimezone()
    moment = _on_day(origin.date(), text)
    return moment if moment >= origin else _on_day(origin.date() + timedelta(days=1), text)


def _on_day(day: date, text: str) -> datetime:
    moment = datetime.fromisoformat(f"{day.isoformat()}T{text.zfill(len(text) + (text[1] == ':'))}")
    return moment if moment.tzinfo else moment.astimezone()
