"""What the chain of a process depends on: the columns that its sentences are made of, and what goes into their blanks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.names import Names, name, printable
from forktrace.analysis.causes.sites import named_own
from forktrace.analysis.recording import Call, Recording
from forktrace.analysis.requests import start_sites
from forktrace.analysis.tables.lifecycles import LIVING
from forktrace.trace.words import NOTICEABLE_MS, count, duration
from forktrace.views import failed
from forktrace.views.bounds import is_at_least
from forktrace.views.why import delays, late, open_waits, orphans
from forktrace.views.why.calls import Sources, calls_of, passes_a_package
from forktrace.views.why.remedies import package_at
from forktrace.views.why.sentences import RowGroups, named
from forktrace.views.words import sender, shorten, some
from forktrace.views.zombies import helpers, is_noticed

MOST_ARGV: Final = 300
MOST_SIGNALS: Final = 3
NOBODY_KNOWN: Final = "a process that is not known"
MOMENTS: Final = ("fork", "exec", "lost", "exit", "gone")  # what a line may be sorted by; lost: its parent ended


def known(ident: Any) -> int:
    """Return a number of a nullable column; -1 for `<NA>`."""
    return -1 if pd.isna(ident) else int(ident)


class Lookups:
    """What is looked up in a recording once, whatever process a line is about."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.whole = recording.whole
        self.table = self.whole.lifecycles()
        self.not_walked = recording.not_walked
        self.names = Names(self.table, recording.header["recorder_pid"])
        self.adopters = list(orphans.adopters(self.whole, self.names))
        self._sources = Sources(recording)
        self._own = named_own(recording.header)
        self._calls: dict[str, list[Call]] = {}

    def source(self, site: Any) -> str | None:
        """Return the text of the source line of a site, where the trace has it."""
        return None if pd.isna(site) else self._sources.text(site)

    def calls(self, stack: Any) -> list[Call]:
        """Return the frames of a stack that are its process's own."""
        if pd.isna(stack):
            return []
        if stack not in self._calls:
            self._calls[stack] = self.recording.calls(stack)
        return self._calls[stack]

    def own(self, site: Any, stack: Any) -> bool:
        """Return whether a site is a line of the program's own."""
        return not pd.isna(site) and calls_of(site, self.calls(stack))[0]

    def package(self, site: Any, stack: Any) -> str:
        """Return the installed package in whose file a site lies; "" where it is in none."""
        return package_at(site, self.calls(stack), self._own)

    def actor(self, ident: Any, pid: Any, tid: Any, site: Any) -> str:
        """Return `4700`, with its name where no line tells what it is, `thread 4702 of 4700`."""
        if pd.isna(ident) and (pd.isna(pid) or pid == 0):
            return NOBODY_KNOWN
        who = self.names.of(ident, pid, full=bool(pd.isna(site)))
        main = pd.isna(tid) or tid == 0 or (not pd.isna(pid) and tid == pid)
        return who if main else f"thread {tid} of {who}"

    def sender(self, kind: Any, ident: Any, pid: Any, site: Any, stack: Any, *, itself: bool) -> str:
        """Return who sent a signal, and through which calls: `sent by 100 app.py:9 main > rq/worker.py work > kill_horse`."""
        who = "itself" if itself else self.names.of(ident, pid, full=bool(pd.isna(site)))
        line = "" if pd.isna(site) else " " + " > ".join([printable(site), *calls_of(site, self.calls(stack))[1]])
        return sender(None if pd.isna(kind) else kind, who) + line

    def where_asked(self, parent_id: Any, times: int) -> str:
        """Return the lines of a parent that asked `times` for a child that had not ended, where they are certain.

        Such a wait does not say for which child it was.
        """
        table = self.whole.waits()
        table = table[(table["id"] == parent_id).fillna(False) & (table["target"] == "pid") & table["site"].notna()]
        asked = table.groupby("site", sort=False)["empty"].sum().sort_values(ascending=False, kind="stable")
        lines = [printable(str(site)) for site in asked.index[asked > 0]]
        certain = len(lines) == 1 or asked.sum() == times
        return f" at {some(lines[:4], len(lines))}" if lines and certain else ""

    @cached_property
    def steps(self) -> pd.DataFrame:
        """What each start of multiprocessing did, by the process that it made: `polled method children`."""
        table = self.whole.starts()
        table = table[table["children"].notna() & table["polled"].notna() & table["start_id"].notna()]
        return table.drop_duplicates("start_id").set_index("start_id")[["polled", "method", "children"]]

    @cached_property
    def swept(self) -> pd.Series:
        """Of each start that cleared processes, by id, their names in relation to it: starts that clear alike have one text."""
        table = self.whole.starts()
        table = table[table["start_id"].notna() & table["cleared_id"].notna()]
        found: dict[int, list[int]] = defaultdict(list)
        for start, cleared in zip(table["start_id"].tolist(), table["cleared_id"].tolist(), strict=True):
            found[start].append(cleared - start)
        texts = [some([named(one) for one in shifts[:4]], len(shifts)) for shifts in found.values()]
        return pd.Series(texts, index=list(found), dtype="str")

    @cached_property
    def signals(self) -> dict[int, list[Any]]:
        """The first signals that reached each process and did not end it."""
        table = self.whole.signals()
        return {ident: rows[:MOST_SIGNALS] for ident, rows in _by_id(table[~table["fatal"]], "id").items()}

    @cached_property
    def killing_stacks(self) -> pd.Series:
        """The stack at the kill call that ended each process, by its id."""
        table = self.whole.signals()
        fatal = table[table["fatal"].to_numpy(bool, na_value=False) & table["id"].notna()]
        return fatal.drop_duplicates("id", keep="last").set_index("id")["sender_stack"]

    @cached_property
    def late(self) -> dict[int, list[Any]]:
        """The first lines that waited for each process when it was gone already."""
        return {ident: rows[:MOST_SIGNALS] for ident, rows in _by_id(self._late, "child_id").items()}

    @cached_property
    def open_waits(self) -> dict[int, list[tuple[int, str, Any]]]:
        """The lines about waits that never returned a child, by who waited and by whom it waited for."""
        return open_waits.told(self.whole, self.names)

    @cached_property
    def lost(self) -> set[int]:
        """The processes that failed without their waiter learning of it, since SIGCHLD is ignored."""
        return set(self._late.query("lost and failed")["child_id"].dropna().tolist())

    @cached_property
    def _late(self) -> pd.DataFrame:
        return late.asked(self.whole)

    def deleted_at_end(self, stack: Any) -> bool:
        """Return whether the interpreter deleted a Popen as it ended: no line of the program is below that."""
        calls = self.calls(stack)
        return bool(calls) and calls[0].frame.name == "__del__"

    @cached_property
    def thefts(self) -> dict[int, list[Any]]:
        """The thefts of the exit status of each process."""
        return _by_id(self.whole.stolen(), "id")

    @cached_property
    def taken(self) -> dict[int, list[int]]:
        """The processes whose exit status each process took."""
        table = self.whole.stolen()[["thief_id", "id"]].drop_duplicates()
        table = table[(table["thief_id"] != table["id"]).fillna(True)]
        return {thief: [one.id for one in rows] for thief, rows in _by_id(table, "thief_id").items()}


