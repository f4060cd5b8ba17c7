"""The tables of the report: the longest zombies, why and by whom processes were reaped, and where they were started."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.requests import start_sites
from forktrace.analysis.tables.lifecycles import LIVING
from forktrace.trace.words import count, duration
from forktrace.views import explanations
from forktrace.views.bounds import bound_of, zombie_time
from forktrace.views.findings import Facts, common
from forktrace.views.text.screen import Grid
from forktrace.views.words import place, short_site, shorten, without_folders
from forktrace.views.zombies import first_row, is_noticed, rows, worst_first

MOST_ROWS: Final = 10
MOST_SITE: Final = 40  # characters of a source line
_OF_REAPS: Final = [
    *("state", "zombie_ms", "reaper_id", "reaper_pid"),
    *("reap_call", "reap_target", "reap_options", "reap_site"),
]
_ALIKE: Final = [name for name in _OF_REAPS if name != "zombie_ms"]
_OF_ZOMBIES: Final = ("id", "pid", "comm", "argv", "exit_code", "term_signal", "core_dumped", "zombie_ms", "zombie_open")


def ended(row: Any) -> str:
    """Return `exited 0`, `SIGKILL`, `SIGSEGV, core dumped`, or `?`."""
    if not pd.isna(row.term_signal):
        return f"{row.term_signal}{', core dumped' if row.core_dumped else ''}"
    return "?" if pd.isna(row.exit_code) else f"exited {row.exit_code}"


def call(row: Any) -> str:
    """Return `wait4(pid, WNOHANG)`."""
    arguments = [str(part) for part in (row.reap_target, row.reap_options) if not pd.isna(part) and part]
    return f"{_call_of(row) or '?'}({', '.join(arguments)})"


def _call_of(row: Any) -> str:
    """`wait4`; "" where it is not known."""
    return "" if pd.isna(row.reap_call) else str(row.reap_call)


def reaped_by(row: Any, names: Names, full: bool = False) -> str:
    """Return `4700 consumer.py:33`, `4700 wait4(pid, WNOHANG)` where no line is known, or how else it was released."""
    if row.state != "gone":
        return "nobody yet"
    name, reaper = _call_of(row), names.of(row.reaper_id, row.reaper_pid, full)
    if name == "autoreap":
        return "nobody: SIGCHLD ignored"
    if name in ("kernel", "unseen"):
        return "kernel: PID namespace died" if name == "kernel" else f"{reaper}, wait not seen"
    if not name and reaper == "?":
        return "not seen"
    if not pd.isna(row.reap_site):
        return f"{reaper} {short_site(printable(row.reap_site) if full else place(row.reap_site), MOST_SITE)}"
    return f"{reaper} {call(row)}"


def zombie_table(table: pd.DataFrame, names: Names) -> Grid:
    """Return the zombies that lasted, each with the line that started it and the one that reaped it."""
    longest = worst_first(table[is_noticed(table)]).head(MOST_ROWS)
    longest = longest.assign(started=start_sites(longest))
    by_line = longest["started"].notna().any()
    columns = {"pid": "right", "command": "left"}
    columns |= {"started at": "left"} if by_line else {}
    columns |= {"ended": "left", "zombie": "right", "reaped by": "left"}
    columns |= {"why": "left"} if longest["reap_cause"].notna().any() else {}
    cells = [_zombie_cells(row, names) for row in rows(longest)]
    lines = [[one[title] for title in columns] for one in cells]
    styles = ["red" if still else None for still in longest["zombie_open"]]
    stretch, spare = ("started at", ("command", "ended")) if by_line else ("command", ("ended",))
    least = max((len(one["started at"]) for one in cells), default=0) if by_line else 8
    facts = [_zombie_facts(row, names) for row in rows(longest)]
    return Grid(list(columns.items()), lines, stretch, least, styles, spare, facts)


def _zombie_facts(row: Any, names: Names) -> Facts:
    found = {name: getattr(row, name) for name in (*_OF_ZOMBIES, *_OF_REAPS)}
    words = {"bound": bound_of(row), "text": reaped_by(row, names, full=True)}
    return {**found, "site": row.started, "cause": row.reap_cause, **words}


def _zombie_cells(row: Any, names: Names) -> dict[str, str]:
    command = row.comm if pd.isna(row.argv) else row.argv
    command = "?" if pd.isna(command) else without_folders(printable(command))
    return {
        "pid": names.pid(row.id),
        "command": shorten(command, MOST_SITE),
        "started at": "?" if pd.isna(row.started) else short_site(place(row.started), MOST_SITE // 2),
        "ended": ended(row),
        "zombie": zombie_time(row) + (" +" if row.zombie_open else "  "),
        "reaped by": reaped_by(row, names),
        "why": "?" if pd.isna(row.reap_cause) else row.reap_cause,
    }


def cause_table(table: pd.DataFrame) -> Grid:
    """Return how many were reaped for which cause, and how long they were zombies."""
    columns = (("processes", "right"), ("why", "left"), ("in words", "left"), ("longest", "right"), ("all zombies", "right"))
    zombies = table.loc[table["reap_cause"].notna() & table["reap_cause"].ne("recorder"), ["reap_cause", "zombie_ms"]]
    groups = zombies.groupby("reap_cause", observed=True)["zombie_ms"].agg(["size", "max", "sum"])
    groups = groups.sort_values(["sum", "size"], ascending=False, kind="stable")
    facts = [
        {"processes": one.size, "cause": cause, "text": explanations.cause(cause).short, "max_ms": one.max, "total_ms": one.sum}
        for cause, one in zip(groups.index, rows(groups), strict=True)
    ]
    lines = [
        (f"{one['processes']:,}", one["cause"], one["text"], _longest(one["max_ms"]), _longest(one["total_ms"] or pd.NA))
        for one in facts
    ]
    return Grid(columns, lines, "in words", 16, spare=("in words",), facts=facts)


def _longest(ms: Any) -> str:
    return "-" if pd.isna(ms) else duration(ms)


def reap_table(table: pd.DataFrame, names: Names) -> Grid:
    """Return how many were reaped at which line, whoever ran it; where there is none, by which call of which program."""
    columns = (("processes", "right"), ("reaped by", "left"), ("longest zombie", "right"))
    ended = table.loc[~table["state"].isin(LIVING) & table["reap_cause"].ne("recorder").fillna(True), _OF_REAPS]
    way = _ways(ended, names)
    ways = int(way.max(initial=-1)) + 1
    facts = [_reapers_facts(ended[way == number], names) for number in range(min(ways, MOST_ROWS))]
    if len(rest := ended[way >= MOST_ROWS]):
        text = f"in {count(ways - MOST_ROWS, 'other way')}"
        facts.append({"processes": len(rest), "text": text, "max_ms": rest["zombie_ms"].max()})
    lines = [(f"{one['processes']:,}", one["text"], _longest(one["max_ms"])) for one in facts]
    return Grid(columns, lines, "reaped by", 24, facts=facts)


def _reapers_facts(group: pd.DataFrame, names: Names) -> Facts:
    """What a row is made of: of each column what all of the group have in common."""
    return {
        "processes": len(group),
        "text": _reapers_words(group, names),
        "max_ms": group["zombie_ms"].max(),
        "reapers": len(group[["reaper_pid", "reaper_id"]].drop_duplicates()),
        **{name: common(group[name]) for name in _ALIKE},
    }


def _ways(ended: pd.DataFrame, names: Names) -> npt.NDArray[np.int64]:
    """In which way each process was reaped, as a number: 0 is the most frequent way."""
    line = ended["reap_site"]
    without = ended.loc[line.isna(), ["reaper_id", "reaper_pid"]]
    reaper = without.groupby(["reaper_id", "reaper_pid"], dropna=False, sort=False).ngroup()
    called = [names.program(one.reaper_id, one.reaper_pid) for one in rows(without.drop_duplicates())]
    program = np.full(len(ended), "", object)
    program[line.isna()] = np.array(called, object)[reaper]
    calls = [ended[name].mask(line.notna()) for name in ("reap_call", "reap_target", "reap_options")]
    keys = [ended["state"], line, program, *calls]
    number = ended.groupby(keys, dropna=False, observed=True, sort=False).ngroup().to_numpy(np.int64)
    rank = np.argsort(np.argsort(-np.bincount(number), kind="stable")).astype(np.int64)
    return rank[number]


def _reapers_words(group: pd.DataFrame, names: Names) -> str:
    """`4700 python consumer.py:33 drain`; of more than one process `consumer.py:33 drain of 54 processes`."""
    first, reapers = first_row(group), len(group[["reaper_pid", "reaper_id"]].drop_duplicates())
    if reapers == 1 or pd.isna(first.reap_call) or first.reap_call in ("autoreap", "kernel", "unseen"):
        return reaped_by(first, names, full=True)
    by_call = f"{names.program(first.reaper_id, first.reaper_pid)} {call(first)}"
    what = by_call if pd.isna(first.reap_site) else short_site(printable(first.reap_site), MOST_SITE)
    return f"{what} of {count(reapers, 'process')}"


def start_table(table: pd.DataFrame) -> Grid:
    """Return how many processes which line started."""
    columns = (("processes", "right"), ("line", "left"), ("made by", "left"), ("longest zombie", "right"))
    started = table[["created_by", "zombie_ms"]].assign(site=start_sites(table)).dropna(subset=["site"])
    groups = started.groupby(["site", "created_by"], dropna=False, observed=True, sort=False)["zombie_ms"]
    sizes = groups.agg(["size", "max"]).sort_values("size", ascending=False, kind="stable")
    facts: list[Facts] = [
        {"processes": row.size, "site": row.site, "created_by": row.created_by, "max_ms": row.max}
        for row in rows(sizes.head(MOST_ROWS).reset_index())
    ]
    lines = [_start_cells(one) for one in facts]
    if len(rest := sizes[MOST_ROWS:]):
        text, processes, max_ms = f"at {len(rest):,} other lines", rest["size"].sum(), rest["max"].max()
        facts.append({"processes": processes, "text": text, "max_ms": max_ms})
        lines.append((f"{processes:,}", text, "", _longest(max_ms)))
    return Grid(columns, lines, "line", 24, facts=facts)


def _start_cells(one: Facts) -> tuple[str, str, str, str]:
    made: str = "?" if pd.isna(one["created_by"]) else str(one["created_by"])
    return f"{one['processes']:,}", short_site(printable(one["site"]), MOST_SITE), made, _longest(one["max_ms"])
