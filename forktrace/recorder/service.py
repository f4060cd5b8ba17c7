"""The recorder's own process: probes in, trace out. `launch` tells it over a channel whom to follow, and reaps the target.

Of root's rights it keeps, once the probes are armed, only those to go on: from then on it is the user, who owns the trace and
whose files it reads. It has no terminal; what it has to say goes over the channel.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from forktrace.errors import ForktraceError, MachineLacks, PermissionMissing, UsageError, in_words
from forktrace.recorder.ownership import Ownership
from forktrace.recorder.protocol.channel import Channel
from forktrace.recorder.protocol.launcher import Launcher
from forktrace.recorder.protocol.orders import Arming, Order, decoded
from forktrace.system import resource_limits
from forktrace.system.capabilities import become_recorder, in_effect, missing, remedy
from forktrace.system.procfs import Proc, is_control_group
from forktrace.system.users import User, as_user
from forktrace.system.worker import Worker

if TYPE_CHECKING:
    from forktrace.kernel.loading import Loading
    from forktrace.kernel.probes import Probes
    from forktrace.recorder.drain import Armed, Drain
    from forktrace.recorder.interpreters import Interpreters
    from forktrace.recorder.remarks import Remarks
    from forktrace.recorder.sources import Sources

READ_EVERY_S: Final = 0.02  # the ring holds seconds of the fastest fork storm
IDLE_EVERY_S: Final = 0.1  # while nothing happens
WRITE_EVERY_S: Final = 0.15  # with the wait before and the time of the write: a recorder that is killed loses no 200 ms
TOGETHER_S: Final = 0.06  # events that come so soon after another are written with it
ORDER_S: Final = 10.0  # how long an order is waited for, with rights that nobody uses
PARTING_S: Final = 5.0  # how long a launcher that does not read is waited for at the end
MESSAGE_MOST: Final = 200  # characters of an error that nobody expected
LAST_ZOMBIES_S: Final = 3.0  # how long the end of a zombie whose parent is not followed is waited for
# Signals of the terminal, which sudo passes on, and of the end of a session, which the target may survive.
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
        if order := channel.receive(ORDER_S):
            _record(Client(channel, who, only_of, decoded(Arming, order)))
        return 0
    except Exception as error:
        failed = _failure(error)
    channel.send("error", message=str(failed), hint=failed.hint, status=failed.exit_status)
    channel.flush(PARTING_S)
    return 1


def _failure(error: Exception) -> ForktraceError:
    """Return the error that ended the recorder, in words for the user."""
    if isinstance(error, ForktraceError):
        return error
    if isinstance(error, OSError):
        return ForktraceError(f"the recorder cannot go on: {in_words(error)}", resource_limits.hint(error))
    if isinstance(error, MemoryError):
        return ForktraceError("the recorder has no memory to go on", resource_limits.hint(error))
    frame = traceback.extract_tb(error.__traceback__)[-1]  # a defect: say where it is
    said = " ".join(str(error).split())[:MESSAGE_MOST]  # numpy says a page when there is no memory to import it
    where = f"{type(error).__name__}: {said} ({os.path.basename(frame.filename)}:{frame.lineno})"
    # Some libraries raise other errors where there is no memory.
    return ForktraceError(f"the recorder failed: {where}", resource_limits.hint(MemoryError()) or "please report this")


@dataclass(frozen=True)
class Client:
    """For whom it is recorded.

    Attributes:
        channel: to the launcher
        who: owns the trace, and with whose rights files are read
        only_of: whose processes alone may be recorded; None: everybody's
        asked: what is to be armed
    """

    channel: Channel
    who: User
    only_of: int | None
    asked: Arming


def _record(client: Client) -> None:
    """Arm the probes, wait for the order, and do what it says; nothing when the launcher has gone."""
    armed, channel = _arm(client), client.channel
    message, descriptors = channel.receive_order(1, ORDER_S)
    if not message:
        return
    from forktrace.trace import stream

    order = decoded(Order, message)
    with contextlib.ExitStack() as files:
        try:
            recorder = _recorder(client, armed, order, descriptors[0], files)
            recorder.begin(order)
        except stream.Full:
            raise UsageError(f"--max-size: {order.max_size:,} bytes do not hold the beginning of this trace") from None
        channel.send("ready")
        recorder.record(order.max_size)
    recorder.say_closing()
    channel.send("done")
    channel.flush(PARTING_S)


def _arm(client: Client) -> Armed:
    """Load the probes, and import all that recording needs beside them: later these files may not be readable."""
    client.channel.send("live", text="loading probes")
    from forktrace.kernel.file_keys import new_secret
    from forktrace.kernel.loading import Loading

    asked, secret = client.asked, new_secret()
    loading = Loading(stacks=asked.stacks, attach=asked.attach, secret=secret)
    from forktrace.recorder import remarks, sources, trace_output  # noqa: F401
    from forktrace.recorder.drain import Armed, Intake
    from forktrace.recorder.interpreters import Interpreters
    from forktrace.recorder.task_passes import TaskPasses
    from forktrace.trace import stream  # noqa: F401

    if asked.rotates:  # numpy and pyarrow import these when a turn first looks for rows and takes them
        import numpy.ma  # noqa: F401
        import pyarrow.compute  # noqa: F401

    interpreters = Interpreters(secret)
    probes = _probes(loading, partial(_give_up_rights, client, interpreters))
    passes = TaskPasses(probes, interpreters) if asked.attach else None
    client.channel.send("armed")
    return Armed(probes, interpreters, passes, Intake(probes, interpreters), asked.stacks)


def _probes(loading: Loading, meanwhile: Callable[[], None]) -> Probes:
    """Return the loaded probes; where that fails and this process lacks rights, the error names them."""
    from forktrace.kernel.probes import Probes

    lacking = missing()
    try:
        return Probes(loading, meanwhile)
    except MachineLacks as error:
        if lacking:
            raise MachineLacks(f"{error}; {', '.join(lacking)} missing here", remedy(lacking)) from error
        raise


def _give_up_rights(client: Client, interpreters: Interpreters) -> None:
    """While the probes are loaded: become the user, and examine the interpreters on the target's PATH."""
    become_recorder(client.who)
    interpreters.expect_on(client.asked.path)


