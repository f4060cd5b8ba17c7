"""Takes in what the probes send, and writes it: events with stacks and lines, losses, totals, and who is left at the end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from forktrace.kernel.bpf_maps import Records
from forktrace.kernel.probes import Probes
from forktrace.recorder.closing import Closing, identity, still_waiting, vanished
from forktrace.recorder.interpreters import Interpreters
from forktrace.recorder.rows import columns_of, in_parts, pieces, split
from forktrace.recorder.sources import Sources
from forktrace.recorder.stack_table import StackTable
from forktrace.recorder.task_passes import TaskPasses
from forktrace.recorder.trace_output import TraceOutput
from forktrace.recorder.wait_totals import WaitTotals
from forktrace.system.capabilities import in_effect
from forktrace.system.procfs import Proc, clock_offset_ns, kernel_boottime_ns
from forktrace.trace import events
from forktrace.trace.carried import Carried

DRAIN_EVERY: Final = 200  # new stacks, some 10 ms of work
CLOSING_ROUNDS: Final = 10
COUNTS_EVERY_NS: Final = 5_000_000_000  # that the kernel's own counts are looked at while nothing happens
BUSY_NS: Final = 100_000_000  # so long after an event more of them are expected
STILL_MOST: Final = 150  # processes that the end of a trace names where events were lost; they fit into stream.END_BYTES
SOURCES_S: Final = 15.0  # at most, that the text of source lines is waited for at the end
WAITING_MOST: Final = (
    32 << 20
)  # bytes read from the ring and not yet written; beyond that the ring may fill up, and lose events
MANY_PLACES: Final = 1000  # with empty waits; beyond that, those of processes that are gone are forgotten


class Intake:
    """Takes in what the probes send, and answers what they ask about files.

    Attributes:
        until_ns: all that was before is taken in (CLOCK_BOOTTIME)
    """

    def __init__(self, probes: Probes, interpreters: Interpreters) -> None:
        self._probes = probes
        self._interpreters = interpreters
        self._chunks: list[bytes] = []
        self._waiting_bytes = 0  # in them
        self._came_ns = 0  # when something came last
        self.until_ns = 0

    def is_waiting(self) -> bool:
        """Whether something was taken in that is not written."""
        return bool(self._chunks)

    def is_busy(self) -> bool:
        """Whether something has come a moment ago."""
        return self.until_ns - self._came_ns < BUSY_NS

    def tell(self) -> None:
        """Tell the probes about the files that were examined since the last time."""
        news, forgotten = self._interpreters.take()
        for file, fields in news.items():
            self._probes.describe(file, fields)
        self._probes.forget_files(forgotten)

    def drain(self) -> bool:
        """Take in what the rings hold: they must not fill up while new stacks are worked on, nor a question wait.

        Return whether something has come, and nothing was waiting to be written.
        """
        was_waiting = self.is_waiting()
        for question in self._probes.questions():  # answered before the process that made them ask gets far
            self._interpreters.answer(question)
        self.tell()
        now = kernel_boottime_ns()
        if self._waiting_bytes < WAITING_MOST:
            chunk = self._probes.read()
            self._chunks += [chunk] if chunk else []
            self._waiting_bytes += len(chunk)
            self._came_ns = now if chunk else self._came_ns
            self.until_ns = now
        return self.is_waiting() and not was_waiting

    def take(self) -> bytes:
        """Return what waits to be written, which is then the caller's to write."""
        chunk = b"".join(self._chunks)
        self._chunks.clear()
        self._waiting_bytes = 0
        return chunk


@dataclass(frozen=True)
class Armed:
    """What is ready before it is known what to follow.

    Attributes:
        passes: what follows processes that run already; None: a target is followed from its start
        stacks: whether stacks are recorded
    """

    probes: Probes
    interpreters: Interpreters
    passes: TaskPasses | None
    intake: Intake
    stacks: bool


