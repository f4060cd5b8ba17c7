"""The report: what happened, in words and numbers, for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pandas as pd
from rich.console import Console
from rich.text import Text

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.requests import start_sites
from forktrace.analysis.tables.zombies import total_zombies
from forktrace.trace.words import NOTICEABLE_MS, count, duration
from forktrace.views import explanations, failed
from forktrace.views.bounds import bound_of
from forktrace.views.text.doubts import at, doubts, limits, mark_of, marked
from forktrace.views.text.report_tables import call, cause_table, ended, reap_table, start_table, zombie_table
from forktrace.views.text.screen import Grid, print_grid, print_text
from forktrace.views.why import late, orphans
from forktrace.views.words import at_line, place, sender, some, title_of
from forktrace.views.zombies import is_noticed, lead, of_program, rows, without_recorder, worst_first

MOST_FINDINGS: Final = 3  # of each kind
MOST_THEFTS: Final = 10
_NO_LIBRARY: Final = ("os-fork", "posix-spawn", "native", "unknown")  # among what makes children: it has no name of its own


def report(recording: Recording, console: Console) -> None:
    """Print the report of `recording`: a summary, the findings, the longest zombies, and what the trace does not know.

    The first line says how the command fared, the second how bad the zombies were. Names from the trace are escaped.
    """
    for line in summary(recording):
        print_text(console, line)
    for title, content in sections(recording):
        console.print()
        console.print(Text(title, "bold"))
        if isinstance(content, Grid):
            print_grid(console, content)
        for text in () if isinstance(content, Grid) else content:
            print_text(console, text, "  ")


def summary(recording: Recording) -> list[Text]:
    """Return the first lines: how the command fared, what matters most, and what of the recording is shown."""
    nothing = _nothing(recording, recording.lifecycles())
    return [nothing] if nothing else [_how_it_went_line(recording), headline(recording), *limits(recording)]


def sections(recording: Recording) -> Iterator[tuple[str, Sequence[Text] | Grid]]:
    """Yield the title of each section that has something to say, and what it says; what matters most comes first."""
    names = Names(recording.whole.lifecycles(), recording.header["recorder_pid"])
    table, mark = without_recorder(recording.lifecycles()), mark_of(recording)
    program = of_program(recording)
    if _nothing(recording, table):
        return
    every: tuple[tuple[str, Iterator[Text] | Grid], ...] = (
        ("Stolen exit statuses", _thefts(recording, names)),
        ("Exit statuses that nobody got", late.lost_statuses(recording, names)),
        ("Waits that came too late", late.late_lines(recording, names)),
        ("Never reaped", _never_reaped(program, names)),
        ("Orphans that nobody reaps", orphans.lines(recording, names)),
        ("Failed forks", failed.grid(recording, names)),
        ("What happened", _findings(program, names)),
        ("Longest zombies", zombie_table(table, names)),
        ("Why they were reaped", marked(cause_table(table), mark)),
        ("Who reaped them", marked(reap_table(table, names), mark)),
        ("Where they were started", marked(start_table(table), mark)),
        ("Killed by a signal", _killed(table, names)),
        ("Not known for sure", doubts(recording, table)),
    )
    for title, content in every:
        found = content if isinstance(content, Grid) else list(content)
        if found.rows if isinstance(found, Grid) else found:
            yield title, found


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


def _how_it_went_line(recording: Recording) -> Text:
    whole = count(len(recording.whole.lifecycles()), "process")
    return Text(f"{_how_it_went(recording)}; {whole}{mark_of(recording)} in the recording.", "bold")


def headline(recording: Recording) -> Text:
    """Return what matters most: harm that was done, and how many zombies lasted."""
    table = of_program(recording)
    harm = list(_harm(recording, table))
    words = "; ".join([*harm, *_lasting(recording, table)])
    style = "red" if harm else "yellow" if table["zombie_ms"].ge(NOTICEABLE_MS).any() else "green"
    return Text(f"{words[0].upper()}{words[1:]}.", style)


def _harm(recording: Recording, table: pd.DataFrame) -> Iterator[str]:
    """What is wrong whatever a zombie's time was, the worst first."""
    mark, never = mark_of(recording), int(table["zombie_open"].sum())
    if stolen := len(recording.stolen()):
        yield f"{count(stolen, 'exit status')}{mark} {_was(stolen)} stolen"
    if never:
        yield f"{count(never, 'zombie')}{mark} {_was(never)} never reaped"
    if left := int(recording.orphans()["finding"].notna().sum()):
        yield f"{count(left, 'orphan')}{mark} {_was(left)} inherited and not reaped"
    if forks := len(recording.failed_forks()):
        yield f"{count(forks, 'fork')}{mark} failed"


