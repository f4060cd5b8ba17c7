"""The recorder's own process: probes in, trace out. `launch` starts it, tells it whom to follow, and reaps the target.

The two talk over a socket in single messages: the recorder says `armed`, is sent `follow` with the target's number and the
open trace, answers `ready`; is told `ended` when the target was reaped and `stop` when the user has had enough; and says `done`
at the end, or `error` with a message when it cannot go on.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import select
import shlex
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from forktrace.errors import ForktraceError, MachineLacks
from forktrace.live.line import LiveLine
from forktrace.live.procfs import boottime_ns
from forktrace.trace.words import count, zombie_headline

READ_EVERY_S: Final = 0.02  # the ring holds seconds of the fastest fork storm
WRITE_EVERY_S: Final = 0.2
LAST_ZOMBIES_S: Final = 3.0  # how long a zombie whose parent is not followed is waited for at the end
DRAIN_EVERY: Final = 200  # new stacks, some 10 ms of work
CLOSING_ROUNDS: Final = 10
STILL_MOST: Final = 1000  # processes that the end of a trace names where events were lost
MANY_PLACES: Final = 1000  # that wait in vain: from here on those of processes that are gone are forgotten
TRACEFS: Final = "/sys/kernel/tracing"

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000


def serve(channel: socket.socket, *, quiet: bool, stacks: bool, path: str) -> None:
    """Record as told over `channel`, until the last followed process is gone or `stop` comes. The process ends with this."""
    os.setpgid(0, 0)  # Ctrl-C and Ctrl-Z are the target's
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        Recorder(channel, quiet=quiet, stacks=stacks).run(path)
    except ForktraceError as error:
        message = {"say": "error", "message": str(error), "hint": error.hint, "status": error.exit_status}
        with contextlib.suppress(OSError):
            channel.send(json.dumps(message).encode())


def mount_tracefs() -> None:
    """Make tracefs visible to this process alone, where it is not mounted; the mount is gone with the process.

    Raises:
        MachineLacks: it cannot be mounted.
    """
    if os.path.isdir(f"{TRACEFS}/events"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        libc.unshare(_CLONE_NEWNS)
        or libc.mount(b"none", b"/sys", None, _MS_REC | _MS_PRIVATE, None)  # not "/": in a chroot that is no mount
        or libc.mount(b"tracefs", TRACEFS.encode(), b"tracefs", 0, None)
    ):
        reason = os.strerror(ctypes.get_errno())
        raise MachineLacks(f"tracefs cannot be mounted: {reason}", f"sudo mount -t tracefs tracefs {TRACEFS}")


class Recorder:
    """One recording."""

    def __init__(self, channel: socket.socket, *, quiet: bool, stacks: bool) -> None:
        self._with_stacks = stacks
        self._channel = channel
        self._live = LiveLine(silent=quiet or not os.isatty(2))
        self._shares_terminal = os.isatty(1)  # with the target: a line of ours would erase its prompts
        self._quiet = quiet
        self._pid_ns = os.stat("/proc/self/ns/pid").st_ino
        self._cgroups: dict[int, str | None] = {}
        self._counts: Counter[str] = Counter()
        self._lost: dict[str, int] = {}
        self._chunks: list[bytes] = []
        self._told = 0  # how many files of the registry the probes know
        self._named: set[int] = set()  # the interpreters that the trace names
        self._worst: tuple[int, int, int, str] | None = None  # zombie ns, pid, reaper, call
        self._ended_at: float | None = None

    def run(self, path: str) -> None:
        """Arm, follow, record, close; `path` is the PATH of the target."""
        self._live.show("compiling probes")
        mount_tracefs()
        from forktrace.live.bpf import Probes
        from forktrace.live.places import Places
        from forktrace.live.pythons import Registry
        from forktrace.live.stacks import Stacks
        from forktrace.trace.stream import Writer

        self._registry = Registry()
        self._probes = Probes(stacks=self._with_stacks, meanwhile=lambda: self._registry.expect_on(path))
        self._places = Places()
        self._stacks = Stacks(self._probes.forget_stacks, self._registry.not_python)
        self._live.clear()
        self._channel.send(b'{"say": "armed"}')
        message, descriptors, _, _ = socket.recv_fds(self._channel, 64, 2)
        if not message:
            return
        with open(descriptors[1], encoding="utf-8") as file:
            file.seek(0)
            order = json.load(file)
        self._prepare(order)
        if order["truncate"]:
            os.ftruncate(descriptors[0], 0)
        self._path = "standard output" if order["path"] == "-" else order["path"]
        self._is_file = order["is_file"]
        with open(descriptors[0], "wb", buffering=0) as sink:
            self._writer = Writer(sink, order["header"])
            self._probes.follow(order["pid"], self._pid_ns)
            self._channel.send(b'{"say": "ready"}')
            self._follow()
            self._close()
        self._live.clear()
        self._say_closing()
        with contextlib.suppress(OSError):  # nobody waits for it
            self._channel.send(b'{"say": "done"}')

    def _prepare(self, order: dict[str, Any]) -> None:
        """Learn what is known of the target before it starts."""
        from forktrace.live.sources import Sources
        from forktrace.live.user import User, as_user

        if order["program"]:
            self._registry.expect(os.path.join(order["header"]["cwd"], order["program"]), order["search"])
        self._tell()
        uid, gid, groups = order["user"]
        who = User(order["header"]["user"], uid, gid, tuple(groups), {})
        self._sources = Sources(partial(as_user, who), order["header"]["cwd"]) if order["source"] else None
        self._poll = select.epoll()
        self._poll.register(self._channel, select.EPOLLIN)
        self._poll.register(self._probes.wake_up(), select.EPOLLIN)

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
            now = time.monotonic()
            if now >= next_write:
                next_write = now + WRITE_EVERY_S
                self._write()
                if not self._shares_terminal:
                    self._live.update(self._counts, sum(self._lost.values()), self._running(), self._zombies())
            if self._ended_at is None:
                continue
            if self._chunks:
                self._write()
            if self._running() > 0:
                alone_since = None
                continue
            alone_since = alone_since or now
            if self._zombies() <= 0 or now - alone_since > LAST_ZOMBIES_S:
                return

    def _order(self) -> str | None:
        """Wait a moment for an order; a channel that was closed means that nobody is there to give one: stop."""
        ready = [descriptor for descriptor, _ in self._poll.poll(READ_EVERY_S)]
        if self._channel.fileno() not in ready:
            return None
        message = self._channel.recv(4096)
        return str(json.loads(message)["say"]) if message else "stop"

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
            columns, rows = columns_of(records, self._cgroup, self._pid_ns, self._stacks)
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
        lasted = seen["head"]["time_ns"] - seen["zombie_ns"]
        index = int(lasted.argmax())
        one = seen[index]
        if self._worst is None or int(lasted[index]) > self._worst[0]:
            by = int(one["head"]["by"]["pid"])
            self._worst = (int(lasted[index]), int(one["head"]["process"]["pid"]), by, CALLS[one["call"]])

    def _write_losses(self) -> None:
        from forktrace.trace import events
        from forktrace.trace.stream import batch_of

        now = self._probes.losses()
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
        if not self._quiet:
            self._live.clear()
            print(f"forktrace: {text}", file=sys.stderr, flush=True)

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


def working_directory() -> str:
    """Return the working directory, which may be gone: then what the kernel says of it, `/path (deleted)`."""
    return os.readlink("/proc/self/cwd")


def read_comm(pid: int) -> str:
    """Return the name of a process, `?` when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="backslashreplace").rstrip("\n")
    except OSError:
        return "?"


def read_cgroup(pid: int) -> str | None:
    """Return the path of a process in the cgroup v2 hierarchy (cgroups(7)), None when it is gone or there is none."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="backslashreplace").splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)


def header(command: list[str], target_pid: int, user: str) -> dict[str, Any]:
    """Return what is known of a recording at its start (docs/trace-format.md)."""
    from forktrace import __version__

    start_ns = boottime_ns()
    return {
        "forktrace": __version__,
        "command": command,
        "cwd": working_directory(),
        "target_pid": target_pid,
        "target_start_ns": None,
        "user": user,
        "host": platform.node(),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "kernel": platform.release(),
        "start_ns": start_ns,
        "clock_offset_ns": time.time_ns() - start_ns,
        "recorder_pid": os.getpid(),
        "pid_ns": os.stat("/proc/self/ns/pid").st_ino,
    }