class Drain:
    """Writes what was taken in, up to the end of the trace.

    Attributes:
        output: where to; the next file of a rotation takes its place
        counts: events written, by kind
        lost: what could not be delivered, by what it was
        closing: what is to be said at the end
        unfollowed: processes of which it could not be told whether they live
        pid_ns: inode number of the PID namespace here
    """

    def __init__(self, armed: Armed, output: TraceOutput, sources: Sources | None, closing: Closing) -> None:
        self._with_stacks = armed.stacks
        self._probes = armed.probes
        self._interpreters = armed.interpreters
        self._passes = armed.passes
        self._intake = armed.intake
        self._sources = sources
        self._stacks = StackTable(armed.probes.forget_stacks, armed.interpreters.not_python)
        self._wait_totals = WaitTotals()
        self._cgroups: dict[int, str | None] = {}
        self._named: set[int] = set()  # the interpreters that the trace names
        self._counted_ns = 0  # when the kernel's counts were last looked at
        self._still_at = kernel_boottime_ns(), armed.probes.following()  # who was followed when that was last asked
        self._gone: set[tuple[int, int]] = set()  # zombies that had gone at the last turn: the ring has told of them by now
        self._before: tuple[Counter[str], dict[str, int], int] = (Counter(), {}, 0)  # in earlier files; carried into this one
        self._proc = Proc(rights=in_effect)  # which may be mounted such that it hides the processes of others (hidepid)
        self.output = output
        self.closing = closing
        self.counts = output.counts
        self.lost: dict[str, int] = {}
        self.unfollowed = 0
        self.pid_ns = os.stat("/proc/self/ns/pid").st_ino

    def running(self) -> int:
        """Return how many followed processes live."""
        if any(self.lost.values()):
            return int((self._probes.following()["exit_ns"] == 0).sum())
        return self.counts["fork"] - self.counts["exit"]

    def zombies(self) -> int:
        """Return how many followed processes are zombies."""
        if any(self.lost.values()):
            return int((self._probes.following()["exit_ns"] != 0).sum())
        return self.counts["exit"] - self.counts["reap"] - self.counts["autoreap"]

    def write(self, *, everything: bool = True) -> None:
        """Write what has come since the last time, if anything has.

        Without `everything` what the kernel counts is only looked at when something has come, and every 5 s.
        """
        until_ns = self._intake.until_ns
        counts = everything or self._intake.is_waiting() or until_ns - self._counted_ns >= COUNTS_EVERY_NS
        for piece in pieces(self._intake.take()):
            self._write_piece(piece, until_ns)
        self.output.until_ns = max(until_ns, self.output.until_ns)
        self._write_sources()
        if counts:
            self._counted_ns = until_ns
            self.write_losses()
            self._write_waits()

    def _write_piece(self, piece: bytes, until_ns: int) -> None:
        """Write some records. Each step needs the ones before it:

        add the stacks     the interpreters are those whose code was added
        learn from them    a row says what is known when it is made: of its stack, of its program, of its time
        write              an interpreter comes before the rows with its stacks
        note               the times that were estimated are in the records by now
        make room          no row needs the stacks any more
        """
        records, sent = split(piece)
        self._add_stacks(sent)
        findings = self._findings(until_ns)
        self._intake.drain()
        self._learn_from(records)
        columns, rows = columns_of(records, self._cgroup, self._proc.argv_text, self.pid_ns, self._stacks)
        self.output.write(findings)
        for part in in_parts(columns, rows):
            self.output.write_events(*part)
        self._note(records)
        self._stacks.make_room()

    def _add_stacks(self, sent: Mapping[str, list[bytes]]) -> None:
        """Add code objects, then the stacks that refer to them; meanwhile the rings are drained."""
        additions = [(self._stacks.add_code, record) for record in sent["code"]]
        additions += [(self._stacks.add_stack, record) for record in sent["stack"]]
        for number, (add, record) in enumerate(additions):
            add(record)
            if number % DRAIN_EVERY == 0:
                self._intake.drain()

    def _learn_from(self, records: Mapping[str, Records]) -> None:
        """Find out which programs that ran are interpreters, and when zombies from before the recording ended."""
        if "exec" in records:
            names = {os.fsdecode(name.partition(b"\0")[0]) for name in records["exec"]["file"].tolist()}
            self._interpreters.look_at(names, self._intake.drain)
            self._intake.tell()
        if self._passes and "exit" in records:
            self._passes.estimate(records["exit"])

    def _note(self, records: Mapping[str, Records]) -> None:
        """Note what the recording closes with."""
        if "zombie" in records:
            self.closing.note_inherited(records["zombie"])
        if "reap" in records:
            reaps = records["reap"]
            self._correct_zombie_ns(reaps["head"]["process"], reaps["zombie_ns"])
            self.closing.note(reaps)
        if "wait" in records:
            self.closing.note_waits(records["wait"])

    def _findings(self, until_ns: int) -> list[events.Row]:
        """Return which interpreters were met, and have the lines read that new stacks stand on."""
        met = [self._interpreters.found[file] for file in sorted(self._stacks.interpreters - self._named)]
        self._named |= self._stacks.interpreters
        rows = [events.runtime(until_ns, one.file, one.version, one.libraries) for one in met]
        rows += [events.runtime(until_ns, file, "", [], why) for file, why in self._interpreters.not_walked()]
        if self._sources:
            libraries = [folder for file in self._named for folder in self._interpreters.found[file].libraries]
            self._sources.ask(self._stacks.new_frames, libraries)
        self._stacks.new_frames.clear()
        return rows

    def _write_sources(self, patience_s: float = 0.0) -> None:
        """Write the text of lines that has been read; with some patience, of all."""
        if self._sources:
            self.output.write(events.source(self.output.until_ns, *each) for each in self._sources.take(patience_s))

    def _correct_zombie_ns(self, who: Any, zombie_ns: Any) -> None:
        """Correct since when processes are zombies that were so before they were followed."""
        if self._passes and self._passes.ended_ns:
            for index, one in enumerate(who):
                zombie_ns[index] = self._passes.ended_ns.get(identity(one), zombie_ns[index])

    def write_losses(self) -> None:
        """Write what was lost since the last time."""
        lost, now = self._probes.losses(), kernel_boottime_ns()
        lost["process not followed"] += self.unfollowed
        new = {what: count - self.lost.get(what, 0) for what, count in lost.items()}
        if any(new.values()):
            self.output.write(events.lost(now, count, what) for what, count in new.items() if count)
            self.output.until_ns = now
        self.lost = lost

    def _write_waits(self, *, last: bool = False) -> None:
        """Write the totals that changed, and forget the places of processes that are gone."""
        places, counts = self._probes.wait_totals()
        self.output.write(self._wait_totals.changed(self.output.until_ns, places, counts, self._stacks, last=last))
        if len(places) > MANY_PLACES:
            here = set(map(identity, self._probes.following()))
            gone = [place for place in places if identity(place) not in here]
            for place in gone:
                self._probes.forget(place)
            self._wait_totals.forget(set(map(identity, gone)))

    def _cgroup(self, number: int, pid: int) -> str | None:
        """Return the path of a control group (v2), learnt from the first process seen in it; None when that is gone."""
        if self._cgroups.get(number) is None:
            self._cgroups[number] = self._proc.cgroup(pid, number)
        return self._cgroups[number]

    def write_rest(self) -> None:
        """Write what is still to come, and the totals of waits that are counted as long as a process lives."""
        # A process that began before and is not followed any more has ended: the ring says so, or that is lost.
        self._still_at = kernel_boottime_ns(), self._probes.following()
        gone = vanished(self._still_at[1], self._proc)
        self._intake.drain()
        for _ in range(CLOSING_ROUNDS):  # more may come in while this is written
            self.write()
            if not self._intake.is_waiting():
                break
        self._write_still_waiting()
        self._write_sources(SOURCES_S)
        self._write_waits(last=True)
        self._write_vanished(gone)
        self._write_empty_waits()

    def _write_empty_waits(self) -> None:
        """Write the totals of waits for one child of those that live."""
        still = self._probes.following()
        self.output.write(
            events.waits(self.output.until_ns, int(one["empty_waits"]), pid=int(one["pid"]), start_ns=int(one["start_ns"]))
            for one in still[still["empty_waits"] > 0]
        )

    def _write_still_waiting(self) -> None:
        """Write which threads wait for a child, as long as somebody lives."""
        following = self._probes.following()
        living = following[following["exit_ns"] == 0]
        rows, frames = still_waiting(living, self.output.until_ns, stacks=self._with_stacks) if len(living) else ([], set())
        self.output.write(rows)
        if self._sources and frames:
            self._sources.ask(frames, [folder for one in self._interpreters.found.values() for folder in one.libraries])

    def _write_vanished(self, gone: set[tuple[int, int]]) -> None:
        """Write that these are gone, if their release has not come through the ring since; the time may be an upper bound."""
        if gone:
            self.closing.note_late(self._probes.release(gone))
            self._intake.drain()
            self.write()

    def write_end(self, full: int | None) -> None:
        """Close the trace at the moment up to which it is whole, and detach the probes. `full`: the size that it reached."""
        still = self._probes.following()
        self._correct_zombie_ns(still, still["zombie_ns"])
        self.closing.note_open(still, self.output.until_ns)
        self.output.close(self._totals() | ({"full": full} if full else self._still()))
        self.output.check()
        self._probes.close()
        self._interpreters.helper.close()
        if self._sources:
            self._sources.helper.close()

    def _totals(self) -> dict[str, Any]:
        """What the end of a file says of it."""
        counts, lost, carried = self._before
        now = Counter(self.counts)
        now.subtract(counts)
        newly_lost = {what: count - lost.get(what, 0) for what, count in self.lost.items()}
        totals = {
            "events": {kind: count for kind, count in now.items() if count},
            "lost": {what: count for what, count in newly_lost.items() if count},
            "processes": now["fork"] + newly_lost.get("fork", 0) + carried,
            "still_running": self.running(),
            "clock_offset_ns": clock_offset_ns(),
        }
        return totals | ({"carried": carried} if carried else {})

    def turn(self, carried: Carried, next_output: Callable[[int], TraceOutput]) -> None:
        """Close the trace at a moment (CLOCK_BOOTTIME), and go on with the one that begins there."""
        self._still_at = at_ns, still = kernel_boottime_ns(), self._probes.following()
        self._intake.drain()
        self.write()
        self._write_vanished(self._gone)
        self._gone = vanished(still, self._proc)
        self._write_empty_waits()
        self.output.close(self._totals() | self._still() | {"continues": True})
        here = set(map(identity, still)) if any(self.lost.values()) else None
        carried.drop(None if here is None else lambda who: who[1] < at_ns and who not in here)
        self.output = next_output(self.output.until_ns)
        self.output.repeat()
        self._before = Counter(self.counts), dict(self.lost), carried.processes

    def _still(self) -> dict[str, Any]:
        """Who was still there, where events were lost: of all others it is known that they are gone."""
        at_ns, still = self._still_at
        if not any(self.lost.values()) or len(still) > STILL_MOST:
            return {}
        here = [[*identity(one), int(one["exit_ns"] != 0)] for one in still]
        return {"still": {"at_ns": at_ns, "processes": here}}