def _lasting(recording: Recording, table: pd.DataFrame) -> Iterator[str]:
    """How many zombies lasted; apart those that were reaped where the recording does not see, whose time says little."""
    mark, zombie_ms, first = mark_of(recording), table["zombie_ms"], lead(table)
    aside = zombie_ms[~first & zombie_ms.ge(NOTICEABLE_MS)]
    longest = zombie_ms[first] if first.any() else zombie_ms.drop(aside.index)
    most = "" if longest.isna().all() else f" (longest {duration(longest.max())}{mark})"
    lasted = f"lasted longer than {NOTICEABLE_MS:.0f} ms{most}"
    if first.any():
        yield f"{count(int(first.sum()), 'zombie')}{mark} {lasted}{_together(recording)}"
    if len(aside):
        which = count(len(aside), "more zombie" if first.any() else "zombie")
        yield f"{which}{mark} {_was(len(aside))} reaped outside the recording or unseen, after at most {duration(aside.max())}"
    if not first.any():
        yield f"no {'other ' if len(aside) else ''}zombie{mark} {lasted}"


def _together(recording: Recording) -> str:
    """How many zombies there were at once."""
    most = int(total_zombies(recording.zombie_count())["zombies"].max())
    return f", at most {most:,}{mark_of(recording)} at once" if most > 1 else ""


def _how_it_went(recording: Recording) -> str:
    whole = recording.whole.lifecycles()
    command = title_of(recording.header["command"]) or "the recording"
    target = whole[whole["origin"] == "target"]
    if "attached" in recording.header:
        return f"{command}, which ran already, was recorded for {duration((recording.end_ns - recording.start_ns) / 1e6)}"
    end_ms = (recording.end_ns - recording.start_ns) / 1e6
    if target.empty:
        return f"{command}: recorded for {duration(end_ms)}"
    row = next(rows(target))
    if pd.isna(row.exit_ns) and row.state != "running":
        return f"{command} ended; when and how is not known"
    if pd.isna(row.exit_ns):
        return f"{command} was still running after {duration(end_ms)}, when the recording ended"
    return f"{command} ran for {duration(row.run_ms)} and {ended(row).replace('SIG', 'was killed by SIG', 1)}"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _never_reaped(table: pd.DataFrame, names: Names) -> Iterator[Text]:
    """One sentence for each parent that left zombies, the longest first."""
    still = table[table["zombie_open"]]
    parent = still["adopter_pid"].fillna(still["ppid"])
    families = sorted((group for _, group in still.groupby(parent)), key=lambda group: -group["zombie_ms"].max())
    for group in families[:MOST_FINDINGS]:
        yield _family(group, names)
    if others := families[MOST_FINDINGS:]:
        more = count(sum(map(len, others)), "more zombie")
        yield Text(f"{more} of {count(len(others), 'other parent')} were never reaped.", "red")


def _findings(table: pd.DataFrame, names: Names) -> Iterator[Text]:
    """One sentence for each group of zombies that were reaped together, those that `lead` first, then the longest."""
    gone = worst_first(table[is_noticed(table) & ~table["zombie_open"]])
    fate = gone["cleared_by_id"].fillna(-1 - gone["id"])  # one that no start cleared stands for itself
    sizes = gone.groupby(fate, sort=False).size()
    alone, together = sizes.index[sizes == 1], sizes.index[sizes > 1]
    told = {*alone[:MOST_FINDINGS], *together[:MOST_FINDINGS]}
    for one in filter(told.__contains__, sizes.index):
        yield _cleared(gone[fate == one], names)
    rest = gone[~fate.isin(told)]
    swept = rest["cleared_by_id"].dropna()
    if len(swept):
        yield Text(
            f"{count(len(swept), 'more zombie')} {_was(len(swept))} cleared by {count(swept.nunique(), 'further start')}."
        )
    if len(rest) > len(swept):
        yield Text(f"{count(len(rest) - len(swept), 'more zombie')} lasted longer than {NOTICEABLE_MS:.0f} ms.")


