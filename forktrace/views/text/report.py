"""The report: what happened, in words and numbers, for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import pandas as pd
from rich.console import Console
from rich.text import Text

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.requests import start_sites
from forktrace.analysis.tables.lifecycles import LIVING, what_ended
from forktrace.analysis.tables.zombies import total_zombies
from forktrace.trace.words import NOTICEABLE_MS, count, duration
from forktrace.views import explanations, failed
from forktrace.views.bounds import bound_of, zombie_words
from forktrace.views.findings import Facts, Finding, of_processes, of_rows
from forktrace.views.text.doubts import at, doubts, limits, mark_of, marked
from forktrace.views.text.report_tables import call, cause_table, ended, reap_table, start_table, zombie_table
from forktrace.views.text.screen import Grid, print_grid, print_text
from forktrace.views.why import late, open_waits, orphans
from forktrace.views.words import at_line, place, sender, some, title_of
from forktrace.views.zombies import first_row, is_noticed, lead, left_by_parent, of_program, without_recorder, worst_first

MOST_FINDINGS: Final = 3  # of each kind
MOST_THEFTS: Final = 10
_NO_LIBRARY: Final = ("os-fork", "posix-spawn", "native", "unknown")  # of `created_by`: it has no name of its own
_LEFT: Final = -(1 << 40)  # less the place of a parent: below what stands for a process
_OF_KILLS: Final = ["term_signal", "killer_kind", "killer_id", "killer_pid", "killer_site"]
_OF_THEFTS: Final = ["thief_id", "thief_site", "created_by", "owner_site", "seen"]


class Section(NamedTuple):
    """A part of the report: what programs call it, its title, and its sentences or its table."""

    name: str
    title: str
    content: Sequence[Finding] | Grid


class Figures(NamedTuple):
    """What the first lines count in the part that is shown.

    Attributes:
        zombies: those that lasted, because of the program; of these the longest, and the most at once
        outside: others, reaped outside the recording or unseen, whose time is only an upper bound
    """

    stolen: int
    unreaped: int
    orphans: int
    failed_forks: int
    zombies: int
    max_zombie_ms: float
    max_zombies: int
    outside: int
    max_outside_ms: float


def report(recording: Recording, console: Console) -> None:
    """Print the report of `recording`: a summary, the findings, the longest zombies, and what the trace does not know.

    The first line says how the command fared, the second how bad the zombies were. Names from the trace are escaped.
    """
    for line in summary(recording):
        print_text(console, line)
    for _, title, content in sections(recording):
        console.print()
        console.print(Text(title, "bold"))
        if isinstance(content, Grid):
            print_grid(console, content)
        for finding in () if isinstance(content, Grid) else content:
            print_text(console, finding.text, "  ")


def summary(recording: Recording) -> list[Text]:
    """Return the first lines: how the command fared, what matters most, and what of the recording is shown."""
    nothing = _nothing(recording, recording.lifecycles())
    return [nothing] if nothing else [_how_it_went_line(recording), headline(recording), *limits(recording)]


def sections(recording: Recording) -> Iterator[Section]:
    """Yield the sections that have something to say; what matters most comes first."""
    names = Names(recording.whole.lifecycles(), recording.header["recorder_pid"])
    table, mark = without_recorder(recording.lifecycles()), mark_of(recording)
    program = of_program(recording)
    if _nothing(recording, table):
        return
    every: tuple[tuple[str, str, Iterator[Finding] | Grid], ...] = (
        ("stolen", "Stolen exit statuses", _thefts(recording, names)),
        ("lost_statuses", "Exit statuses that nobody got", late.lost_statuses(recording, names)),
        ("late_waits", "Waits that came too late", late.late_lines(recording, names)),
        ("open_waits", "Waits that brought nothing", open_waits.lines(recording, names)),
        ("unreaped", "Never reaped", _never_reaped(program, names)),
        ("orphans", "Orphans that nobody reaps", orphans.lines(recording, names)),
        ("failed_forks", "Failed forks", failed.grid(recording, names)),
        ("reaped", "What happened", _findings(program, names)),
        ("zombies", "Longest zombies", zombie_table(table, names)),
        ("causes", "Why they were reaped", marked(cause_table(table), mark)),
        ("reapers", "Who reaped them", marked(reap_table(table, names), mark)),
        ("starts", "Where they were started", marked(start_table(table), mark)),
        ("killed", "Killed by a signal", _killed(table, names)),
        ("doubts", "Not known for sure", map(Finding, doubts(recording, table))),
    )
    for name, title, content in every:
        found = content if isinstance(content, Grid) else list(content)
        if found.rows if isinstance(found, Grid) else found:
            yield Section(name, title, found)


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
    found, mark = figures(recording), mark_of(recording)
    harm = list(_harm(found, mark))
    words = "; ".join([*harm, *_lasting(found, mark)])
    style = "red" if harm else "yellow" if found.zombies or found.outside else "green"
    return Text(f"{words[0].upper()}{words[1:]}.", style)


def figures(recording: Recording) -> Figures:
    """Return what the first lines count."""
    table = of_program(recording)
    zombie_ms, own_ms, first = table["zombie_ms"], table["own_zombie_ms"], lead(table)
    aside = zombie_ms[~first & zombie_ms.ge(NOTICEABLE_MS)]
    together = total_zombies(recording.zombie_count())["zombies"] if first.any() else pd.Series([0])
    return Figures(
        stolen=len(recording.stolen()),
        unreaped=int(table["zombie_open"].sum()),
        orphans=int(recording.orphans()["finding"].notna().sum()),
        failed_forks=len(recording.failed_forks()),
        zombies=int(first.sum()),
        max_zombie_ms=(own_ms[first] if first.any() else zombie_ms.drop(aside.index)).max(),
        max_zombies=int(together.max()),
        outside=len(aside),
        max_outside_ms=aside.max(),
    )


def _harm(found: Figures, mark: str) -> Iterator[str]:
    """What is wrong whatever a zombie's time was, the worst first."""
    if found.stolen:
        yield f"{count(found.stolen, 'exit status')}{mark} {_was(found.stolen)} stolen"
    if found.unreaped:
        yield f"{count(found.unreaped, 'zombie')}{mark} {_was(found.unreaped)} never reaped"
    if found.orphans:
        yield f"{count(found.orphans, 'orphan')}{mark} {_was(found.orphans)} inherited and not reaped"
    if found.failed_forks:
        yield f"{count(found.failed_forks, 'fork')}{mark} failed"