class Section:
    """Makes the lines of one section of a chain from the columns that these depend on."""

    def __init__(self, lookups: Lookups, row: Any) -> None:
        self.lookups = lookups
        self.recording = lookups.recording
        self.row = row


def _by_id(table: pd.DataFrame, key: str) -> dict[int, list[Any]]:
    """The rows of a table as named tuples, by an id; those where it is not known are left out."""
    found: dict[int, list[Any]] = {}
    for row in table[table[key].notna()].itertuples():
        found.setdefault(int(getattr(row, key)), []).append(row)
    return found


def chain_columns(lookups: Lookups, table: pd.DataFrame) -> RowGroups:
    """Return rows of lifecycles with the columns that sentences and values are made of."""
    parts = (_of_fork(lookups, table), _of_start(lookups, table), _of_end(lookups, table), _of_release(lookups, table))
    columns = {name: column for part in parts for name, column in part.items()}
    groups = RowGroups(table.assign(**columns, **_singular(lookups, table)))
    groups.table["made_site"] = start_sites(groups.table)
    groups.table["made_stack"] = groups.table["start_stack"].fillna(groups.table["fork_stack"])
    _add_of_stacks(lookups, groups)
    return groups


def _of_fork(lookups: Lookups, table: pd.DataFrame) -> dict[str, Any]:
    by_parent = table["forker_pid"] == table["ppid"]
    return {
        "by_parent": by_parent,
        "forker_id": table["parent_id"].where(by_parent),
        "became": table["fork_comm"].notna() & by_parent & table["parent_id"].notna(),
        "from_outside": table["ppid"] == 0,
        "of_init": (table["origin"] == "attached").fillna(False) & (table["ppid"] == 1) & table["parent_id"].isna(),
        "executed": table["exec_ns"].notna(),
        "argv_known": table["argv"].notna(),
        "age_ms": ((lookups.recording.end_ns - table["fork_ns"]) / 1e6).where(table["state"].isin(LIVING)),
        "helper": helpers(table),
    }


