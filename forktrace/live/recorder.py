"""The recorder's own process: probes in, trace out. `launch` tells it over a channel whom to follow, and reaps the target.

Of root's rights it keeps, once the probes are armed, only those to go on: from then on it is the user, who owns the trace and
whose files it reads. It has no terminal; what it has to say goes over the channel.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from forktrace.errors import ForktraceError, UsageError
from forktrace.live.capabilities import become_recorder
from forktrace.live.channel import Channel, Message
from forktrace.live.closing import Closing, identity, unseen_reap, vanished
from forktrace.live.header import clock_offset_ns
from forktrace.live.line import Progress
from forktrace.live.ownership import Ownership
from forktrace.live.procfs import Proc, kernel_boottime_ns, read_argv, read_cgroup, read_comm
from forktrace.live.user import User, as_user
from forktrace.trace import events
from forktrace.trace.words import count, printable, size

if TYPE_CHECKING:
    from forktrace.live.joining import Joining
    from forktrace.live.maps import Records

READ_EVERY_S: Final = 0.02  # the ring holds seconds of the fastest fork storm
WRITE_EVERY_S: Final = 0.2
LAST_ZOMBIES_S: Final = 3.0  # how long a zombie whose parent is not followed is waited for at the end
DRAIN_EVERY: Final = 200  # new stacks, some 10 ms of work
CLOSING_ROUNDS: Final = 10
STILL_MOST: Final = 150  # processes that the end of a trace names where events were lost; they fit into stream.END_BYTES
SOURCES_S: Final = 15.0  # how long the text of source lines is waited for at the end, if it does not come
WAITING_MOST: Final = 32 << 20  # bytes read from the ring and not yet written; then it may fill up, and loses what does not fit
MANY_PLACES: Final = 1000  # that wait in vain: from here on those of processes that are gone are forgotten
# Of the terminal, where sudo passes on what it gets there; and a session's end, which the target may survive.
NOT_FOR_US: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM)


def serve(channel: Channel, who: User, only_of: int | None = None) -> None:
    """Record as told over `channel`, until the last followed process is gone or `stop` comes. The process ends with this.

    `who` owns the trace, and files are read with that user's rights. `only_of`: whose processes alone may be recorded.
    """
    for number in NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):  # sudo has seen to it already
        os.setsid()
    try:
        if order := channel.hear():
            Recorder(channel, who, only_of, order).run()
    except ForktraceError as error:
        channel.say("error", message=str(error), hint=error.hint, status=error.exit_status)


class Recorder:
    """One recording."""

    def __init__(self, channel: Channel, who: User, only_of: int | None, asked: Message) -> None:
        self._channel = channel
        self._who = who
        self._ownership = Ownership(only_of)
        self._with_stacks: bool = asked["stacks"]
        self._attach: bool = asked["attach"]
        self._search: str = asked["path"]
        self._words: bool = asked["words"]
        self._progress = Progress() if asked["live"] else None
        self._target = -1
        self._pid_ns = os.stat("/proc/self/ns/pid").st_ino
        self._cgroups: dict[int, str | None] = {}
        self._counts: Counter[str] = Counter()
        self._lost: dict[str, int] = {}
        self._chunks: list[bytes] = []
        self._waiting_bytes = 0  # in them
        self._named: set[int] = set()  # the interpreters that the trace names
        self._closing = Closing()
        self._ended_at: float | None = None
        self._read_until_ns = 0  # all that was before is read (CLOCK_BOOTTIME)
        self._full: int | None = None  # the size that was reached
        self._joining: Joining | None = None
        self._unfollowed = 0  # processes of which it could not be told whether they live

    def run(self) -> None:
        """Arm, follow, record, close."""
        self._channel.say("live", text="compiling probes")
        from forktrace.live import records, sources  # noqa: F401 - now: it may be that the user cannot read these files
        from forktrace.live.bpf import Probes
        from forktrace.live.joining import Joining
        from forktrace.live.output import Output
        from forktrace.live.places import Places
        from forktrace.live.registry import Registry
        from forktrace.live.stacks import Stacks
        from forktrace.trace import stream

        self._registry = Registry()
        self._probes = Probes(stacks=self._with_stacks, attach=self._attach, meanwhile=self._meanwhile)
        self._places = Places()
        self._stacks = Stacks(self._probes.forget_stacks, self._registry.not_python)
        if self._attach:
            self._joining = Joining(self._probes, self._registry)
            self._closing = Closing(self._joining.ended_ns)
        self._channel.say("armed")
        order, descriptors = self._channel.take(1)
        if not order:
            return
        self._prepare(order)
        if order["truncate"]:
            os.ftruncate(descriptors[0], 0)
        self._path = "standard output" if order["path"] == "-" else order["path"]
        self._is_file = order["is_file"]
        with open(descriptors[0], "wb", buffering=0) as sink:
            try:
                self._output = Output(sink, order, self._counts)
                self._begin(order)
            except stream.Full:
                raise UsageError(f"--max-size: {order['max_size']:,} bytes do not hold the beginning of this trace") from None
            self._channel.say("ready")
            try:
                self._follow()
                self._write_rest()
            except stream.Full:
                self._full = order["max_size"]
            self._write_end()
        self._say_closing()
        self._channel.say("done")

    def _meanwhile(self) -> None:
        become_recorder(self._who)
        self._registry.expect_on(self._search)

    def _prepare(self, order: Message) -> None:
        """Learn what is known of the target before it starts."""
        from forktrace.live.sources import Elsewhere, Sources

        if order["program"]:
            self._registry.expect(os.path.join(order["header"]["cwd"], order["program"]), order["search"])
        self._tell()
        files = Elsewhere(*order["files"]) if order.get("files") else None
        self._sources = Sources(partial(as_user, self._who), order["header"]["cwd"], files) if order["source"] else None
        self._poll = select.epoll()
        self._poll.register(self._channel, select.EPOLLIN)
        self._poll.register(self._probes.wake_up(), select.EPOLLIN)
        self._poll.register(self._registry.helper, select.EPOLLIN)
        if self._sources:
            self._poll.register(self._sources.helper, select.EPOLLIN)

    def _begin(self, order: Message) -> None:
        if not self._attach:
            self._aim(order["pid"])
            return
        asked = order["attach"]
        for remark in asked["remarks"]:
            self._say(remark)
        assert self._joining
        pids = self._ownership.allowed(asked["pids"])
        if not asked["cgroup"] or not pids:
            self._ownership.require(asked["pids"])
        self._join(self._joining.join(pids, asked["never"], asked["cgroup"]))
        if not self._counts:
            raise ForktraceError("what was to be attached to has ended meanwhile", "forktrace ps shows who has zombies now")
        zombies = f", {count(self._zombies(), 'zombie')} among them" if self._zombies() else ""
        self._say(f"attached to {count(self._counts['fork'], 'process')}{zombies} (Ctrl-C detaches)")

    def _aim(self, pid: int) -> None:
        """Follow the process from its next exec on."""
        self._target = os.pidfd_open(pid)
        self._ownership.require([pid])
        self._probes.follow(pid, self._pid_ns)
        self._poll.register(self._target, select.EPOLLIN)

    def _take_aim_back(self) -> None:
        """The target is gone; if it never came to its exec, the next process with its number is not to be followed."""
        self._poll.unregister(self._target)
        self._drain()
        self._write()
        if not self._counts["fork"]:
            self._probes.follow(0, self._pid_ns)

    def _join(self, pending: int) -> None:
        """Write who is followed since, with their stacks known from now on."""
        self._ownership.check(self._probes.following())
        self._registry.settle()
        self._drain()
        self._write()
        if pending:
            self._unfollowed += pending
            self._write_losses()

    def _follow(self) -> None:
        next_write = time.monotonic() + WRITE_EVERY_S
        alone_since: float | None = None
        while True:
            order = self._order()
            if order == "stop":
                return
            if order == "ended":
                self._ended_at = time.monotonic()
                self._say_survivors()
            self._drain()
            if self._joining and (new := self._joining.newcomers()):
                self._join(self._joining.more(self._ownership.allowed(new)))
            now = time.monotonic()
            if now >= next_write:
                self._output.check()
                self._write()
                next_write = now + WRITE_EVERY_S - (time.monotonic() - now)  # what comes while it writes waits no longer
                self._show_progress()
            if self._ended_at is not None and self._chunks:
                self._write()
            if not self._may_end():
                alone_since = None
                continue
            alone_since = alone_since or now
            if self._zombies() <= 0 or now - alone_since > LAST_ZOMBIES_S:
                return

    def _may_end(self) -> bool:
        """Whether nobody runs who is followed, and nobody will."""
        over = not self._joining.goes_on() if self._joining else self._ended_at is not None
        return over and self._running() <= 0

    def _order(self) -> str | None:
        """Wait a moment for an order; a channel that was closed means that nobody is there to give one: stop."""
        ready = [descriptor for descriptor, _ in self._poll.poll(READ_EVERY_S)]
        if self._target in ready:
            self._take_aim_back()
        if self._channel.fileno() not in ready:
            return None
        return str(self._channel.hear().get("say", "stop"))

    def _tell(self) -> None:
        """Tell the probes about the files that were examined since the last time."""
        news, forgotten = self._registry.take()
        for file, fields in news.items():
            self._probes.describe(file, fields)
        self._probes.forget_files(forgotten)

    def _running(self) -> int:
        if any(self._lost.values()):
            return int((self._probes.following()["exit_ns"] == 0).sum())
        return self._counts["fork"] - self._counts["exit"]

    def _zombies(self) -> int:
        if any(self._lost.values()):
            return int((self._probes.following()["exit_ns"] != 0).sum())
        return self._counts["exit"] - self._counts["reap"] - self._counts["autoreap"]

    def _write(self) -> None:
        """Write what has come since the last time, if anything has."""
        from forktrace.live.records import pieces

        until_ns = self._read_until_ns
        chunk = b"".join(self._chunks)
        self._chunks.clear()
        self._waiting_bytes = 0
        for piece in pieces(chunk):
            self._write_piece(piece, until_ns)
        self._output.until_ns = max(until_ns, self._output.until_ns)
        self._write_sources()
        self._write_losses()
        self._write_waits()

    def _write_piece(self, piece: bytes, until_ns: int) -> None:
        from forktrace.live.records import columns_of, in_parts, split

        records, sent = split(piece)
        for number, (add, record) in enumerate(self._additions(sent)):
            add(record)
            if number % DRAIN_EVERY == 0:
                self._drain()
        findings = self._findings(until_ns)
        self._drain()
        if "exec" in records:
            names = {os.fsdecode(name.partition(b"\0")[0]) for name in records["exec"]["file"].tolist()}
            self._registry.look_at(names, self._drain)
            self._tell()
        if self._joining and "exit" in records:
            self._joining.estimate(records["exit"])
        columns, rows = columns_of(records, self._cgroup, read_argv, self._pid_ns, self._stacks)
        self._output.write(findings)
        for part in in_parts(columns, rows):
            self._output.write_events(*part)
        if "reap" in records:
            reaps = records["reap"]
            self._know_better(reaps["head"]["process"], reaps["zombie_ns"])
            self._closing.note(reaps)
        self._stacks.make_room()

    def _additions(self, sent: Mapping[str, list[bytes]]) -> Iterator[tuple[Callable[[bytes], None], bytes]]:
        """Yield code objects and stacks, each with what takes it in."""
        yield from ((self._stacks.add_code, record) for record in sent["code"])
        yield from ((self._stacks.add_stack, record) for record in sent["stack"])

    def _drain(self) -> None:
        """Take what the rings hold: they must not fill up while new stacks are worked on, nor a question wait."""
        for question in self._probes.questions():  # answered before the process that made them ask gets far
            self._registry.answer(question)
        self._tell()
        now = kernel_boottime_ns()
        if self._waiting_bytes < WAITING_MOST:
            chunk = self._probes.read()
            self._chunks += [chunk] if chunk else []
            self._waiting_bytes += len(chunk)
            self._read_until_ns = now

    def _findings(self, until_ns: int) -> list[events.Row]:
        """Return which interpreters were met, and have the lines read that new stacks stand on."""
        met = [self._registry.found[file] for file in sorted(self._stacks.interpreters - self._named)]
        self._named |= self._stacks.interpreters
        rows = [events.runtime(until_ns, one.file, one.version, one.libraries) for one in met]
        if self._sources:
            libraries = [folder for file in self._named for folder in self._registry.found[file].libraries]
            self._sources.ask(self._stacks.new_frames, libraries)
        self._stacks.new_frames.clear()
        return rows

    def _write_sources(self, patience_s: float = 0.0) -> None:
        """Write the text of lines that has been read; with some patience, of all."""
        if self._sources:
            self._output.write(events.source(self._output.until_ns, *each) for each in self._sources.take(patience_s))

    def _know_better(self, who: Any, zombie_ns: Any) -> None:
        """Set since when those were zombies that were so before they were followed."""
        if self._joining and self._joining.ended_ns:
            for index, (start_ns, pid) in enumerate(zip(who["start_ns"].tolist(), who["pid"].tolist(), strict=True)):
                zombie_ns[index] = self._joining.ended_ns.get((pid, start_ns), zombie_ns[index])

    def _write_losses(self) -> None:
        lost, now = self._probes.losses(), kernel_boottime_ns()
        lost["process not followed"] += self._unfollowed
        new = {what: count - self._lost.get(what, 0) for what, count in lost.items()}
        if any(new.values()):
            self._output.write(events.lost(now, count, what) for what, count in new.items() if count)
            self._output.until_ns = now
        self._lost = lost

    def _write_waits(self, *, last: bool = False) -> None:
        """Write the totals that changed, and forget the places of processes that are gone."""

        places, counts = self._probes.wait_totals()
        self._output.write(self._places.changed(self._output.until_ns, places, counts, self._stacks, last=last))
        if len(places) > MANY_PLACES:
            here = {(int(one["pid"]), int(one["start_ns"])) for one in self._probes.following()}
            gone = [place for place in places if (int(place["pid"]), int(place["start_ns"])) not in here]
            for place in gone:
                self._probes.forget(place)
            self._places.forget({(int(place["pid"]), int(place["start_ns"])) for place in gone})

    def _cgroup(self, identity: int, pid: int) -> str | None:
        """Return the path of a control group (v2), learnt from the first process seen in it; None when that is gone."""
        if self._cgroups.get(identity) is None:
            self._cgroups[identity] = read_cgroup(pid, identity)
        return self._cgroups[identity]

    def _write_rest(self) -> None:
        """Write what is still to come, and the totals of waits that are counted as long as a process lives."""
        # Whoever began before and is not there any more has ended, and the ring says so, or it is lost.
        self._still_at = kernel_boottime_ns(), self._probes.following()
        gone = vanished(self._still_at[1], Proc())
        self._drain()
        for _ in range(CLOSING_ROUNDS):  # more may come in while this is written
            self._write()
            if not self._chunks:
                break
        self._write_sources(SOURCES_S)
        self._write_waits(last=True)
        self._write_vanished(gone)
        still = self._probes.following()
        self._output.write(
            events.waits(self._output.until_ns, int(one["empty_waits"]), pid=int(one["pid"]), start_ns=int(one["start_ns"]))
            for one in still[still["empty_waits"] > 0]
        )

    def _write_vanished(self, gone: list[Records]) -> None:
        """Write that these are gone, if their release has not come through the ring since; the time is an upper bound."""
        here = {identity(one) for one in self._probes.following()}
        unseen = [one for one in gone if identity(one) in here]
        self._closing.forget(map(identity, unseen))
        self._counts["reap"] += len(unseen)
        self._output.write(unseen_reap(one, self._output.until_ns) for one in unseen)

    def _write_end(self) -> None:
        """Close the trace at the moment up to which it is whole."""
        still = self._probes.following()
        self._know_better(still, still["zombie_ns"])
        self._closing.note_open(still, self._output.until_ns)
        totals = {
            "events": dict(self._counts),
            "lost": {what: count for what, count in self._lost.items() if count},
            "processes": self._counts["fork"] + self._lost.get("fork", 0),
            "still_running": self._running(),
            "clock_offset_ns": clock_offset_ns(),
            **({"full": self._full} if self._full else self._still()),
        }
        self._output.close(totals)
        self._probes.close()
        self._registry.helper.close()
        if self._sources:
            self._sources.helper.close()

    def _still(self) -> dict[str, Any]:
        """Who was still there, where events were lost: of all others it is known that they are gone."""
        at_ns, still = self._still_at
        if not any(self._lost.values()) or len(still) > STILL_MOST:
            return {}
        here = [[int(one["pid"]), int(one["start_ns"]), int(one["exit_ns"] != 0)] for one in still]
        return {"still": {"at_ns": at_ns, "processes": here}}

    def _say(self, text: str) -> None:
        if self._words:
            self._channel.say("words", text=text)

    def _show_progress(self) -> None:
        if self._progress and self._channel.is_read():
            lost = sum(self._lost.values())
            self._channel.say("live", text=self._progress.text(self._counts, lost, self._running(), self._zombies()))

    def _say_survivors(self) -> None:
        """The command has ended: name the processes that are still followed, if any runs."""
        self._drain()
        self._write()
        following = self._probes.following()
        running = following[following["exit_ns"] == 0]["pid"].tolist()
        if running:
            names = ", ".join(f"{pid} {printable(read_comm(pid))}" for pid in running[:5])
            more = f" and {len(running) - 5} more" if len(running) > 5 else ""
            self._say(f"ended; still following {count(len(running), 'process')}: {names}{more} (Ctrl-C stops)")

    def _say_closing(self) -> None:
        if not self._counts:  # the command could not be started, which is said elsewhere
            return
        if worst := self._closing.worst():
            self._say(worst)
        if self._full:
            runs_on = "; what was recorded runs on" if self._attach else "" if self._ended_at else "; the command runs on"
            self._say(f"the trace is full (--max-size {size(self._full)}), the recording ended{runs_on}")
        events = sum(self._counts.values())
        lost = sum(self._lost.values())
        self._say(f"{events:,} events of {count(self._counts['fork'], 'process')}, {lost:,} lost: {self._path}")
        if lost:
            kinds = ", ".join(f"{number:,} {what}" for what, number in self._lost.items() if number)
            self._say(f"events were lost: {kinds}; the report marks what they may have touched")
        if self._is_file:
            self._say(f"next: forktrace {'why' if worst else 'report'} {shlex.quote(self._path)}")