def _lasting(found: Figures, mark: str) -> Iterator[str]:
    """How many zombies lasted; apart those that were reaped where the recording does not see, whose time says little."""
    most = "" if pd.isna(found.max_zombie_ms) else f" (longest {duration(found.max_zombie_ms)}{mark})"
    lasted = f"lasted longer than {NOTICEABLE_MS:.0f} ms{most}"
    together = f", at most {found.max_zombies:,}{mark} at once" if found.max_zombies > 1 else ""
    if found.zombies:
        yield f"{count(found.zombies, 'zombie')}{mark} {lasted}{together}"
    if found.outside:
        which = count(found.outside, "more zombie" if found.zombies else "zombie")
        until = f"after at most {duration(found.max_outside_ms)}"
        yield f"{which}{mark} {_was(found.outside)} reaped outside the recording or unseen, {until}"
    if not found.zombies:
        yield f"no {'other ' if found.outside else ''}zombie{mark} {lasted}"


def _how_it_went(recording: Recording) -> str:
    whole = recording.whole.lifecycles()
    command = title_of(recording.header["command"]) or "the recording"
    target = whole[whole["origin"] == "target"]
    if "attached" in recording.header:
        return f"{command}, which ran already, was recorded for {duration((recording.end_ns - recording.start_ns) / 1e6)}"
    end_ms = (recording.end_ns - recording.start_ns) / 1e6
    if target.empty:
        return f"{command}: recorded for {duration(end_ms)}"
    row = first_row(target)
    if pd.isna(row.exit_ns) and row.state not in LIVING:
        return f"{command} ended; when and how is not known"
    if pd.isna(row.exit_ns):
        return f"{command} was still running after {duration(end_ms)}, when {what_ended(row)}"
    return f"{command} ran for {duration(row.run_ms)} and {ended(row).replace('SIG', 'was killed by SIG', 1)}"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _never_reaped(table: pd.DataFrame, names: Names) -> Iterator[Finding]:
    """One sentence for each parent that left zombies, the longest first."""
    still = table[table["zombie_open"]]
    parent = still["adopter_pid"].fillna(still["ppid"])
    families = sorted((group for _, group in still.groupby(parent)), key=lambda group: -group["zombie_ms"].max())
    for group in families[:MOST_FINDINGS]:
        yield _family(group, names)
    if others := families[MOST_FINDINGS:]:
        more = count(sum(map(len, others)), "more zombie")
        text = Text(f"{more} of {count(len(others), 'other parent')} were never reaped.", "red")
        yield Finding(text, of_rows(pd.concat(others)))


def _findings(table: pd.DataFrame, names: Names) -> Iterator[Finding]:
    """One sentence for each group of zombies that were reaped together, those that `lead` first, then the longest."""
    gone = worst_first(table[is_noticed(table) & ~table["zombie_open"]])
    fate = gone["cleared_by_id"].fillna(-1 - gone["id"])  # one that no start cleared stands for itself,
    parent = gone.groupby(["parent_id", "ppid"], dropna=False).ngroup()
    fate = fate.mask(left_by_parent(gone), _LEFT - parent)  # and those that one parent left, for that parent
    sizes = gone.groupby(fate, sort=False).size()
    alone, together = sizes.index[sizes == 1], sizes.index[sizes > 1]
    told = {*alone[:MOST_FINDINGS], *together[:MOST_FINDINGS]}
    for one in filter(told.__contains__, sizes.index):
        yield _cleared(gone[fate == one], names, _left_words if one <= _LEFT else _cleared_words)
    rest = gone[~fate.isin(told)]
    swept = rest[rest["cleared_by_id"].notna()]
    if len(swept):
        starts = count(swept["cleared_by_id"].nunique(), "further start")
        text = Text(f"{count(len(swept), 'more zombie')} {_was(len(swept))} cleared by {starts}.")
        yield Finding(text, of_rows(swept))
    if len(rest) > len(swept):
        text = Text(f"{count(len(rest) - len(swept), 'more zombie')} lasted longer than {NOTICEABLE_MS:.0f} ms.")
        yield Finding(text, of_rows(rest[rest["cleared_by_id"].isna()]))