def _of_start(lookups: Lookups, table: pd.DataFrame) -> dict[str, Any]:
    """What asked for each process, what its start did, and whose start cleared it."""
    steps = lookups.steps.reindex(table["id"]).set_index(table.index)
    swept = lookups.swept.reindex(table["id"]).set_axis(table.index)
    return {
        "requested": table["start_site"].notna() & (table["start_stack"] != table["fork_stack"]).fillna(True),
        "stepped": steps["polled"].notna(),
        "swept": swept,
        "sweeps": swept.notna(),
        **steps,
        "inferred": table["cleared_by_id"].notna(),
        "start_shift": table["cleared_by_id"] - table["id"],
    }


def _of_end(lookups: Lookups, table: pd.DataFrame) -> dict[str, Any]:
    """How each process ended, and who had it then."""
    orphan = table["adopter_pid"].notna()
    lost_ns = _lost_ns(lookups, table).where(orphan)
    at_least = is_at_least(table)
    return {
        "exited": table["exit_ns"].notna(),
        "was_zombie": table["zombie_ms"].notna(),
        "begun": table["zombie_ns"].notna(),
        "noticed": is_noticed(table),
        "held": table["own_zombie_ms"].ge(NOTICEABLE_MS) & table["reap_ns"].notna(),
        "at_least": at_least,
        "told_ms": table["own_zombie_ms"].where(at_least, table["zombie_ms"]),
        "killer_itself": (table["killer_id"] == table["id"]).fillna(False),
        "killer_stack": lookups.killing_stacks.reindex(table["id"]).set_axis(table.index),
        "orphan": orphan,
        "lost_ns": lost_ns,
        "lost_seen": lost_ns.notna(),
        "handled": lookups.whole.sigchld().reindex(table["id"]).eq("handler").set_axis(table.index),
    }


def _of_release(lookups: Lookups, table: pd.DataFrame) -> dict[str, Any]:
    """When and by whom each process was reaped, and what came before."""
    delay = delays.delays(lookups.recording, table)
    return {
        "gone_ns": table["reap_ns"].fillna(lookups.recording.end_ns),
        "released": table["reap_ns"].notna(),
        "reaper_known": table["reap_call"].notna() | table["reaper_pid"].notna(),
        "by_recorder": (table["reaper_pid"] == lookups.recording.header["recorder_pid"]).fillna(False),
        "inside": table["reaper_id"].notna() | (table["zombie_open"] & table["adopter_id"].notna()),
        "asked": table["empty_waits"] > 0,
        "delay": delay,
        "parent_stopped": table["id"].where(delay == "stopped").astype("Int64"),
    }


def _add_of_stacks(lookups: Lookups, groups: RowGroups) -> None:
    """Add what the stacks of the fork, the start and the reap say."""
    groups.add("passes", bool, ("fork_site", "fork_stack"), lambda row: _passes(lookups, *row))
    groups.add("at_end", bool, ("reap_stack",), lambda row: lookups.deleted_at_end(*row))
    for end in ("made", "reap"):
        stack = (f"{end}_site", f"{end}_stack")
        groups.add(f"{end}_own", bool, stack, lambda row: lookups.own(*row))
        groups.add(f"{end}_package", object, stack, lambda row: lookups.package(*row))


def _passes(lookups: Lookups, site: Any, stack: Any) -> bool:
    return not pd.isna(site) and passes_a_package(site, lookups.calls(stack))


def _lost_ns(lookups: Lookups, table: pd.DataFrame) -> pd.Series:
    """When the parent of each process ended."""
    ended_ns = lookups.table["zombie_ns"].fillna(lookups.table["exit_ns"])
    parent = table["parent_id"].to_numpy(np.int64, na_value=-1)
    return pd.Series(ended_ns.array.take(parent, allow_fill=True), table.index)


