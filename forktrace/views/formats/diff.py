"""What changed between recordings as JSON, and as Markdown for a comment on a change."""

from __future__ import annotations

import math
from typing import Any, Final

from forktrace.analysis.comparison.changes import Comparison, Row, Side
from forktrace.analysis.comparison.runs import Line
from forktrace.trace.words import printable
from forktrace.views import comparison as words
from forktrace.views.formats.documents import opening, written
from forktrace.views.formats.github import cell

MOST_ROWS: Final = 20  # of each group in Markdown


def as_json(found: Comparison) -> str:
    """Return all of it; docs/json.md describes the fields. Times are in ms, rates in s per 1,000 forks, as their names say."""
    document = {
        **opening("diff"),
        "summary": words.sentence(found),
        "runs": {"old": found.runs[0], "new": found.runs[1]},
        "seed": found.seed,
        "figures": [one._asdict() | {"missing": list(one.missing)} for one in found.figures],
        "rows": [_row(row) for row in found.rows],
        "remarks": list(found.remarks),
    }
    return written(document)


def _row(row: Row) -> dict[str, Any]:
    lines = {"old_line": _line(row.old_line), "new_line": _line(row.new_line)}
    return {"cause": row.cause, **lines, "old": _side(row.old), "new": _side(row.new), "sure": row.sure}


def _line(line: Line | None) -> str | None:
    return None if line is None else line.text


def _side(side: Side) -> dict[str, Any]:
    return {name: None if isinstance(one, float) and math.isnan(one) else one for name, one in side._asdict().items()}


def as_markdown(found: Comparison) -> str:
    """Return a comment: a sentence, the figures, and the rows folded away."""
    lines = [f"**{cell(words.sentence(found))}.**", "", "| | old | new | |", "|---|--:|--:|---|"]
    lines += [f"| {' | '.join(map(cell, each))} |" for each in words.figures(found)]
    titles = ("line", "why", "zombies", "s per 1,000 forks", "longest", "p50, p90")
    for title, rows in words.groups(found):
        lines += ["", f"<details><summary>{title}: {len(rows):,}</summary>", ""]
        lines += [f"| {' | '.join(titles)} |", f"|{'---|' * 2}{'--:|' * 4}"]
        for row in rows[:MOST_ROWS]:
            lines.append(f"| {' | '.join(cell(one) for one in (words.where(row), row.cause, *words.cells(row)))} |")
        lines += [f"\nand {len(rows) - MOST_ROWS:,} more"] if len(rows) > MOST_ROWS else []
        lines += ["", "</details>"]
    return "\n".join([*lines, "", *(f"{cell(printable(one))}  " for one in (words.how(found), *found.remarks)), ""])