def _family(group: pd.DataFrame, names: Names) -> Finding:
    group = group.sort_values("zombie_ms", ascending=False, kind="stable")
    first = first_row(group)
    parent = names.of(
        *((first.parent_id, first.ppid) if pd.isna(first.adopter_pid) else (first.adopter_id, first.adopter_pid)), full=True
    )
    who = _some(group, names)
    age = f"{'up to ' if len(group) > 1 else ''}{duration(first.zombie_ms)} so far"
    facts = of_rows(group, **_facts(first, "parent_id", "ppid", "adopter_id", "adopter_pid"))
    words = f"{who} {_was(len(group))} never reaped: zombie for {age}, the parent is {parent}{_started(group)}."
    return Finding(Text(words, "red"), facts)


def _facts(row: Any, *columns: str) -> Facts:
    return {name: getattr(row, name) for name in columns}


def _started(group: pd.DataFrame) -> str:
    """Where all of a group were started, if that was one line."""
    sites = start_sites(group).unique()
    return "" if len(sites) != 1 or pd.isna(sites[0]) else f", started at {place(sites[0])}"


def _cleared(group: pd.DataFrame, names: Names, words: Callable[[pd.DataFrame, Names], str]) -> Finding:
    first = first_row(group)
    facts = _facts(first, "reap_site", "reaper_id", "reaper_pid", "reap_call", "cleared_by_id", "adopter_id")
    return Finding(Text(words(group, names)), of_rows(group, bound=bound_of(first), **facts))


def _cleared_words(group: pd.DataFrame, names: Names) -> str:
    first = first_row(group)
    lasted = zombie_words(first)
    if pd.isna(first.cleared_by_id):
        return f"{names.pid(first.id)} was a zombie for {lasted}, until {_release_words(first, names)}."
    start, where = names.pid(int(first.cleared_by_id)), "" if pd.isna(first.reap_site) else f" at {place(first.reap_site)}"
    if len(group) == 1:
        return f"{names.pid(first.id)} was a zombie for {lasted}, until {start} was started{where}."
    who = _some(group.sort_index(), names)
    reaper = names.of(first.reaper_id, first.reaper_pid)
    return f"{who} were zombies for up to {lasted} and were cleared together when {start} was started by {reaper}{where}."


def _left_words(group: pd.DataFrame, names: Names) -> str:
    first = first_row(group)
    started, lasted = _started(group), duration(first.own_zombie_ms)
    who = _some(group.sort_index(), names) + (f"{started}," if started else "")
    ended = f"parent {names.of(first.parent_id, first.ppid, full=True)} ended without a wait"
    if len(group) == 1:
        return f"{who} was a zombie for {lasted}, until its {ended}."
    return f"{who} were zombies for up to {lasted}, until their {ended}."


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


def _killed(table: pd.DataFrame, names: Names) -> Iterator[Finding]:
    groups = sorted(_groups(table[table["term_signal"].notna()], _OF_KILLS), key=lambda one: -len(one[1]))
    for (signal, kind, killer_id, killer_pid, site), group in groups[:MOST_FINDINGS]:
        who = _some(group, names)
        by = sender(None if pd.isna(kind) else kind, names.of(killer_id, killer_pid, full=True))
        yield Finding(Text(f"{who} by {signal}, {by}{at_line(site)}."), of_rows(group, **_facts(first_row(group), *_OF_KILLS)))
    if others := groups[MOST_FINDINGS:]:
        text = Text(f"{count(len(others), 'further group')} in the table of `forktrace export`.")
        yield Finding(text, of_rows(pd.concat([group for _, group in others])))


def _thefts(recording: Recording, names: Names) -> Iterator[Finding]:
    """Whose wait took the exit status of whose child, by the two lines."""
    for (thief, thief_site, made, owner_site, seen), group in _groups(recording.stolen(), _OF_THEFTS)[:MOST_THEFTS]:
        who = _some(group, names)
        unnamed = pd.isna(made) or made in _NO_LIBRARY
        owner = ("its owner" if len(group) == 1 else "their owner") if unnamed else made
        got = "" if pd.isna(seen) else f", which got {explanations.texts()['seen'].get(seen, printable(seen))}"
        by = f"{names.of(thief, pd.NA, full=True)}{at_line(thief_site)}"
        words = f"{who}: {by} took what {owner} waits for{at_line(owner_site)}{got}."
        facts = of_processes(group["id"].tolist(), cause="stolen", **_facts(first_row(group), *_OF_THEFTS))
        yield Finding(Text(words, "red"), facts)
