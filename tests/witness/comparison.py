"""Compares the lifecycle table of a recording with what other witnesses saw of the same processes.

`RULES` has every reason for which they may differ, by the name it has in docs/reliability.md; what none of them explains is a
difference. Moments are compared with bounds: a witness that takes its clock before and after a call knows that what the call
did lies between. Those bounds hold on any machine, however busy; only `SLOW_NS` is a guess.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd
from recorded import CLOCKS_NS, TICK_NS
from straced import FORKS, UNKNOWN, Bounds, Log, Seen

from forktrace.trace.waitstatus import signal_name

RULES: Final = {
    "witness": "strace, and what it makes to try out what ptrace can do, are not in its log; the command is its child to reap",
    "no-wait": "released without a wait that returned to a followed process: autoreap, unseen, kernel, or a zombie at the end",
    "cut-call": "killed inside a call: strace does not see it return, and the kernel had done what it asked for",
    "killed-leaving": "the program said with what code it leaves, and a signal killed it before it had",
    "left-twice": "another thread had left already, with another code: the first exit_group counts",
    "dead-leader": "the first thread has ended and others live: /proc shows a zombie that nobody can reap",
    "unnotified": "who ignores SIGCHLD is not told: the autoreap is put at the exit, before the memory is given back",
    "unseen": "nobody's wait was seen: the time is an upper bound",
}
WAITS: Final = ("wait4", "waitid", "io_uring")
SLOW_NS: Final = 1_000_000_000  # for how long a busy machine may leave a thread between two things that it does at once
NEVER_NS: Final = 2**62
STATUS: Final = {signal_name(number): number for number in range(1, 65)}


@dataclass
class Comparison:
    """How often what was compared, which differences which rule explains, and those that none does."""

    compared: Counter[str] = field(default_factory=Counter)
    explained: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)

    def check(self, what: str, about: str, ours: object, theirs: object) -> None:
        """Unequal values are a difference."""
        self.compared[what] += 1
        if ours != theirs:
            self.differences.append(f"{about}: {what}: forktrace {ours}, witness {theirs}")

    def within(self, what: str, about: str, moment: int | None, bounds: Bounds) -> None:
        """A moment outside of what the witness saw, or none, is a difference."""
        self.compared[what] += 1
        if moment is None:
            self.differences.append(f"{about}: {what}: forktrace has none, the witness one")
        elif moment < bounds.early - CLOCKS_NS:
            self.differences.append(f"{about}: {what}: {(bounds.early - moment) / 1e6:.3f} ms too early")
        elif moment > bounds.late + CLOCKS_NS:
            self.differences.append(f"{about}: {what}: {(moment - bounds.late) / 1e6:.3f} ms too late")

    def explain(self, rule: str) -> None:
        """Count one difference that a rule explains."""
        assert rule in RULES, rule
        self.explained[rule] += 1

    def add(self, other: Comparison) -> None:
        """Take over what another comparison found."""
        self.compared += other.compared
        self.explained += other.explained
        self.differences += other.differences

    def __str__(self) -> str:
        counts = ", ".join(f"{what} {count}" for what, count in sorted(self.compared.items()))
        rules = ", ".join(f"{rule} {count}" for rule, count in sorted(self.explained.items()))
        return f"compared: {counts}; explained: {rules or 'nothing'}; differences: {len(self.differences)}"


def number(value: Any) -> int | None:
    """An integer of the table; None for `<NA>`."""
    return None if pd.isna(value) else int(value)


def wait_status(row: Any) -> int | None:
    """The status of a row as wait4 gives it; None while it runs."""
    if not pd.isna(row.exit_code):
        return int(row.exit_code) << 8
    if pd.isna(row.term_signal):
        return None
    return STATUS[row.term_signal] | (0x80 if row.core_dumped else 0)


class Rows:
    """The rows of a lifecycle table, found by number and moment."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.all: list[Any] = list(table.itertuples(index=False))
        self.by_id: dict[int, Any] = {int(row.id): row for row in self.all}
        self._numbered: dict[int, list[Any]] = defaultdict(list)
        for row in self.all:
            self._numbered[int(row.pid)].append(row)

    def of(self, pid: int) -> list[Any]:
        """Return all rows with that number, in fork order."""
        return self._numbered.get(pid, [])

    def at(self, pid: int, time_ns: int) -> Any:
        """Return the row whose process had that number at that moment; None: forktrace knows of none."""
        there = (row for row in self.of(pid) if row.fork_ns <= time_ns + CLOCKS_NS and not _gone(row, time_ns))
        return next(there, None)

    def within(self, pid: int, column: str, bounds: Bounds) -> Any:
        """Return the row with that number whose moment is within the bounds; None: there is none."""
        for row in self.of(pid):
            moment = number(getattr(row, column))
            if moment is not None and bounds.early - CLOCKS_NS <= moment <= bounds.late + CLOCKS_NS:
                return row
        return None


def _gone(row: Any, time_ns: int) -> bool:
    return not pd.isna(row.reap_ns) and bool(row.reap_ns < time_ns - CLOCKS_NS)