def _recorder(client: Client, armed: Armed, order: Order, trace: int, files: contextlib.ExitStack) -> Recorder:
    """Open the trace, a descriptor that is closed with `files`, and return what records into it."""
    from forktrace.recorder.closing import Closing
    from forktrace.recorder.drain import Drain
    from forktrace.recorder.remarks import Remarks, without_process
    from forktrace.recorder.trace_output import RotationOutput, empty, single_output

    if order.program:  # learn what is known of the target before it starts
        armed.interpreters.expect(os.path.join(order.header["cwd"], order.program), order.search)
    armed.intake.tell()
    ownership = Ownership(client.only_of)
    sources = _sources(client, order, ownership)
    helpers = {"Python stacks": armed.interpreters.helper} | ({"source lines": sources.helper} if sources else {})
    order.header["lacks"] = [*armed.probes.lacks, *without_process(helpers)]
    empty(trace, order)
    rotation = RotationOutput(order, Counter(), trace) if order.file is not None else None
    if rotation:
        files.callback(rotation.close)
    launcher = Launcher(client.channel, rotation)
    goes_on = partial(launcher.waits_for_reader, armed.intake.drain)
    output = rotation.output if rotation else single_output(trace, order, goes_on, files)
    closing = Closing(armed.passes.ended_ns if armed.passes else (), order.header["recorder_pid"], _init(order))
    drain = Drain(armed, output, sources, closing)
    remarks = Remarks(client.channel, client.asked, drain, helpers)
    return Recorder(armed, drain, launcher, ownership, remarks)


