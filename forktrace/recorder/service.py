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
import socket
import stat
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from functools import partial
from io import RawIOBase
from typing import TYPE_CHECKING, Final

from forktrace.errors import ForktraceError, MachineLacks, PermissionMissing, UsageError, in_words
from forktrace.recorder.channel import Channel, close_all
from forktrace.recorder.orders import Arming, Order, decoded
from forktrace.recorder.ownership import Ownership
from forktrace.system import resource_limits
from forktrace.system.capabilities import become_recorder, in_effect, missing, remedy
from forktrace.system.procfs import Proc, is_control_group
from forktrace.system.users import User, as_user
from forktrace.trace.words import NO_PROCESS, count, printable, size

if TYPE_CHECKING:
    from forktrace.recorder.sources import Sources
    from forktrace.recorder.task_passes import TaskPasses
    from forktrace.recorder.trace_output import Turns
    from forktrace.system.worker import Worker

READ_EVERY_S: Final = 0.02  # the ring holds seconds of the fastest fork storm
IDLE_EVERY_S: Final = 0.08  # while nothing happens
WRITE_EVERY_S: Final = 0.15  # with the wait before and the time it takes, no 200 ms are lost with a recorder that is killed
TOGETHER_S: Final = 0.08  # what comes so soon after an event is written with it
ORDER_S: Final = 10.0  # how long an order is waited for: until there is one, rights are held for nothing
STALLED_S: Final = 2.0  # how long a reader of the output is waited for that reads nothing, after an order to stop
PARTING_S: Final = 5.0  # how long a launcher is waited for that does not listen, at the end
MESSAGE_MOST: Final = 200  # characters of an error that nobody expected
LAST_ZOMBIES_S: Final = 3.0  # how long a zombie whose parent is not followed is waited for at the end
# Of the terminal, where sudo passes on what it gets there; and a session's end, which the target may survive.
NOT_FOR_US: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP, signal.SIGTERM)


def serve(channel: Channel, who: User, only_of: int | None = None) -> int:
    """Record as told over `channel`, until the last followed process is gone or `stop` comes. The process ends with this.

    `who` owns the trace, and files are read with that user's rights. `only_of`: whose processes alone may be recorded.
    Returns the exit status.
    """
    for number in NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):  # sudo has seen to it already
        os.setsid()
    try:
        resource_limits.raise_all()
        os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy's, which nothing here uses: there may be no room for another
        if order := channel.hear(ORDER_S):
            Recorder(channel, who, only_of, decoded(Arming, order)).run()
        return 0
    except Exception as error:
        failed = _failure(error)
    channel.say("error", message=str(failed), hint=failed.hint, status=failed.exit_status)
    channel.flush(PARTING_S)
    return 1


def _failure(error: Exception) -> ForktraceError:
    """Return what ended the recorder as the user is to read it."""
    if isinstance(error, ForktraceError):
        return error
    if isinstance(error, OSError):
        return ForktraceError(f"the recorder cannot go on: {in_words(error)}", resource_limits.hint(error))
    if isinstance(error, MemoryError):
        return ForktraceError("the recorder has no memory to go on", resource_limits.hint(error))
    frame = traceback.extract_tb(error.__traceback__)[-1]  # a defect: where it is found, for who is to mend it
    said = " ".join(str(error).split())[:MESSAGE_MOST]  # numpy says a page when there is no memory to import it
    where = f"{type(error).__name__}: {said} ({os.path.basename(frame.filename)}:{frame.lineno})"
    # Some libraries say it otherwise that they have no memory.
    return ForktraceError(f"the recorder failed: {where}", resource_limits.hint(MemoryError()) or "please report this")