def with_strace(table: pd.DataFrame, log: Log, offset_ns: int, drift_ns: int) -> Comparison:
    """Compare with the log of a strace that ran inside the recording.

    `offset_ns` makes CLOCK_REALTIME of CLOCK_BOOTTIME; it moved by `drift_ns` meanwhile.
    """
    found, rows = Comparison(), Rows(table)

    def ours(bounds: Bounds) -> Bounds:
        return Bounds(bounds.early - offset_ns - drift_ns, bounds.late - offset_ns + drift_ns)

    pairs = {id(seen): row for seen in log.processes if (row := _forked_there(rows, seen, ours)) is not None}
    taken = {int(row.id) for row in pairs.values()}
    cut_forks = {tid for tid, name, _ in log.cut if name in (*FORKS, UNKNOWN)}
    for row in rows.all:
        if row.id not in taken and row.forker_tid in cut_forks and row.term_signal == "SIGKILL":
            found.explain("cut-call")
        elif row.id not in taken and number(row.parent_id) in taken:
            found.differences.append(f"{row.pid} (row {row.id}), made by thread {row.forker_tid}: strace did not see it")
        elif row.id not in taken:
            found.explain("witness")
    for seen in log.processes:
        if id(seen) in pairs:
            _one_of_strace(found, pairs[id(seen)], seen, ours)
        elif not seen.fork and not seen.spoke and cut_forks:
            found.explain("cut-call")  # it may be a thread: only the call would say
        else:
            found.differences.append(f"{seen.pid}: forktrace did not see it; its exec, exit: {seen.execs}, {seen.exit}")
    inside = taken - {int(pairs[id(seen)].id) for seen in log.processes[:1] if id(seen) in pairs}
    theirs = ((step.tid, step.what, int(pairs[id(step.process)].id)) for step in log.steps if id(step.process) in pairs)
    _same_order(found, rows, inside, theirs, cut_forks | {tid for tid, name, _ in log.cut if name in ("wait4", "waitid")})
    return found


def _forked_there(rows: Rows, seen: Seen, ours: Any) -> Any:
    if seen.fork:
        return rows.within(seen.pid, "fork_ns", ours(seen.fork))
    first = ours(Bounds(seen.first_ns, seen.first_ns))
    before = [row for row in rows.of(seen.pid) if row.fork_ns <= first.late + CLOCKS_NS]
    return before[-1] if before and not _gone(before[-1], first.early - SLOW_NS) else None


def _one_of_strace(found: Comparison, row: Any, seen: Seen, ours: Any) -> None:
    about = f"{seen.pid} (row {row.id})"
    if seen.fork:
        found.check("parent", about, number(row.ppid), seen.parent.pid if seen.parent else None)
        found.check("forker", about, (row.forker_pid, row.forker_tid), (seen.forker_pid, seen.forker_tid))
    exec_ns = number(row.exec_ns)
    if exec_ns and seen.cut_exec_ns and exec_ns >= ours(Bounds(seen.cut_exec_ns, 0)).early:
        found.explain("cut-call")
    elif seen.execs:
        found.within("exec", about, exec_ns, ours(seen.execs[-1]))
    else:
        found.check("exec", about, exec_ns, None)
    if seen.exit:
        found.check("status", about, wait_status(row), seen.status)
        found.within("exit", about, number(row.exit_ns), ours(seen.exit))
    if not seen.fork:
        return
    if seen.reap and seen.reaper:
        found.check("reaper", about, (number(row.reaper_pid), number(row.reaper_tid)), (seen.reaper.pid, seen.reaper_tid))
        if seen.told is not None:
            found.check("status told", about, wait_status(row), seen.told)
        found.within("reap", about, number(row.reap_ns), ours(seen.reap))
    elif row.reap_call not in WAITS:
        found.explain("no-wait")


def _same_order(found: Comparison, rows: Rows, inside: set[int], theirs: Iterable[tuple[int, str, int]], cut: set[int]) -> None:
    """What each thread forked and reaped, one after the other: the order of its own calls is certain.

    The last call of a thread in `cut` did not return to the witness.
    """
    said: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for tid, what, row in theirs:
        said[tid].append((what, row))
    did: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for _, tid, what, row in sorted(_steps(rows)):
        if row in inside:
            did[tid].append((what, row))
    for tid in sorted(said.keys() | did.keys()):
        if tid in cut and len(did[tid]) == len(said[tid]) + 1:
            did[tid].pop()
            found.explain("cut-call")
        found.check("order of forks and reaps", f"thread {tid}", did[tid], said[tid])


def _steps(rows: Rows) -> Iterator[tuple[int, int, str, int]]:
    for row in rows.all:
        yield int(row.fork_ns), int(row.forker_tid), "fork", int(row.id)
        if row.reap_call in WAITS:
            yield int(row.reap_ns), int(row.reaper_tid), "reap", int(row.id)