def _sources(client: Client, order: Order, ownership: Ownership) -> Sources | None:
    """Return what reads the target's source lines; None: nothing is to.

    The files of another process are read only of those that are recorded, and for somebody who is not root only with that
    user's rights.
    """
    from forktrace.recorder.sources import Sources, files_of

    are_known, files = order.source, None
    if order.attach and order.source:
        pids = ownership.allowed(order.attach.pids)
        are_known, files = files_of(pids, ownership.starts, with_all_rights=client.only_of is None)
    if not are_known:
        return None
    sources = Sources(partial(as_user, client.who), order.header["cwd"], files)
    sources.helper.start()  # now: when the target has filled a limit on processes, it is too late
    return sources


class Recorder:
    """One recording."""

    def __init__(self, armed: Armed, drain: Drain, launcher: Launcher, ownership: Ownership, remarks: Remarks) -> None:
        self._armed, self._probes, self._passes, self._intake = armed, armed.probes, armed.passes, armed.intake
        self._drain = drain
        self._launcher = launcher
        self._ownership = ownership
        self._remarks = remarks
        self._proc = Proc(rights=in_effect)
        self._target = -1
        self._full: int | None = None  # the size that was reached
        self._poll = select.epoll()
        for descriptor in (launcher.channel.fileno(), self._probes.wake_up(), *map(Worker.fileno, remarks.helpers.values())):
            self._poll.register(descriptor, select.EPOLLIN)

    def begin(self, order: Order) -> None:
        """Follow whom the order names."""
        asked = order.attach
        if asked is None or self._passes is None:
            self._await_exec(order.pid)
            return
        for remark in asked.remarks:
            self._remarks.say(remark)
        cgroup = asked.cgroup and os.path.realpath(asked.cgroup)  # below where only the kernel makes names
        if cgroup and not is_control_group(cgroup):
            raise UsageError(f"{asked.cgroup} is no control group", "cat /proc/PID/cgroup names that of a process")
        if not (cgroup and self._ownership.allowed(asked.pids)):
            self._ownership.require(asked.pids)
        self._join(self._passes.join(self._ownership.since_ns(), asked.never, cgroup))
        if not self._drain.counts:
            raise ForktraceError(*self._why_nobody(asked.pids))
        self._remarks.attached()

    def record(self, max_size: int | None) -> None:
        """Write the trace to its end, which comes early where it would become larger than `max_size` bytes."""
        from forktrace.trace import stream

        try:
            self._follow()
            self._drain.write_rest()
        except stream.Full:
            self._full = max_size
        self._drain.write_end(self._full)

    def say_closing(self) -> None:
        """Say how it ended."""
        has_ended, is_rotation = self._launcher.ended_at is not None, self._launcher.rotation is not None
        self._remarks.closing(self._full, is_rotation=is_rotation, has_ended=has_ended)

    def _why_nobody(self, pids: Sequence[int]) -> tuple[str, str]:
        """Return why none of these processes could be followed, and what to do."""
        here = [pid for pid in pids if self._proc.stat(pid)]
        if not here:
            return "the process ended before forktrace could attach", "forktrace ps shows who has zombies now"
        return f"the kernel shows process {here[0]} to no probe, so it cannot be recorded", "record the process that it started"

    def _await_exec(self, pid: int) -> None:
        """Follow the process from its next exec on. The probes know it by its number and its start.

        They forget it when it ends, so a later process with its number is not taken for it.

        Raises:
            PermissionMissing: it is not the user's, or gone.
        """
        try:
            self._target = os.pidfd_open(pid)
        except ProcessLookupError:
            raise PermissionMissing(f"process {pid} is gone", "record once more") from None
        self._ownership.require([pid])
        self._probes.follow(pid, self._drain.pid_ns, self._ownership.start_of(pid))
        if select.select([self._target], [], [], 0)[0]:  # it ended before the probes knew it, unseen
            self._probes.follow(0, self._drain.pid_ns, 0)
            raise PermissionMissing(f"process {pid} is gone", "record once more")
        self._poll.register(self._target, select.EPOLLIN)

    def _forget_target(self) -> None:
        """The target has ended. If it came to no exec, make sure that no later process with its number is followed."""
        self._poll.unregister(self._target)
        self._intake.drain()
        self._drain.write()
        if not self._drain.counts["fork"]:
            self._probes.follow(0, self._drain.pid_ns, 0)

    def _join(self, pending: int) -> None:
        """Write the processes that are followed from now on. `pending`: how many could not be classified."""
        self._ownership.check(self._probes.following())
        self._armed.interpreters.settle()
        self._intake.drain()
        self._drain.write()
        if pending:
            self._drain.unfollowed += pending
            self._drain.write_losses()

    def _follow(self) -> None:
        """Write what happens, until no followed process is left or there is an order to stop."""
        next_write = time.monotonic() + WRITE_EVERY_S
        alone_since: float | None = None
        while True:
            had_ended = self._launcher.ended_at is not None
            self._wait_for_order()
            if self._launcher.stopped_at is not None:
                return
            self._turn()
            if self._launcher.ended_at is not None and not had_ended:
                self._say_survivors()
            if self._intake.drain():
                next_write = max(next_write, time.monotonic() + TOGETHER_S)
            self._join_new()
            now = time.monotonic()
            if now >= next_write:
                self._check_output()
                self._drain.write(everything=False)
                next_write = now + WRITE_EVERY_S - (time.monotonic() - now)  # what comes while it writes waits no longer
                self._remarks.show_progress()
            if self._launcher.ended_at is not None and self._intake.is_waiting():
                self._drain.write()
            if not self._may_end():
                alone_since = None
                continue
            alone_since = alone_since or now
            if self._drain.zombies() <= 0 or now - alone_since > LAST_ZOMBIES_S:
                return

    def _join_new(self) -> None:
        """Follow the processes that have come to the control group, if one is recorded."""
        if self._passes and (new := self._passes.new_in_cgroup()):
            self._ownership.allowed(new)
            self._join(self._passes.more(self._ownership.since_ns()))

    def _may_end(self) -> bool:
        """Whether no followed process runs, and none will come."""
        over = not self._passes.goes_on() if self._passes else self._launcher.ended_at is not None
        return over and self._drain.running() <= 0

    def _wait_for_order(self) -> None:
        """Wait a moment for an order."""
        self._launcher.channel.flush()
        ready = [descriptor for descriptor, _ in self._poll.poll(READ_EVERY_S if self._intake.is_busy() else IDLE_EVERY_S)]
        if self._target in ready:
            self._forget_target()
        if self._launcher.channel.fileno() in ready:
            self._launcher.receive()

    def _turn(self) -> None:
        """Go on in the next file of a rotation, if there is one that can be written to."""
        rotation = self._launcher.rotation
        if not rotation or not rotation.next:
            return
        try:
            rotation.check_next()
        except UsageError as error:
            self._launcher.channel.send("refused", why=str(error))
            return
        self._drain.turn(rotation.carried, rotation.go_on)
        self._launcher.channel.send("turned")

    def _check_output(self) -> None:
        """Make sure that what is written can be found; in a rotation that is said, and the next file asked for."""
        try:
            self._drain.output.check()
        except ForktraceError as error:
            rotation = self._launcher.rotation
            if rotation is None:
                raise
            if rotation.asks_once():
                self._remarks.say(str(error))
                self._launcher.channel.send("next")

    def _say_survivors(self) -> None:
        """The command has ended: name the processes that are still followed, if any runs."""
        self._intake.drain()
        self._drain.write()
        following = self._probes.following()
        self._remarks.survivors(following[following["exit_ns"] == 0]["pid"].tolist(), self._proc)


def _init(order: Order) -> int:
    """Return the number of the machine's init, or the container's; 0 where it is recorded."""
    return 0 if order.attach and 1 in order.attach.pids else 1