class Recorder:
    """One recording."""

    def __init__(self, channel: Channel, who: User, only_of: int | None, asked: Arming) -> None:
        self._channel = channel
        self._who = who
        self._is_trusted = only_of is None
        self._proc = Proc(rights=in_effect)
        self._ownership = Ownership(only_of)
        self._asked = asked
        self._progress = _Progress() if asked.live else None
        self._target = -1
        self._ended_at: float | None = None
        self._stopped_at: float | None = None  # when there was an order to stop
        self._helpers: list[Worker] = []
        self._full: int | None = None  # the size that was reached
        self._is_file = False  # the trace is one, which can be read afterwards
        self._turns: Turns | None = None
        self._passes: TaskPasses | None = None

    def run(self) -> None:
        """Arm, follow, record, close."""
        self._arm()
        message, descriptors = self._channel.take(1, ORDER_S)
        if not message:
            return
        order = decoded(Order, message)
        reader = self._prepare(order)
        order.header["lacks"] = [*self._probes.lacks, *self._refused()]
        self._record(order, descriptors[0], reader)
        self._say_closing(order)
        self._channel.say("done")
        self._channel.flush(PARTING_S)

    def _arm(self) -> None:
        """Load the probes, and import all that recording needs beside it: later they may not be readable."""
        self._channel.say("live", text="loading probes")
        from forktrace.kernel.file_keys import new_secret
        from forktrace.kernel.loading import Loading

        asked, secret = self._asked, new_secret()
        loading = Loading(stacks=asked.stacks, attach=asked.attach, secret=secret)
        from forktrace.kernel.probes import Probes
        from forktrace.recorder import trace_output  # noqa: F401
        from forktrace.recorder.drain import Drain
        from forktrace.recorder.interpreters import Interpreters
        from forktrace.recorder.task_passes import TaskPasses
        from forktrace.trace import stream  # noqa: F401

        self._interpreters = Interpreters(secret)
        lacking = missing()
        try:
            self._probes = Probes(loading, self._meanwhile)
        except MachineLacks as error:
            if lacking:
                raise MachineLacks(f"{error}; {', '.join(lacking)} missing here", remedy(lacking)) from error
            raise
        if asked.attach:
            self._passes = TaskPasses(self._probes, self._interpreters)
        self._drain = Drain(self._probes, self._interpreters, self._passes, stacks=asked.stacks)
        self._channel.say("armed")

    def _record(self, order: Order, trace: int, reader: Sources | None) -> None:
        """Write the trace, a descriptor, from its header to its end."""
        from forktrace.recorder.trace_output import PatientSink, TraceOutput, Turns
        from forktrace.trace import stream

        is_regular = self._is_regular(trace)
        self._is_file = is_regular and order.path != "-"
        if self._is_file and os.fstat(trace).st_size:
            os.ftruncate(trace, 0)
        with contextlib.ExitStack() as files:
            try:
                if order.file is None:
                    file = files.enter_context(open(trace, "wb", buffering=0))
                    sink: RawIOBase = file if is_regular else PatientSink(trace, self._is_waited_for)
                    self._output = TraceOutput(sink, order, self._drain.counts, is_file=self._is_file)
                else:
                    self._turns = Turns(order, self._drain.counts)
                    self._output = self._turns.begin(trace)
                    files.callback(self._turns.close)
                self._drain.begin(self._output, reader, order.header["recorder_pid"], _init(order))
                self._begin(order)
            except stream.Full:
                raise UsageError(f"--max-size: {order.max_size:,} bytes do not hold the beginning of this trace") from None
            self._channel.say("ready")
            try:
                self._follow()
                self._drain.write_rest()
            except stream.Full:
                self._full = order.max_size
            self._drain.write_end(self._full)

    @staticmethod
    def _is_regular(trace: int) -> bool:
        """Whether the trace is a regular file.

        Raises:
            UsageError: it is a socket that need not be connected to one end: whoever it is sent to then would see who sends.
        """
        mode = os.fstat(trace).st_mode
        if stat.S_ISSOCK(mode):
            with socket.socket(fileno=os.dup(trace)) as end:
                if end.type != socket.SOCK_STREAM:
                    raise UsageError("the trace is a socket without a connection", "name a file with -o")
        return stat.S_ISREG(mode)

    def _is_waited_for(self, since: float) -> bool:
        """Whether the reader of the output, which has taken nothing since then, is to be waited for any longer.

        What happens meanwhile is taken in. After an order to stop only a reader that goes on reading is waited for.
        """
        self._drain.drain()
        self._channel.flush()
        self._hear()
        return self._stopped_at is None or time.monotonic() < max(self._stopped_at, since) + STALLED_S

    def _meanwhile(self) -> None:
        become_recorder(self._who)
        self._interpreters.expect_on(self._asked.path)

    def _prepare(self, order: Order) -> Sources | None:
        """Learn what is known of the target before it starts; return what reads its source lines, if anything is to.

        The files of another process are read only of those that are recorded, and for somebody who is not root only with that
        user's rights.
        """
        from forktrace.recorder.sources import Sources, files_of

        if order.program:
            self._interpreters.expect(os.path.join(order.header["cwd"], order.program), order.search)
        self._drain.tell()
        are_known, files = order.source, None
        if order.attach and order.source:
            pids = self._ownership.allowed(order.attach.pids)
            are_known, files = files_of(pids, self._ownership.starts, with_all_rights=self._is_trusted)
        reader = Sources(partial(as_user, self._who), order.header["cwd"], files) if are_known else None
        self._poll = select.epoll()
        self._poll.register(self._channel, select.EPOLLIN)
        self._poll.register(self._probes.wake_up(), select.EPOLLIN)
        self._poll.register(self._interpreters.helper, select.EPOLLIN)
        if reader:
            reader.helper.start()  # now: when the target has filled a limit on processes, it is too late
            self._poll.register(reader.helper, select.EPOLLIN)
        self._helpers = [self._interpreters.helper, *([reader.helper] if reader else [])]
        return reader

    def _begin(self, order: Order) -> None:
        asked = order.attach
        if asked is None or self._passes is None:
            self._aim(order.pid)
            return
        for remark in asked.remarks:
            self._say(remark)
        cgroup = asked.cgroup and os.path.realpath(asked.cgroup)  # below where only the kernel makes names
        if cgroup and not is_control_group(cgroup):
            raise UsageError(f"{asked.cgroup} is no control group", "cat /proc/PID/cgroup names that of a process")
        if not (cgroup and self._ownership.allowed(asked.pids)):
            self._ownership.require(asked.pids)
        self._join(self._passes.join(self._ownership.since_ns(), asked.never, cgroup))
        if not self._drain.counts:
            raise ForktraceError(*self._why_nobody(asked.pids))
        zombies = f", {count(self._drain.zombies(), 'zombie')} among them" if self._drain.zombies() else ""
        self._say(f"attached to {count(self._drain.counts['fork'], 'process')}{zombies} (Ctrl-C detaches)")

    def _why_nobody(self, pids: Sequence[int]) -> tuple[str, str]:
        """Return why none of these processes could be followed, and what to do."""
        here = [pid for pid in pids if self._proc.stat(pid)]
        if not here:
            return "the process ended before forktrace could attach", "forktrace ps shows who has zombies now"
        return f"the kernel shows process {here[0]} to no probe, so it cannot be recorded", "record the process that it started"

    def _aim(self, pid: int) -> None:
        """Follow the process from its next exec on: that very one, which the probes are told by its start too.

        They forget it as soon as it has ended, so whoever gets its number later is not taken for it.

        Raises:
            PermissionMissing: it is not the user's, or gone.
        """
        try:
            self._target = os.pidfd_open(pid)
        except ProcessLookupError:
            raise PermissionMissing(f"process {pid} is gone", "record once more") from None
        self._ownership.require([pid])
        self._probes.follow(pid, self._drain.pid_ns, self._ownership.start_of(pid))
        if select.select([self._target], [], [], 0)[0]:  # it ended before the probes were told, and they did not see it
            self._probes.follow(0, self._drain.pid_ns, 0)
            raise PermissionMissing(f"process {pid} is gone", "record once more")
        self._poll.register(self._target, select.EPOLLIN)

    def _take_aim_back(self) -> None:
        """The target is gone; if it never came to its exec, the next process with its number is not to be followed."""
        self._poll.unregister(self._target)
        self._drain.drain()
        self._drain.write()
        if not self._drain.counts["fork"]:
            self._probes.follow(0, self._drain.pid_ns, 0)

    def _join(self, pending: int) -> None:
        """Write who is followed since, with their stacks known from now on."""
        self._ownership.check(self._probes.following())
        self._interpreters.settle()
        self._drain.drain()
        self._drain.write()
        if pending:
            self._drain.unfollowed += pending
            self._drain.write_losses()

    def _follow(self) -> None:
        next_write = time.monotonic() + WRITE_EVERY_S
        alone_since: float | None = None
        while True:
            had_ended = self._ended_at is not None
            self._wait_for_order()
            if self._stopped_at is not None:
                return
            if self._turns and self._turns.next:
                self._turn(self._turns)
            if self._ended_at is not None and not had_ended:
                self._say_survivors()
            if self._drain.drain():
                next_write = max(next_write, time.monotonic() + TOGETHER_S)
            if self._passes and (new := self._passes.newcomers()):
                self._ownership.allowed(new)
                self._join(self._passes.more(self._ownership.since_ns()))
            now = time.monotonic()
            if now >= next_write:
                self._check_output()
                self._drain.write(everything=False)
                next_write = now + WRITE_EVERY_S - (time.monotonic() - now)  # what comes while it writes waits no longer
                self._show_progress()
            if self._ended_at is not None and self._drain.is_waiting():
                self._drain.write()
            if not self._may_end():
                alone_since = None
                continue
            alone_since = alone_since or now
            if self._drain.zombies() <= 0 or now - alone_since > LAST_ZOMBIES_S:
                return

    def _may_end(self) -> bool:
        """Whether nobody runs who is followed, and nobody will."""
        over = not self._passes.goes_on() if self._passes else self._ended_at is not None
        return over and self._drain.running() <= 0

    def _wait_for_order(self) -> None:
        """Wait a moment for an order."""
        self._channel.flush()
        ready = [descriptor for descriptor, _ in self._poll.poll(READ_EVERY_S if self._drain.is_busy() else IDLE_EVERY_S)]
        if self._target in ready:
            self._take_aim_back()
        if self._channel.fileno() in ready:
            self._hear()

    def _hear(self) -> None:
        """Take an order, if there is one; a channel that was closed means that nobody is there to give one: stop."""
        message, descriptors = self._channel.heard()
        if message is None:
            return
        said = message.get("say", "stop")
        if said == "next" and self._turns:
            descriptors = self._turns.offer(message, descriptors)
        close_all(descriptors)
        if said == "ping":
            self._channel.say("pong")
        if said == "stop" and self._stopped_at is None:
            self._stopped_at = time.monotonic()
        elif said == "ended" and self._ended_at is None:
            self._ended_at = time.monotonic()

    def _turn(self, turns: Turns) -> None:
        """Go on in the next file, unless it is none that can be written to."""
        try:
            turns.check_next()
        except UsageError as error:
            self._channel.say("refused", why=str(error))
            return
        self._drain.turn(turns.carried, turns.go_on)
        self._output = turns.output
        self._channel.say("turned")

    def _check_output(self) -> None:
        """Make sure that what is written can be found; in a rotation that is said, and the next file asked for."""
        try:
            self._output.check()
        except ForktraceError as error:
            if self._turns is None:
                raise
            if self._turns.asks_once():
                self._say(str(error))
                self._channel.say("next")

    def _refused(self) -> list[str]:
        """What the recording lacks since there could be no process for it, in words."""
        lacking = zip(("Python stacks", "source lines"), self._helpers, strict=False)
        return [f"{what} ({NO_PROCESS}: {one.refused})" for what, one in lacking if one.refused]

    def _say(self, text: str) -> None:
        if self._asked.words:
            self._channel.say("words", text=text)

    def _show_progress(self) -> None:
        if self._progress and self._channel.is_read():
            intake = self._drain
            lost = sum(intake.lost.values())
            self._channel.say("live", text=self._progress.text(intake.counts, lost, intake.running(), intake.zombies()))

    def _say_survivors(self) -> None:
        """The command has ended: name the processes that are still followed, if any runs."""
        self._drain.drain()
        self._drain.write()
        following = self._probes.following()
        running = following[following["exit_ns"] == 0]["pid"].tolist()
        if running:
            names = ", ".join(f"{pid} {printable(self._proc.comm(pid))}" for pid in running[:5])
            more = f" and {len(running) - 5} more" if len(running) > 5 else ""
            self._say(f"ended; still following {count(len(running), 'process')}: {names}{more} (Ctrl-C stops)")

    def _say_closing(self, order: Order) -> None:
        counts, path = self._drain.counts, "standard output" if order.path == "-" else order.path
        path = os.path.dirname(path) if self._turns else path
        if not counts:  # the command could not be started, which is said elsewhere
            return
        for sentence in self._drain.closing.words():
            self._say(sentence)
        if self._full:
            runs_on = "; what was recorded runs on" if self._asked.attach else "" if self._ended_at else "; the command runs on"
            self._say(f"the trace is full (--max-size {size(self._full)}), the recording ended{runs_on}")
        lost = sum(self._drain.lost.values())
        self._say(f"{sum(counts.values()):,} events of {count(counts['fork'], 'process')}, {lost:,} lost: {path}")
        if lost:
            kinds = ", ".join(f"{number:,} {what}" for what, number in self._drain.lost.items() if number)
            self._say(f"events were lost: {kinds}; the report marks what they may have touched")
        for refused in self._refused():
            self._say(f"missing: {refused}")
        if self._is_file:
            self._say(f"next: forktrace {'why' if self._drain.closing.has_zombies else 'report'} {shlex.quote(path)}")


def _init(order: Order) -> int:
    """Return the number of the machine's init, or the container's; 0 where it is recorded."""
    return 0 if order.attach and 1 in order.attach.pids else 1


class _Progress:
    """Puts into words how a recording goes."""

    def __init__(self) -> None:
        self._before = (time.monotonic(), 0)

    def text(self, counts: Counter[str], lost: int, running: int, zombies: int) -> str:
        """Return how many processes ran and run, zombies now, events per second since the last time, and losses."""
        now, total = time.monotonic(), sum(counts.values())
        then, before = self._before
        self._before = (now, total)
        rate = (total - before) / max(now - then, 1e-3)
        alive = f"{running} running, {count(zombies, 'zombie')}"
        return f"{count(counts['fork'], 'process')}, {alive}, {rate:,.0f} events/s, {lost} lost"