def with_own_log(table: pd.DataFrame, lines: Iterable[Mapping[str, Any]]) -> Comparison:
    """Compare with the program's own log (own_log.c): all that it says has to be so; it need not say all."""
    found, rows = Comparison(), Rows(table)
    left: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        if line["what"] == "exit":
            row = rows.at(line["pid"], line["before_ns"])
            if row is None:
                found.differences.append(f"forktrace did not see {line}")
            else:
                left[int(row.id)].append(line)
            continue
        bounds = Bounds(line["before_ns"], line["after_ns"])
        column = "reap_ns" if line["what"] == "wait" else "fork_ns"
        row = rows.within(line["child"], column, bounds)
        if row is None:
            known = [(number(one.fork_ns), number(one.reap_ns)) for one in rows.of(line["child"])]
            found.differences.append(f"forktrace did not see {line}; forked and reaped: {known}")
        elif line["what"] == "wait":
            _waited(found, row, line)
        else:
            found.check("forker", f"row {row.id}", (row.forker_pid, row.forker_tid), (line["pid"], line["tid"]))
    for process, exits in left.items():
        _left(found, rows.by_id[process], exits)
    return found


def _waited(found: Comparison, row: Any, line: Mapping[str, Any]) -> None:
    about = f"{row.pid} (row {row.id})"
    found.check("reaper", about, (number(row.reaper_pid), number(row.reaper_tid)), (line["pid"], line["tid"]))
    found.check("status", about, wait_status(row), line["status"])
    found.check("reaped by a wait", about, row.reap_call in WAITS, True)


def _left(found: Comparison, row: Any, exits: list[Mapping[str, Any]]) -> None:
    """It ends no earlier than it says that it is about to, and with the code that it said."""
    about = f"{row.pid} (row {row.id})"
    found.within("exit", about, number(row.exit_ns), Bounds(max(line["before_ns"] for line in exits), NEVER_NS))
    codes = {line["code"] for line in exits}
    if not pd.isna(row.term_signal):
        found.explain("killed-leaving")
    elif len(codes) > 1:
        found.check("exit code is one of those said", about, number(row.exit_code) in codes, True)
        found.explain("left-twice")
    else:
        found.check("status", about, wait_status(row), codes.pop() << 8)


def with_samples(
    table: pd.DataFrame,
    end_ns: int,
    samples: Iterable[Mapping[str, Any]],
    adopters: Mapping[int, Iterable[int]] | None = None,
) -> Comparison:
    """Compare with what sampler.c saw in /proc. It misses what is shorter than its step; what it saw has to be so.

    The table, of a recording that ended at `end_ns`, has the first and the last parent; `adopters` has those between, by id.
    """
    adopters = adopters or {}
    found, rows = Comparison(), Rows(table)
    for sample in samples:
        same = [row for row in rows.of(sample["pid"]) if row.fork_ns // TICK_NS == sample["starttime"]]
        if same:
            found.check("pid and start name one process", f"pid {sample['pid']}", len(same), 1)
            _sampled(found, same[0], end_ns, sample, adopters.get(int(same[0].id), ()))
        elif sample["ppids"] and rows.at(sample["ppids"][0], sample["first_ns"]) is not None:
            found.differences.append(f"forktrace did not see this child of a process that it followed: {sample}")
    return found


def _sampled(found: Comparison, row: Any, end_ns: int, sample: Mapping[str, Any], adopters: Iterable[int]) -> None:
    about = f"{row.pid} (row {row.id})"
    known = {number(row.ppid), number(row.adopter_pid), *adopters}
    if row.reap_call == "autoreap" and sample["there_ns"] > row.reap_ns:
        found.explain("unnotified")
    else:
        found.check("parents", about, known, known | set(sample["ppids"]))
    found.within("seen after the fork", about, number(row.fork_ns), Bounds(0, sample["first_ns"]))
    ended = number(row.exit_ns) if pd.isna(row.zombie_ns) else number(row.zombie_ns)
    unnotified = row.reap_call == "autoreap" and pd.isna(row.zombie_ns)
    if unnotified and sample["alive_ns"] > row.exit_ns:
        found.explain("unnotified")
    elif sample["alive_ns"]:
        found.within(
            "alive before its zombie", about, NEVER_NS if ended is None else ended, Bounds(sample["alive_ns"], NEVER_NS)
        )
    if sample["zombie_ns"]:
        latest = sample["zombie_ns"] + SLOW_NS
        if sample["threads"] > 1 and (ended is None or ended > latest):
            found.explain("dead-leader")
        else:
            found.within("zombie when seen as one", about, ended, Bounds(0, latest))
    reap_ns = number(row.reap_ns)
    # Who ignores SIGCHLD has the child released microseconds after the notification, which is the time of an autoreap.
    early = sample["there_ns"] - (SLOW_NS if row.reap_call == "autoreap" else 0)
    found.within("reaped after it was seen last", about, NEVER_NS if reap_ns is None else reap_ns, Bounds(early, NEVER_NS))
    if row.reap_call == "unseen":
        found.explain("unseen")
    elif sample["gone_ns"]:  # who was not reaped within the recording was there up to its end
        found.within(
            "reaped when it was gone", about, end_ns if reap_ns is None else reap_ns, Bounds(0, sample["gone_ns"] + SLOW_NS)
        )
