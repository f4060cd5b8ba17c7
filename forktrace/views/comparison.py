"""What changed between recordings, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from forktrace.analysis.comparison.changes import Change, Comparison, Row, Side
from forktrace.trace.words import NOTICEABLE_MS, count, duration, printable

NAMES: Final = {
    "zombie-seconds": "zombie seconds per 1,000 forks",
    "max-zombie": "longest zombie",
    "unreaped": "never reaped",
    "stolen": "stolen exit statuses",
    "failed-forks": "failed forks",
    "fork-rate": "forks per second",
    "empty-polls": "waits that found no child",
}
CHANCE: Final = "~"  # marks a difference that chance explains


def sentence(found: Comparison) -> str:
    """Return what matters most, in a sentence."""
    total = found.figure("zombie-seconds")
    old, new = value(total.name, total.old), value(total.name, total.new)
    if total.missing:
        words = f"{NAMES[total.name]} cannot be compared: {printable(total.missing[0])}"
    elif total.old == total.new:
        words = f"{NAMES[total.name]} are {new} as before"
    elif total.sure:
        words = f"{NAMES[total.name]} {'fell' if total.new < total.old else 'rose'} from {old} to {new}"
    else:
        words = f"{NAMES[total.name]} were {old} and are {new}, a difference that chance explains"
    return "; ".join([words, *_lines(found)][:3])


def _lines(found: Comparison) -> Iterator[str]:
    """The lines that leave no zombies any more, and those that leave some now."""
    old, new = ({_place(row) for row in found.rows if _noticed(row, is_old)} - {""} for is_old in (True, False))
    if gone := sorted(old - new):
        yield _say(gone, "no longer leaves any", "no longer leave any")
    if come := sorted(new - old):
        yield _say(come, "leaves some now", "leave some now")


def _say(lines: list[str], one: str, several: str) -> str:
    if len(lines) == 1:
        return f"{printable(lines[0])} {one}"
    return f"{printable(lines[0])} and {count(len(lines) - 1, 'other')} {several}"


def _noticed(row: Row, is_old: bool) -> bool:
    side = row.old if is_old else row.new
    return side.max_ms >= NOTICEABLE_MS or bool(side.still)


def _place(row: Row) -> str:
    """`consumer.py:55`, the new line where there is one; nothing where it is not known."""
    line = row.new_line or row.old_line
    return f"{line.path}:{line.number}" if line and line.path else ""


def value(name: str, number: float) -> str:
    """Return a figure in words."""
    if name == "max-zombie":
        return duration(number * 1000)
    if name in ("zombie-seconds", "fork-rate"):
        return f"{number:,.0f}" if number >= 100 or number == 0 else f"{number:.3g}"
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"


def figures(found: Comparison) -> list[tuple[str, str, str, str]]:
    """Return the figures: name, old, new, and remarks."""
    return [(NAMES[one.name], value(one.name, one.old), value(one.name, one.new), _remark(found, one)) for one in found.figures]


def _remark(found: Comparison, one: Change) -> str:
    if one.missing:
        return "not compared"
    judged = max(found.runs) > 1 or one.name == "zombie-seconds"
    return CHANCE if judged and not one.sure and one.old != one.new else ""


def groups(found: Comparison) -> Iterator[tuple[str, list[Row]]]:
    """Yield the rows that changed, those that are gone, those that are new, and those that are the same, with a title."""
    for title, rows in (
        ("On both sides", [row for row in found.rows if row.old_line and row.new_line]),
        ("Gone", [row for row in found.rows if not row.new_line]),
        ("New", [row for row in found.rows if not row.old_line]),
    ):
        if rows:
            yield title, rows


def where(row: Row) -> str:
    """Return the line of a row: the new one, and the old one where it has moved."""
    line = row.new_line or row.old_line
    moved = row.old_line and row.new_line and row.old_line.number != row.new_line.number
    return printable(line.text if line else "") + (f" (was :{row.old_line.number})" if moved and row.old_line else "")


def cells(row: Row) -> list[str]:
    """Return what a row says, old and new: how many, seconds per 1,000 forks, the longest, and two quantiles."""
    sides = (row.old, row.new)
    rates = (value("zombie-seconds", one.per_1000_s) if one.processes else "-" for one in sides)
    quantiles = (f"{_time(one.p50_ms)}, {_time(one.p90_ms)}" if one.processes else "-" for one in sides)
    mark = "" if row.sure else f" {CHANCE}"
    return [_pair(*map(_number, sides)), _pair(*rates) + mark, _pair(*map(_longest, sides)), _pair(*quantiles)]


def _pair(old: str, new: str) -> str:
    return old if old == new else f"{old} > {new}"


def _number(side: Side) -> str:
    return f"{side.processes:,}" if side.processes else "-"


def _time(ms: float) -> str:
    return "not yet" if math.isnan(ms) else duration(ms)


def _longest(side: Side) -> str:
    return f"{duration(side.max_ms)}{' +' if side.still else ''}" if side.processes else "-"


def how(found: Comparison) -> str:
    """Return how it was compared."""
    old, new = found.runs
    if max(found.runs) > 1:
        return (
            f"{count(old, 'run')} against {count(new, 'run')}: {CHANCE} where a U test over the runs finds no difference (5 %)"
        )
    words = "where the 95 % interval of a bootstrap over clearing calls holds 0"
    return f"one run a side: {CHANCE} {words}; seed {found.seed}"