def _singular(lookups: Lookups, table: pd.DataFrame) -> dict[str, pd.Series]:
    """What differs for nearly every process: its id, where it has signals, failed forks or thefts; adopters by number."""
    inherits = {int(one.id): number for number, one in reversed(list(enumerate(lookups.adopters))) if not pd.isna(one.id)}
    left = {orphan: number for number, one in reversed(list(enumerate(lookups.adopters))) for orphan in one.orphans}
    attached = (table["origin"] == "attached") & ~table["state"].isin(LIVING)
    whose = table["id"].astype("Int64").where(~attached, table["parent_id"])
    failures = lookups.whole.failed_forks()
    failing, met = set(failures["id"].dropna().tolist()), failed.met_by(lookups.recording, failures, table)
    told = {"failed": failing, "signals": lookups.signals, "thefts": lookups.thefts, "taken": lookups.taken}
    told |= {"waited_late": lookups.late, "waited_on": lookups.open_waits, "status_lost": lookups.lost}
    return {
        "adopts": whose.map(inherits).astype("Int64"),
        "not_init": table["id"].map(left).astype("Int64"),
        "stolen": (stolen := table["id"].isin(list(lookups.thefts))),
        "robber_pid": table["reaper_pid"].where(stolen),
        "damaged": table["id"].where(met.notna()).astype("Int64"),
        **{name: table["id"].where(table["id"].isin(list(ids))).astype("Int64") for name, ids in told.items()},
    }


Value = tuple[Sequence[str], Callable[[Lookups, Any], str]]


def _length(column: str) -> Value:
    return (column,), lambda lookups, row: "" if pd.isna(row[0]) else duration(row[0])


VALUES: Final[Mapping[str, Value]] = {
    "parent": (("parent_id", "ppid"), lambda lookups, row: _parent(lookups, row)),
    "adopter": (("orphan", "adopter_id", "adopter_pid", "parent_id", "ppid"), lambda lookups, row: _adopter(lookups, row)),
    "forker": (
        ("forker_id", "forker_pid", "forker_tid", "fork_site", "became", "fork_comm", "parent_id", "ppid"),
        lambda lookups, row: f"{_parent(lookups, row)} {name(row.fork_comm)}" if row.became else lookups.actor(*row[:4]),
    ),
    "since": (
        ("became", "parent_id"),
        lambda lookups, row: name(lookups.table.at[row.parent_id, "comm"]) if row.became else "",
    ),
    "polled": (("polled",), lambda lookups, row: _polled(row.polled)),
    "swept": (("swept",), lambda lookups, row: "" if pd.isna(row.swept) else row.swept),
    "children": (("children",), lambda lookups, row: "" if pd.isna(row.children) else f"{row.children:,}"),
    "run": _length("run_ms"),
    "zombie": _length("told_ms"),
    "age": _length("age_ms"),
    "argv": (("argv",), lambda lookups, row: "?" if pd.isna(row.argv) else shorten(printable(row.argv), MOST_ARGV)),
    "sender": (
        ("killer_kind", "killer_id", "killer_pid", "killer_site", "killer_stack", "killer_itself"),
        lambda lookups, row: lookups.sender(*row[:-1], itself=row.killer_itself),
    ),
    "reaper_there": (("reaper_id", "reaper_pid", "reaper_tid", "reap_site"), lambda lookups, row: lookups.actor(*row)),
    "reaper": (
        ("reaper_id", "reaper_pid", "orphan", "adopter_id", "adopter_pid", "parent_id", "ppid"),
        lambda lookups, row: (
            _adopter(lookups, row) if pd.isna(row.reaper_pid) else lookups.names.of(row.reaper_id, row.reaper_pid)
        ),
    ),
    "start": (("start_shift",), lambda lookups, row: "another process" if pd.isna(row[0]) else named(int(row[0]))),
    "times": (("empty_waits",), lambda lookups, row: count(row.empty_waits, "time")),
    "where_asked": (
        ("asked", "parent_id", "empty_waits"),
        lambda lookups, row: lookups.where_asked(*row[1:]) if row.asked else "",
    ),
    "library": (
        ("reap_library",),
        lambda lookups, row: "a library" if pd.isna(row.reap_library) else printable(row.reap_library),
    ),
}


def _polled(number: Any) -> str:
    return "no child" if pd.isna(number) or not number else count(number, "child", "children")


def _parent(lookups: Lookups, row: Any) -> str:
    return lookups.names.of(row.parent_id, row.ppid) if row.ppid else NOBODY_KNOWN


def _adopter(lookups: Lookups, row: Any) -> str:
    """Who had the process last."""
    return lookups.names.of(row.adopter_id, row.adopter_pid) if row.orphan else _parent(lookups, row)
