"""What a recording closes with: zombies that nobody saw go, and the worst one, in a sentence."""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from forktrace.cpython import child_waits
from forktrace.kernel.bpf_maps import Records
from forktrace.system.procfs import Proc
from forktrace.system.worker import Worker
from forktrace.trace import events
from forktrace.trace.events import CALLS, ECHILD, STACK_STATUSES, TARGETS
from forktrace.trace.stacks import Frame, fold
from forktrace.trace.words import NOTICEABLE_MS, count, duration, zombie_headline

LOOK_AT_MOST: Final = 200  # processes whose threads are looked at,
LOOK_MOST_S: Final = 3.0  # and how long that may take
MOST_KEPT: Final = 10_000  # reaps by waits for any child, and zombies that init inherited: the last ones of each
_ANY_CHILD: Final = (TARGETS.index("any"), TARGETS.index("pgid"))


_Asked = tuple[int, int, int]  # number and start of who waits, number of the child


class _Zombie(NamedTuple):
    """A zombie: how long it lasted, which process it is (number, start), who reaped it by which call.

    Empty call: nobody; `left`: that does not matter, and it lasted until its parent ended.
    """

    lasted_ns: int
    who: tuple[int, int]
    by: int
    call: str


class Closing:
    """Keeps what matters most of a recording: stolen exit statuses, zombies that nobody reaped, the longest one.

    estimated   processes (pid, start) of which it is estimated since when they were zombies
    recorder    the parent of the command: what it reaps is left out
    init        reaps orphans when it gets to them: how long they were zombies says little of the program
    """

    def __init__(self, estimated: Container[tuple[int, int]] = (), recorder: int = 0, init: int = 0) -> None:
        self._estimated = estimated
        self._recorder = recorder
        self._init = init
        self._inherited_ns: dict[tuple[int, int], int] = {}  # when init inherited a zombie
        self._elsewhere_ns = 0  # the longest zombie that init reaped, or that was released unseen
        self._late: set[tuple[int, int]] = set()  # of the last call of note_late
        self._worst: _Zombie | None = None
        self._open: list[_Zombie] = []
        self._taken: dict[_Asked, int] = {}  # -> the stack of the wait for any child that took it
        self._stolen: set[_Asked] = set()

    def note_inherited(self, zombies: Records) -> None:
        """Look at notifications (`struct zombie_record`): init is notified of a zombie that it has inherited."""
        for one in zombies[(zombies["parent"]["pid"] == self._init) & (self._init != 0)]["head"]:
            self._inherited_ns[identity(one["process"])] = int(one["time_ns"])
        _keep_last(self._inherited_ns)  # of those that init does not reap, or is not seen to, nothing else is taken out

    def note_late(self, gone: Iterable[Records]) -> None:
        """Look at processes (`struct process`) whose release will be noted next, though it may be long past."""
        inherited_ns = {identity(one): int(max(one["notified_ns"], one["reparented_ns"])) for one in gone}
        self._late = set(inherited_ns)
        self._inherited_ns |= inherited_ns

    def note(self, reaps: Records) -> None:
        """Look at reaps (`struct wait_record`)."""
        self._note_taken(reaps)
        by = reaps["head"]["by"]["pid"]
        zombies = (reaps["zombie_ns"] != 0) & ((by != self._recorder) | (by == 0))
        left = zombies & (((by == self._init) & (by != 0)) | self._is_late(reaps))
        for one in reaps[left]:
            who, reaped_ns = identity(one["head"]["process"]), int(one["head"]["time_ns"])
            self._note_left(who, int(one["zombie_ns"]), self._inherited_ns.pop(who, 0), reaped_ns)
        seen = reaps[zombies & ~left]
        if not len(seen):
            return
        lasted = seen["head"]["time_ns"] - seen["zombie_ns"]
        index = int(lasted.argmax())
        head, call = seen[index]["head"], CALLS[seen[index]["call"]]
        found = _Zombie(int(lasted[index]), identity(head["process"]), int(head["by"]["pid"]), call)
        self._worst = max(filter(None, (self._worst, found)))

    def _is_late(self, reaps: Records) -> Any:
        """Which reaps (`struct wait_record`) were seen by nobody, and may be long past."""
        if not self._late:  # as a rule
            return np.zeros(len(reaps), bool)
        return np.array([identity(one) in self._late for one in reaps["head"]["process"]], bool)

    def _note_left(self, who: tuple[int, int], zombie_ns: int, inherited_ns: int, gone_ns: int) -> None:
        """Look at a zombie that somebody else reaped later, or unseen: it is the program's until it was inherited."""
        left = _Zombie(inherited_ns - zombie_ns, who, 0, "left")
        if left.lasted_ns >= NOTICEABLE_MS * 1e6:
            self._worst = max(filter(None, (self._worst, left)))
        else:
            self._elsewhere_ns = max(self._elsewhere_ns, gone_ns - zombie_ns)

    def _note_taken(self, reaps: Records) -> None:
        """Keep the children that waits for any child reaped, with the stack. A wait for that very child steals from nobody."""
        for_any = np.isin(reaps["target"], _ANY_CHILD) & _has_line(reaps)
        if self._taken:
            for asked, _ in _asked(reaps[~for_any], "ns_pid"):
                self._taken.pop(asked, None)
        self._taken |= _asked(reaps[for_any], "ns_pid")
        _keep_last(self._taken)

    def note_waits(self, waits: Records) -> None:
        """Look at waits (`struct wait_record`): one for a single child that a wait for any child had reaped came too late."""
        in_vain = waits[(waits["error"] == ECHILD) & ~np.isin(waits["target"], _ANY_CHILD) & _has_line(waits)]
        self._stolen |= {asked for asked, stack in _asked(in_vain, "target_pid") if self._taken.get(asked, stack) != stack}

    def note_open(self, still: Records, until_ns: int) -> None:
        """Look at processes (`struct process`) that nobody has reaped before the recording ended."""
        for one in still:
            if 0 < one["zombie_ns"] < until_ns:
                self._open.append(_Zombie(until_ns - int(one["zombie_ns"]), identity(one), 0, ""))

    @property
    def has_zombies(self) -> bool:
        """Whether there is a zombie to explain."""
        return bool(self._open) or (self._worst is not None and self._worst.lasted_ns >= NOTICEABLE_MS * 1e6)

    def words(self) -> list[str]:
        """Return what matters most, in sentences."""
        stolen = len(self._stolen)
        harm = [f"{count(stolen, 'exit status')} stolen: a wait for any child came first"] * bool(stolen)
        if self._open:
            others = f", one of {len(self._open):,}" if len(self._open) > 1 else ""
            harm.append(self._sentence(max(self._open)) + others)
        if not harm and self._worst and self.has_zombies:
            harm.append(self._sentence(self._worst))
        return harm or [f"no zombie lasted longer than {NOTICEABLE_MS:.0f} ms{self._elsewhere()}"]

    def _elsewhere(self) -> str:
        """The words on zombies whose time says little of the program."""
        lasted_ms = self._elsewhere_ns / 1e6
        if lasted_ms < NOTICEABLE_MS:
            return ""
        return f" but for what was reaped outside the recording, after at most {duration(lasted_ms)}"

    def _sentence(self, one: _Zombie) -> str:
        bound = "about" if one.who in self._estimated else ""
        headline = zombie_headline(str(one.who[0]), duration(one.lasted_ns / 1e6), bound=bound)
        return f"{headline}, {ending_of_zombie(one.by, one.call)}"