def _family(group: pd.DataFrame, names: Names) -> Text:
    group = group.sort_values("zombie_ms", ascending=False, kind="stable")
    first = next(rows(group))
    parent = names.of(
        *((first.parent_id, first.ppid) if pd.isna(first.adopter_pid) else (first.adopter_id, first.adopter_pid)), full=True
    )
    who = _some(group, names)
    age = f"{'up to ' if len(group) > 1 else ''}{duration(first.zombie_ms)} so far"
    return Text(f"{who} {_was(len(group))} never reaped: zombie for {age}, the parent is {parent}{_started(group)}.", "red")


def _started(group: pd.DataFrame) -> str:
    """Where all of a group were started, if that was one line."""
    sites = start_sites(group).unique()
    return "" if len(sites) != 1 or pd.isna(sites[0]) else f", started at {place(sites[0])}"


def _cleared(group: pd.DataFrame, names: Names) -> Text:
    first = next(rows(group))
    lasted = f"{bound_of(first)} {duration(first.zombie_ms)}".lstrip()
    if pd.isna(first.cleared_by_id):
        return Text(f"{names.pid(first.id)} was a zombie for {lasted}, until {_release_words(first, names)}.")
    start, where = names.pid(int(first.cleared_by_id)), "" if pd.isna(first.reap_site) else f" at {place(first.reap_site)}"
    if len(group) == 1:
        return Text(f"{names.pid(first.id)} was a zombie for {lasted}, until {start} was started{where}.")
    who = _some(group.sort_index(), names)
    reaper = names.of(first.reaper_id, first.reaper_pid)
    return Text(f"{who} were zombies for up to {lasted} and were cleared together when {start} was started by {reaper}{where}.")


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
        return f"{who} called {call(row)}"
    return f"{who} reaped it at {place(row.reap_site)} ({explanations.cause(row.reap_cause).short})"


def _groups(table: pd.DataFrame, key: list[str]) -> list[tuple[Any, pd.DataFrame]]:
    """The groups of rows that are alike in the columns `key`, `<NA>` being alike too, in the order of their first rows."""
    return list(table.groupby(key, dropna=False, observed=True, sort=False))


def _killed(table: pd.DataFrame, names: Names) -> Iterator[Text]:
    killed = table[table["term_signal"].notna()]
    groups = _groups(killed, ["term_signal", "killer_kind", "killer_id", "killer_pid", "killer_site"])
    for (signal, kind, killer_id, killer_pid, site), group in sorted(groups, key=lambda one: -len(one[1]))[:MOST_FINDINGS]:
        who = _some(group, names)
        by = sender(None if pd.isna(kind) else kind, names.of(killer_id, killer_pid, full=True))
        yield Text(f"{who} by {signal}, {by}{at_line(site)}.")
    if len(groups) > MOST_FINDINGS:
        yield Text(f"{count(len(groups) - MOST_FINDINGS, 'further group')} in the table of `forktrace export`.")


def _thefts(recording: Recording, names: Names) -> Iterator[Text]:
    """Whose wait took the exit status of whose child, by the two lines."""
    stolen = recording.stolen()
    for (thief, thief_site, made, owner_site, seen), group in _groups(
        stolen, ["thief_id", "thief_site", "created_by", "owner_site", "seen"]
    )[:MOST_THEFTS]:
        who = _some(group, names)
        unnamed = pd.isna(made) or made in _NO_LIBRARY
        owner = ("its owner" if len(group) == 1 else "their owner") if unnamed else made
        seen = "" if pd.isna(seen) else f", which got {explanations.texts()['seen'].get(seen, printable(seen))}"
        thief = names.of(thief, pd.NA, full=True)
        yield Text(f"{who}: {thief}{at_line(thief_site)} took what {owner} waits for{at_line(owner_site)}{seen}.", "red")
