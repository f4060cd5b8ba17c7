"""The recorder's own process: probes in, trace out. `launch` tells it over a channel whom to follow, and reaps the target.

Of root's rights it keeps, once the probes are armed, only those to go on: from then on it is the user, who owns the trace and
whose files it reads. It has no terminal; what it has to say goes over the channel.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from forktrace.errors import ForktraceError
from forktrace.live.capabilities import become_recorder
from forktrace.live.channel import Channel, Message
from forktrace.live.line import Progress
from forktrace.live.ownership import Ownership
from forktrace.live.procfs import boottime_ns, read_argv, read_cgroup, read_comm
from forktrace.live.user import User, as_user
from forktrace.trace.words import count, zombie_headline

if TYPE_CHECKING:
    from forktrace.live.joining import Joining

READ_EVERY_S: Final = 0.02  # the ring holds seconds of the fastest fork storm
WRITE_EVERY_S: Final = 0.2
LAST_ZOMBIES_S: Final = 3.0  # how long a zombie whose parent is not followed is waited for at the end
DRAIN_EVERY: Final = 200  # new stacks, some 10 ms of work
CLOSING_ROUNDS: Final = 10
STILL_MOST: Final = 1000  # processes that the end of a trace names where events were lost
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
        self._told = 0  # how many files of the registry the probes know
        self._named: set[int] = set()  # the interpreters that the trace names
        self._worst: tuple[int, int, int, str] | None = None  # zombie ns, pid, reaper, call
        self._ended_at: float | None = None
        self._joining: Joining | None = None
        self._unfollowed = 0  # processes of which it could not be told whether they live

    def run(self) -> None:
        """Arm, follow, record, close."""
        self._channel.say("live", text="compiling probes")
        from forktrace.live import records, sources  # noqa: F401 - now: it may be that the user cannot read these files
        from forktrace.live.bpf import Probes
        from forktrace.live.joining import Joining
        from forktrace.live.places import Places
        from forktrace.live.pythons import Registry
        from forktrace.live.stacks import Stacks
        from forktrace.trace import events, stream  # noqa: F401

        self._registry = Registry()
        self._probes = Probes(stacks=self._with_stacks, attach=self._attach, meanwhile=self._meanwhile)
        self._places = Places()
        self._stacks = Stacks(self._probes.forget_stacks, self._registry.not_python)
        self._joining = Joining(self._probes, self._registry) if self._attach else None
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
            self._writer = stream.Writer(sink, order["header"])
            self._begin(order)
            self._channel.say("ready")
            self._follow()
            self._close()
        self._say_closing()
        self._channel.say("done")

    def _meanwhile(self) -> None:
        become_recorder(self._who)
        self._registry.expect_on(self._search)

    def _prepare(self, order: Message) -> None:
        """Learn what is known of the target before it starts."""
        from forktrace.live.sources import Sources

        if order["program"]:
            self._registry.expect(os.path.join(order["header"]["cwd"], order["program"]), order["search"])
        self._tell()
        self._sources = Sources(partial(as_user, self._who), order["header"]["cwd"]) if order["source"] else None
        self._poll = select.epoll()
        self._poll.register(self._channel, select.EPOLLIN)
        self._poll.register(self._probes.wake_up(), select.EPOLLIN)

    def _begin(self, order: Message) -> None:
        if not self._attach:
            self._aim(order["pid"])
            return
        asked = order["attach"]
        for remark in asked["remarks"]:
            self._say(remark)
        assert self._joining
        pids = self._ownership.allowed(asked["pids"])
        if not asked["cgroup"]:
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
                next_write = now + WRITE_EVERY_S
                self._write()
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
        for file, fields in list(self._registry.known.items())[self._told :]:
            self._probes.describe(file, fields)
        self._told = len(self._registry.known)

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
        from forktrace.live.records import columns_of, split
        from forktrace.trace.stream import batch

        if self._chunks:
            chunk = b"".join(self._chunks)
            self._chunks.clear()
            records, sent = split(chunk)
            for number, (add, record) in enumerate(self._additions(sent)):
                add(record)
                if number % DRAIN_EVERY == 0:
                    self._drain()
            self._write_findings()
            self._drain()
            if "exec" in records:
                self._registry.look_at(os.fsdecode(name.partition(b"\0")[0]) for name in set(records["exec"]["file"].tolist()))
                self._tell()
            if self._joining and "exit" in records:
                self._joining.estimate(records["exit"])
            columns, rows = columns_of(records, self._cgroup, read_argv, self._pid_ns, self._stacks)
            if rows:
                self._writer.write(batch(columns, rows))
            self._counts.update({kind: len(part) for kind, part in records.items()})
            if "reap" in records:
                self._note_worst(records["reap"])
        self._write_losses()
        self._write_waits()
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
        if chunk := self._probes.read():
            self._chunks.append(chunk)

    def _write_findings(self) -> None:
        """Write which interpreters were met, and the text of the lines that new stacks stand on."""
        from forktrace.trace import events
        from forktrace.trace.stream import batch_of

        now = boottime_ns()
        met = [self._registry.found[file] for file in sorted(self._stacks.interpreters - self._named)]
        self._named |= self._stacks.interpreters
        rows = [events.runtime(now, one.file, one.version, one.libraries) for one in met]
        if self._sources:
            libraries = [folder for file in self._named for folder in self._registry.found[file].libraries]
            texts = self._sources.texts(self._stacks.new_frames, libraries)
            rows += [events.source(now, *each) for each in texts]
        self._stacks.new_frames.clear()
        if rows:
            self._writer.write(batch_of(rows))

    def _note_worst(self, reaps: Any) -> None:
        from forktrace.trace.events import CALLS

        seen = reaps[reaps["zombie_ns"] != 0]
        if not len(seen):
            return
        self._know_better(seen["head"]["process"], seen["zombie_ns"])
        lasted = seen["head"]["time_ns"] - seen["zombie_ns"]
        index = int(lasted.argmax())
        one = seen[index]
        if self._worst is None or int(lasted[index]) > self._worst[0]:
            by = int(one["head"]["by"]["pid"])
            self._worst = (int(lasted[index]), int(one["head"]["process"]["pid"]), by, CALLS[one["call"]])

    def _know_better(self, who: Any, zombie_ns: Any) -> None:
        """Set since when those were zombies that were so before they were followed."""
        if self._joining and self._joining.ended_ns:
            for index, (start_ns, pid) in enumerate(zip(who["start_ns"].tolist(), who["pid"].tolist(), strict=True)):
                zombie_ns[index] = self._joining.ended_ns.get((pid, start_ns), zombie_ns[index])

    def _write_losses(self) -> None:
        from forktrace.trace import events
        from forktrace.trace.stream import batch_of

        now = self._probes.losses()
        now["process not followed"] += self._unfollowed
        new = {what: count - self._lost.get(what, 0) for what, count in now.items()}
        if any(new.values()):
            self._writer.write(batch_of(events.lost(boottime_ns(), count, what) for what, count in new.items() if count))
        self._lost = now

    def _write_waits(self, *, last: bool = False) -> None:
        """Write the totals that changed, and forget the places of processes that are gone."""
        from forktrace.trace.stream import batch_of

        places, counts = self._probes.wait_totals()
        if rows := self._places.changed(boottime_ns(), places, counts, self._stacks, last=last):
            self._writer.write(batch_of(rows))
        if len(places) > MANY_PLACES:
            here = {(int(one["pid"]), int(one["start_ns"])) for one in self._probes.following()}
            gone = [place for place in places if (int(place["pid"]), int(place["start_ns"])) not in here]
            for place in gone:
                self._probes.forget(place)
            self._places.forget({(int(place["pid"]), int(place["start_ns"])) for place in gone})

    def _cgroup(self, identity: int, pid: int) -> str | None:
        """Return the path of a control group (v2), learnt from the first process seen in it; None when that is gone."""
        if self._cgroups.get(identity) is None:
            self._cgroups[identity] = read_cgroup(pid)
        return self._cgroups[identity]

    def _close(self) -> None:
        """Write the rest and the end."""
        from forktrace.trace import events
        from forktrace.trace.stream import batch_of

        before_ns = boottime_ns()
        still = self._probes.following()  # whoever began before and is not there has ended, and the ring says so if it can
        self._drain()
        for _ in range(CLOSING_ROUNDS):  # more may come in while this is written
            self._write()
            if not self._chunks:
                break
        self._write_waits(last=True)
        now = boottime_ns()
        polled = [
            events.waits(now, int(one["empty_waits"]), pid=int(one["pid"]), start_ns=int(one["start_ns"]))
            for one in still[still["empty_waits"] > 0]
        ]
        self._know_better(still, still["zombie_ns"])
        for one in still[still["zombie_ns"] > 0]:
            age_ns = now - int(one["zombie_ns"])
            if self._worst is None or age_ns > self._worst[0]:
                self._worst = (age_ns, int(one["pid"]), 0, "")
        totals = {
            "events": dict(self._counts),
            "lost": {what: count for what, count in self._lost.items() if count},
            "processes": self._counts["fork"] + self._lost.get("fork", 0),
            "still_running": int((still["exit_ns"] == 0).sum()),
        }
        if any(self._lost.values()) and len(still) <= STILL_MOST:
            here = [[int(one["pid"]), int(one["start_ns"]), int(one["exit_ns"] != 0)] for one in still]
            totals["still"] = {"at_ns": before_ns, "processes": here}
        self._writer.write(batch_of([*polled, events.end(now, json.dumps(totals))]))
        self._writer.close()
        self._probes.close()

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
            names = ", ".join(f"{pid} {read_comm(pid)}" for pid in running[:5])
            more = f" and {len(running) - 5} more" if len(running) > 5 else ""
            self._say(f"ended; still following {count(len(running), 'process')}: {names}{more} (Ctrl-C stops)")

    def _say_closing(self) -> None:
        if not self._counts:  # the command could not be started, which is said elsewhere
            return
        if self._worst:
            lasted, pid, by, call = self._worst
            self._say(f"{zombie_headline(str(pid), lasted / 1e6)}, {ending_of_zombie(by, call)}")
        events = sum(self._counts.values())
        lost = sum(self._lost.values())
        self._say(f"{events:,} events of {count(self._counts['fork'], 'process')}, {lost:,} lost: {self._path}")
        if lost:
            kinds = ", ".join(f"{number:,} {what}" for what, number in self._lost.items() if number)
            self._say(f"events were lost: {kinds}; the report marks what they may have touched")
        if self._is_file:
            self._say(f"next: forktrace {'why' if self._worst else 'report'} {shlex.quote(self._path)}")


def ending_of_zombie(by: int, call: str) -> str:
    """Return in words how a zombie was released by the call (`reap_call`) of the process `by`; no call: it was not."""
    if not call:
        return "and still is: nobody reaped it"
    if call == "kernel":
        return "until the kernel released it: its PID namespace died"
    how = "; that was not seen and may have been earlier" if call == "unseen" else f" with {call}"
    return f"until {by or 'another process'} reaped it{how}"