def _keep_last(kept: dict[Any, int]) -> None:
    """Take out the oldest entries beyond MOST_KEPT."""
    while len(kept) > MOST_KEPT:
        kept.pop(next(iter(kept)))


def _has_line(waits: Records) -> Any:
    """Which waits (`struct wait_record`) were made by a line of Python."""
    return waits["head"]["stack_status"] == STACK_STATUSES.index("ok")


def _asked(waits: Records, number: str) -> list[tuple[_Asked, int]]:
    """Of waits (`struct wait_record`): who waits, with the child's number, which is in the field `number`; and the stack."""
    by = waits["head"]["by"]
    asked = zip(by["pid"].tolist(), by["start_ns"].tolist(), waits[number].tolist(), strict=True)
    return list(zip(asked, waits["head"]["stack"].tolist(), strict=True))


def identity(one: Any) -> tuple[int, int]:
    """Return what identifies a process even when its number is reused: that and its start. Of `struct process` or `who`."""
    return int(one["pid"]), int(one["start_ns"])


def vanished(still: Records, proc: Proc) -> set[tuple[int, int]]:
    """Return those of `still` (`struct process`) that have ended and are not there any more, by /proc.

    On some machines no probe runs while certain processes do (docs/limits.md), so a release may be unseen.
    """
    ended = still[(still["exit_ns"] != 0) & (still["pid"] != 0)]
    return {identity(one) for one in ended if not _is_there(one, proc)}


def _is_there(one: Records, proc: Proc) -> bool:
    try:
        return proc.one(*identity(one)) is not None
    except PermissionError:  # it may be: /proc hides it
        return True


def ending_of_zombie(by: int, call: str) -> str:
    """Return in words how a zombie was released by the call (`reap_call`) of the process `by`; no call: it was not."""
    if not call:
        return "and still is: nobody reaped it"
    if call == "left":
        return "until its parent ended without a wait"
    if call == "kernel":
        return "until the kernel released it: its PID namespace died"
    how = "; that was not seen and may have been earlier" if call == "unseen" else f" with {call}"
    return f"until {by or 'another process'} reaped it{how}"


def still_waiting(living: Records, until_ns: int, *, stacks: bool) -> tuple[list[events.Row], set[Frame]]:
    """Return a row for each thread of these processes (`struct process`) that waits for a child, and the frames of all."""
    starts = dict(identity(one) for one in living if one["pid"])
    helper = Worker(partial(child_waits.look, stacks))
    try:
        asked = [pid for pid in list(starts)[:LOOK_AT_MOST] if helper.ask(pid)]
        answers = helper.wait(LOOK_MOST_S) if asked else []
    finally:
        helper.close()
    waits = [(pid, *one) for pid, found in answers for one in found or ()]
    frames = [[Frame(*frame) for frame in one[-1]] for one in waits]
    rows = [_row(until_ns, starts, one, stack) for one, stack in zip(waits, frames, strict=True)]
    return rows, {frame for stack in frames for frame in stack}


def _row(until_ns: int, starts: dict[int, int], waits: tuple[Any, ...], stack: list[Frame]) -> events.Row:
    pid, tid, slept_ns, call, _ = waits
    name, asked, options, child = call or (None, None, 0, None)
    target = None if asked is None else "pid" if asked > 0 else "any" if asked == -1 else "pgid"
    return events.wait(
        until_ns,
        child,
        by=pid,
        call=name,
        target=target,
        start_ns=starts.get(child) if child else None,
        result=events.EINTR,
        flags=options,
        target_pid=asked,
        count=slept_ns,
        stack=fold(stack) if stack else None,
        stack_status="ok" if stack else None,
        detail=events.GOES_ON,
    ) | events.acting(pid, tid, starts[pid])
