"""The report: what happened, in words and numbers, for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.text import Text

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.zombies import total_zombies
from forktrace.trace.words import count, duration
from forktrace.views import explanations, failed
from forktrace.views.bounds import zombie_time
from forktrace.views.text import late, orphans
from forktrace.views.text.doubts import at, doubts, limits, mark_of, marked
from forktrace.views.text.screen import Grid, print_grid, print_text
from forktrace.views.words import NOTICEABLE_MS, sender, short_site, some, title_of, without_folders

MOST_FINDINGS: Final = 3  # of each kind
MOST_ROWS: Final = 10
MOST_SITE: Final = 40  # characters of a source line in a table
_NO_LIBRARY: Final = ("os-fork", "posix-spawn", "native", "unknown")  # among what makes children: it has no name of its own


def report(recording: Recording, console: Console) -> None:
    """Print the report of `recording`: a summary, the findings, the longest zombies, and what the trace does not know.

    The first line says how the command fared, the second how bad the zombies were. Names from the trace are escaped.
    """
    names = Names(recording.whole.lifecycles(), recording.header["recorder_pid"])
    table, mark = recording.lifecycles(), mark_of(recording)
    if nothing := _nothing(recording, table):
        print_text(console, nothing)
        return
    for line in (*_summary(recording), *limits(recording)):
        print_text(console, line)
    _print_list(console, "What happened", _findings(table, names))
    _print_list(console, "Orphans that nobody reaps", orphans.lines(recording, names))
    _print_list(console, "Stolen exit statuses", _thefts(recording, names))
    _print_list(console, "Exit statuses that nobody got", late.lost_statuses(recording, names))
    _print_list(console, "Waits that came too late", late.late_lines(recording, names))
    _print_table(console, "Longest zombies", _zombie_table(table, names))
    _print_table(console, "Why they were reaped", marked(_cause_table(table), mark))
    _print_table(console, "Who reaped them", marked(_reap_table(table, names), mark))
    _print_table(console, "Where they were started", marked(_start_table(table), mark))
    _print_list(console, "Failed forks", failed.lines(recording, names))
    _print_list(console, "Killed by a signal", _killed(table, names))
    _print_list(console, "Not known for sure", doubts(recording, table))


def _nothing(recording: Recording, table: pd.DataFrame) -> Text | None:
    """Why there is nothing to report; None when there is something."""
    if recording.whole.lifecycles().empty:
        return Text(f"Nothing was recorded: {printable(recording.cut or 'the command never began')}.", "red")
    since_ns, until_ns = recording.selected.since_ns, recording.selected.until_ns
    begin_ns, end_ns = recording.start_ns, recording.end_ns
    if table.empty or (since_ns or end_ns) > end_ns or (until_ns or begin_ns) < begin_ns:
        whole = f"the recording goes from {at(recording, begin_ns)} to {at(recording, end_ns)} s"
        return Text(f"Nothing lies in the part that was asked for: {whole}.")
    return None


def _print_list(console: Console, title: str, lines: Iterator[Text]) -> None:
    texts = list(lines)
    if texts:
        console.print()
        console.print(Text(title, "bold"))
    for text in texts:
        print_text(console, text, "  ")


def _print_table(console: Console, title: str, grid: Grid) -> None:
    if grid.rows:
        console.print()
        console.print(Text(title, "bold"))
        print_grid(console, grid)


def _summary(recording: Recording) -> Iterator[Text]:
    table, whole = recording.lifecycles(), recording.whole.lifecycles()
    mark = mark_of(recording)
    yield Text(f"{_how_it_went(recording)}; {count(len(whole), 'process')}{mark} in the recording.", "bold")
    zombie_ms = table["zombie_ms"]
    noticeable = int((zombie_ms >= NOTICEABLE_MS).sum())
    never = int(table["zombie_open"].sum())
    if not noticeable:
        most = f"; the longest was one for {duration(zombie_ms.max())}{mark}" if zombie_ms.notna().any() else ""
        reaped = f", but {count(never, 'process')}{mark} {_was(never)} not reaped before the end" if never else ""
        yield Text(f"No zombie{mark} outlived {NOTICEABLE_MS:.0f} ms{most}{reaped}.", "yellow" if never else "green")
        return
    at_once = int(total_zombies(recording.zombie_count())["zombies"].max())
    longest = f"the longest with {duration(zombie_ms.max())}{mark}"
    parts = [f"{count(noticeable, 'zombie')}{mark} outlived {NOTICEABLE_MS:.0f} ms, {longest}"]
    parts += [f"at most {at_once:,}{mark} at once"] if at_once > 1 else []
    parts += [f"{never:,}{mark} never reaped"] if never else []
    yield Text("; ".join(parts) + ".", "red" if never else "yellow")


def _how_it_went(recording: Recording) -> str:
    whole = recording.whole.lifecycles()
    command = title_of(recording.header["command"]) or "the recording"
    target = whole[whole["origin"] == "target"]
    if "attached" in recording.header:
        return f"{command}, which ran already, was recorded for {duration((recording.end_ns - recording.start_ns) / 1e6)}"
    end_ms = (recording.end_ns - recording.start_ns) / 1e6
    if target.empty:
        return f"{command}: recorded for {duration(end_ms)}"
    row = next(_rows(target))
    if pd.isna(row.exit_ns) and row.state != "running":
        return f"{command} ended; when and how is not known"
    if pd.isna(row.exit_ns):
        return f"{command} was still running after {duration(end_ms)}, when the recording ended"
    return f"{command} ran for {duration(row.run_ms)} and {_ended(row).replace('SIG', 'was killed by SIG', 1)}"


def _ended(row: Any) -> str:
    """`exited 0`, `SIGKILL`, `SIGSEGV, core dumped`, or `?`."""
    if not pd.isna(row.term_signal):
        return f"{row.term_signal}{', core dumped' if row.core_dumped else ''}"
    return "?" if pd.isna(row.exit_code) else f"exited {row.exit_code}"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _findings(table: pd.DataFrame, names: Names) -> Iterator[Text]:
    """One sentence for each group of zombies that share their fate, the never reaped first, then the longest."""
    zombies = table[(table["zombie_ms"] >= NOTICEABLE_MS) | table["zombie_open"]]
    still = zombies[zombies["zombie_open"]]
    parent = still["adopter_pid"].fillna(still["ppid"])
    families = sorted((group for _, group in still.groupby(parent)), key=lambda group: -group["zombie_ms"].max())
    for group in families[:MOST_FINDINGS]:
        yield _never_reaped(group, names)
    if others := families[MOST_FINDINGS:]:
        more = count(sum(map(len, others)), "more zombie")
        yield Text(f"{more} of {count(len(others), 'other parent')} were never reaped.", "red")
    gone = zombies[~zombies["zombie_open"]]
    fate = gone["cleared_by_id"].fillna(-1 - gone["id"])  # one that no start cleared stands for itself
    longest = gone["zombie_ms"].groupby(fate).agg(["max", "size"]).sort_values("max", ascending=False, kind="stable")
    alone, together = longest["size"] == 1, longest["size"] > 1
    told = longest.loc[longest.index[alone][:MOST_FINDINGS].union(longest.index[together][:MOST_FINDINGS])]
    for one in told.sort_values("max", ascending=False, kind="stable").index:
        yield _cleared(gone[fate == one], names)
    rest = gone[~fate.isin(told.index)]
    swept = rest["cleared_by_id"].dropna()
    if len(swept):
        yield Text(
            f"{count(len(swept), 'more zombie')} {_was(len(swept))} cleared by {count(swept.nunique(), 'further start')}."
        )
    if len(rest) > len(swept):
        yield Text(f"{count(len(rest) - len(swept), 'more zombie')} outlived {NOTICEABLE_MS:.0f} ms.")


def _never_reaped(group: pd.DataFrame, names: Names) -> Text:
    group = group.sort_values("zombie_ms", ascending=False, kind="stable")
    first = next(_rows(group))
    parent = names.of(
        *((first.parent_id, first.ppid) if pd.isna(first.adopter_pid) else (first.adopter_id, first.adopter_pid)), full=True
    )
    who = _some(group, names)
    age = f"{'up to ' if len(group) > 1 else ''}{duration(first.zombie_ms)} so far"
    return Text(f"{who} {_was(len(group))} never reaped: zombie for {age}, the parent is {parent}{_started(group)}.", "red")


def _started(group: pd.DataFrame) -> str:
    """Where all of a group were started, if that was one line."""
    sites = group["fork_site"].unique()
    return "" if len(sites) != 1 or pd.isna(sites[0]) else f", started at {_place(sites[0])}"


def _place(site: str) -> str:
    """`consumer.py:33`, without the function."""
    words = printable(site)
    return words.rpartition(" ")[0] or words


def _cleared(group: pd.DataFrame, names: Names) -> Text:
    first = next(_rows(group))
    longest = duration(group["zombie_ms"].max())
    if pd.isna(first.cleared_by_id):
        return Text(f"{names.pid(first.id)} was a zombie for {longest}, until {_release_words(first, names)}.")
    start, place = names.pid(int(first.cleared_by_id)), "" if pd.isna(first.reap_site) else f" at {_place(first.reap_site)}"
    if len(group) == 1:
        return Text(f"{names.pid(first.id)} was a zombie for {longest}, until {start} was started{place}.")
    who = _some(group, names)
    reaper = names.of(first.reaper_id, first.reaper_pid)
    return Text(
        f"{who} were zombies for up to {longest} and were cleared together when {start} was started by {reaper}{place}."
    )


def _some(group: pd.DataFrame, names: Names) -> str:
    return some([names.pid(one) for one in group["id"].head(4)], len(group))


def _release_words(row: Any, names: Names) -> str:
    reaper = names.of(row.reaper_id, row.reaper_pid)
    if row.reap_call == "autoreap":
        return "it was released without a wait: SIGCHLD is ignored"
    if row.reap_call == "kernel":
        return "the kernel released it: its PID namespace died"
    who = reaper if pd.isna(row.adopter_pid) else f"{reaper}, which had adopted it,"
    if row.reap_call == "unseen":
        return f"{who} reaped it; that was not seen and may have been earlier"
    if pd.isna(row.reap_site):
        return f"{who} called {_call(row)}"
    return f"{who} reaped it at {_place(row.reap_site)} ({explanations.cause(row.reap_cause).short})"


def _call(row: Any) -> str:
    """`wait4(pid, WNOHANG)`."""
    arguments = [str(part) for part in (row.reap_target, row.reap_options) if not pd.isna(part) and part]
    return f"{_call_of(row) or '?'}({', '.join(arguments)})"


def _call_of(row: Any) -> str:
    """`wait4`; "" where it is not known."""
    return "" if pd.isna(row.reap_call) else str(row.reap_call)


def _reaped_by(row: Any, names: Names, full: bool = False) -> str:
    """`4700 consumer.py:33`, `4700 wait4(pid, WNOHANG)` where no line is known, or how else it was released."""
    if row.state != "gone":
        return "nobody yet"
    call, reaper = _call_of(row), names.of(row.reaper_id, row.reaper_pid, full)
    if call == "autoreap":
        return "nobody: SIGCHLD ignored"
    if call in ("kernel", "unseen"):
        return "kernel: PID namespace died" if call == "kernel" else f"{reaper}, wait not seen"
    if not call and reaper == "?":
        return "not seen"
    if not pd.isna(row.reap_site):
        return f"{reaper} {short_site(printable(row.reap_site) if full else _place(row.reap_site), MOST_SITE)}"
    return f"{reaper} {_call(row)}"


def _zombie_table(table: pd.DataFrame, names: Names) -> Grid:
    columns = [("pid", "right"), ("command", "left"), ("ended", "left"), ("zombie", "right"), ("reaped by", "left")]
    longest = table[(table["zombie_ms"] >= NOTICEABLE_MS) | table["zombie_open"]]
    longest = longest.nlargest(MOST_ROWS, "zombie_ms", keep="first")
    rows = []
    for row in _rows(longest):
        command = row.comm if pd.isna(row.argv) else row.argv
        zombie = zombie_time(row) + (" +" if row.zombie_open else "  ")
        command = "?" if pd.isna(command) else without_folders(printable(command))
        rows.append([names.pid(row.id), command, _ended(row), zombie, _reaped_by(row, names)])
    if longest["reap_cause"].notna().any():
        columns.append(("why", "left"))
        rows = [[*row, "?" if pd.isna(cause) else cause] for row, cause in zip(rows, longest["reap_cause"], strict=True)]
    styles = ["red" if still else None for still in longest["zombie_open"]]
    return Grid(columns, rows, "command", 8, styles, spare="why")


def _cause_table(table: pd.DataFrame) -> Grid:
    """How many were reaped for which cause, and how long they were zombies."""
    columns = (("processes", "right"), ("why", "left"), ("in words", "left"), ("longest", "right"), ("all zombies", "right"))
    zombies = table[table["reap_cause"].notna()]
    groups = zombies.groupby("reap_cause", observed=True)["zombie_ms"].agg(["size", "max", "sum"])
    groups = groups.sort_values(["sum", "size"], ascending=False, kind="stable")
    rows = [
        (f"{one.size:,}", cause, explanations.cause(cause).short, _longest(one.max), _longest(one.sum or pd.NA))
        for cause, one in zip(groups.index, _rows(groups), strict=True)
    ]
    return Grid(columns, rows, "in words", 16, spare="in words")


def _longest(ms: Any) -> str:
    return "-" if pd.isna(ms) else duration(ms)


def _reap_table(table: pd.DataFrame, names: Names) -> Grid:
    """Which process reaped how many, at which line, or by which call where there is none."""
    columns = (("processes", "right"), ("reaped by", "left"), ("longest zombie", "right"))
    ended = table[table["state"] != "running"]
    key = ["state", "reaper_pid", "reaper_id", "reap_site", "reap_call", "reap_target", "reap_options"]
    known = ended["reap_site"].notna()
    calls = {name: ended[name].astype("string").mask(known, "") for name in key[4:]}  # of a line all its calls together
    groups = ended.assign(**calls).groupby(key, dropna=False, observed=True, sort=False)["zombie_ms"].agg(["size", "max"])
    groups = groups.sort_values("size", ascending=False, kind="stable")
    shown = groups.head(MOST_ROWS).reset_index()
    rows = [(f"{row.size:,}", _reaped_by(row, names, full=True), _longest(row.max)) for row in _rows(shown)]
    rest = groups[MOST_ROWS:]
    if len(rest):
        rows.append((f"{rest['size'].sum():,}", f"in {len(rest):,} other ways", _longest(rest["max"].max())))
    return Grid(columns, rows, "reaped by", 24)


def _start_table(table: pd.DataFrame) -> Grid:
    """How many processes which line started."""
    columns = (("processes", "right"), ("line", "left"), ("made by", "left"), ("longest zombie", "right"))
    started = table[table["fork_site"].notna()]
    groups = started.groupby(["fork_site", "created_by"], dropna=False, observed=True, sort=False)["zombie_ms"]
    sizes = groups.agg(["size", "max"]).sort_values("size", ascending=False, kind="stable")
    rows = [
        (
            f"{row.size:,}",
            short_site(printable(row.fork_site), MOST_SITE),
            "?" if pd.isna(row.created_by) else row.created_by,
            _longest(row.max),
        )
        for row in _rows(sizes.head(MOST_ROWS).reset_index())
    ]
    if len(rest := sizes[MOST_ROWS:]):
        rows.append((f"{rest['size'].sum():,}", f"at {len(rest):,} other lines", "", _longest(rest["max"].max())))
    return Grid(columns, rows, "line", 24)


def _rows(table: pd.DataFrame) -> Iterator[Any]:
    """The rows of a table as named tuples."""
    yield from table.itertuples()


def _groups(table: pd.DataFrame, key: list[str]) -> list[tuple[Any, pd.DataFrame]]:
    """The groups of rows that are alike in the columns `key`, `<NA>` being alike too, in the order of their first rows."""
    return list(table.groupby(key, dropna=False, observed=True, sort=False))


def _at_line(site: Any) -> str:
    return "" if pd.isna(site) else f" at {printable(site)}"


def _killed(table: pd.DataFrame, names: Names) -> Iterator[Text]:
    killed = table[table["term_signal"].notna()]
    groups = _groups(killed, ["term_signal", "killer_kind", "killer_id", "killer_pid", "killer_site"])
    for (signal, kind, killer_id, killer_pid, site), group in sorted(groups, key=lambda one: -len(one[1]))[:MOST_FINDINGS]:
        who = _some(group, names)
        by = sender(None if pd.isna(kind) else kind, names.of(killer_id, killer_pid, full=True))
        yield Text(f"{who} by {signal}, {by}{_at_line(site)}.")
    if len(groups) > MOST_FINDINGS:
        yield Text(f"{count(len(groups) - MOST_FINDINGS, 'further group')} in the table of `forktrace export`.")


def _thefts(recording: Recording, names: Names) -> Iterator[Text]:
    """Whose wait took the exit status of whose child, by the two lines."""
    stolen = recording.stolen()
    for (thief, thief_site, made, owner_site, seen), group in _groups(
        stolen, ["thief_id", "thief_site", "created_by", "owner_site", "seen"]
    )[:MOST_ROWS]:
        who = _some(group, names)
        unnamed = pd.isna(made) or made in _NO_LIBRARY
        owner = ("its owner" if len(group) == 1 else "their owner") if unnamed else made
        seen = "" if pd.isna(seen) else f", which got {explanations.texts()['seen'].get(seen, printable(seen))}"
        thief = names.of(thief, pd.NA, full=True)
        yield Text(f"{who}: {thief}{_at_line(thief_site)} took what {owner} waits for{_at_line(owner_site)}{seen}.", "red")
