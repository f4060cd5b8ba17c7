"""Starts the target with the rights of the user, holds it until the probes are armed, and waits for its end.

This process is the target's parent and stays small; the recorder is another one, the only one that needs root's rights.
Nothing of forktrace reaches the target: its descriptors are close-on-exec and its signal dispositions are put back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NoReturn

from forktrace.errors import CommandError, ForktraceError
from forktrace.launcher.companion import Companions
from forktrace.launcher.options import RecordOptions
from forktrace.launcher.recorder_process import PYTHON_IGNORES, RecorderProcess
from forktrace.launcher.rotation import RotationFiles
from forktrace.launcher.schedule import Schedule
from forktrace.launcher.session import (
    begin,
    check_output,
    default_name,
    finish,
    open_first,
    wait_for_news,
)
from forktrace.recorder.protocol.orders import Order
from forktrace.system.capabilities import become_ordinary
from forktrace.system.users import User, as_user, become, invoking_user, named_user

PASSED_ON: Final = (signal.SIGTERM, signal.SIGHUP)
INTERPRETER: Final = "/bin/sh"  # for a script without #!, as execvp(3) does


def record(
    command: Sequence[str],
    options: RecordOptions,
    user: str | None = None,
    written: Callable[[str], object] | None = None,
) -> int:
    """Record `command` and its descendants, as root for `user`, and return its wait status.

    `written` is told the path of the trace at its end.

    0 after `duration_s`, or when the trace would exceed `max_size` bytes, while the command runs on.

    Raises:
        ForktraceError: the recording could not be made; a command that cannot be started is a CommandError.
    """
    who = named_user(user) if user else invoking_user()
    as_user(who, check_command, command[0], who)
    output = options.output
    if output is not None and not options.to_stdout and not options.rotation:
        as_user(who, check_output, output, options.force)
    with contextlib.ExitStack() as recording:
        with contextlib.ExitStack() as beginning:  # a pipe has its reader before there is a recorder, which waits for nobody
            first = open_first(output, command, who, options, beginning, recording) if output else None
            sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would hide from us how children end
            recorder = RecorderProcess(who, quiet=options.quiet)
            recording.callback(recorder.close)
            recorder.arm(options, who.environment.get("PATH", os.defpath))
            held = beginning.enter_context(HeldTarget(command, who, 2 if options.to_stdout else 1, sigchld))
            name = output or default_name(command, held.pid)
            path, trace, files = first or open_first(name, command, who, options, beginning, recording)
            begin(recorder, _order(held, path, command, who, options, files), trace)
            companions = recording.enter_context(Companions(options.companions, path, who))
            watch = Watch(recorder, held.pid, companions)  # from the target's first moment on, Ctrl-C is its own
            schedule = Schedule(recorder, options.duration_s, files)
            recording.callback(schedule.close)
            held.release()
        status = watch.until_done(schedule)
    finish(options, name, files, who, written)
    return status


def check_command(name: str, who: User) -> None:
    """Make sure that there is such a command, before the seconds that arming the probes takes.

    Raises:
        CommandError: 127, there is none.
    """
    folders = who.environment.get("PATH", os.defpath).split(os.pathsep)
    if not name:
        raise CommandError("'': command not found", 127)
    if os.sep not in name and not any(os.path.lexists(os.path.join(folder or ".", name)) for folder in folders):
        raise CommandError(f"{name}: command not found", 127, _meant(name))


def _meant(name: str) -> str:
    """Return a hint for the name of a file that is no command."""
    if name.endswith(".py") and os.path.isfile(name):
        return f"python {shlex.quote(name)}?"
    return f"./{shlex.quote(name)}?" if os.path.isfile(name) else ""


class HeldTarget:
    """The target: a process with its user's rights that waits for `release` before it runs the command.

    As a context: after an error the target ends, if it still waits.

    stdout    the descriptor that becomes its standard output; another than 1 where the trace goes there
    sigchld   its disposition of SIGCHLD: the one that this process was started with
    """

    def __init__(self, command: Sequence[str], who: User, stdout: int = 1, sigchld: Any = signal.SIG_DFL) -> None:
        go_read, self._go = os.pipe()
        self._failure, failure_write = os.pipe()
        self._command = command[0]
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for number in PYTHON_IGNORES:
                    signal.signal(number, signal.SIG_DFL)
                signal.signal(signal.SIGCHLD, sigchld)
                if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # let Ctrl-C end it, not raise KeyboardInterrupt
                    signal.signal(signal.SIGINT, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
                if stdout != 1:
                    os.dup2(stdout, 1)
                become(who)
                become_ordinary()
                os.close(self._go)
                if os.read(go_read, 1):
                    _execute(list(command), dict(who.environment))
            except OSError as error:
                os.write(failure_write, str(error.errno).encode())
            finally:
                os._exit(125)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        os.close(go_read)
        os.close(failure_write)

    def release(self) -> None:
        """Let it run the command, unless Ctrl-C was faster.

        Raises:
            CommandError: 127 when there is no such command, 126 when it cannot be executed. The target is gone then.
        """
        with contextlib.suppress(BrokenPipeError):
            os.write(self._go, b"x")
        os.close(self._go)
        self._go = -1
        failure = os.read(self._failure, 16)
        os.close(self._failure)
        if failure:
            number = int(failure)
            missing = number in (errno.ENOENT, errno.ENOTDIR)
            reason = "command not found" if missing else os.strerror(number)
            raise CommandError(f"{self._command}: {reason}", 127 if missing else 126, "" if missing else _meant(self._command))

    def __enter__(self) -> HeldTarget:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            return
        if self._go >= 0:
            os.close(self._go)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _execute(command: list[str], environment: dict[str, str]) -> NoReturn:
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
        folders = [""] if os.sep in command[0] else environment.get("PATH", os.defpath).split(os.pathsep)
        found = next(one for folder in folders if os.access(one := os.path.join(folder, command[0]), os.X_OK))
        os.execve(INTERPRETER, [INTERPRETER, found, *command[1:]], environment)


def _order(
    held: HeldTarget, path: str, command: Sequence[str], who: User, options: RecordOptions, files: RotationFiles | None
) -> Order:
    """Return the order for the recorder: whom to follow, where to write, what the header says."""
    from forktrace.launcher.header import header

    search = who.environment.get("PATH", os.defpath)
    return Order(
        path=path,
        header=header(list(command), held.pid, who.name, who.environment) | {"own": list(options.own)},
        pid=held.pid,
        program=as_user(who, partial(shutil.which, path=search), command[0]),
        search=search,
        source=options.source and options.stacks,
        max_size=None if files else options.max_size,
        file=files.number if files else None,
    )


class Watch:
    """Waits for the target and the recorder. Signals are meant for the target from now on: SIGTERM and SIGHUP are passed on."""

    def __init__(self, recorder: RecorderProcess, pid: int, companions: Companions) -> None:
        self._recorder, self._companions = recorder, companions
        self._pid = pid
        self._target = os.pidfd_open(pid)
        self._status: int | None = None
        self._signals: list[int] = []
        for number in (signal.SIGINT, *PASSED_ON):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._interrupted)
        if os.getpid() == 1:
            signal.signal(signal.SIGCHLD, self._reap_orphans)

    def _reap_orphans(self, *_: object) -> None:
        """As PID 1 of a container this process inherits orphans, and has to be their init."""
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if ended.si_pid in (self._pid, self._recorder.pid):  # the code that waits for these two calls this again
                    return
                os.waitpid(ended.si_pid, 0)

    def _interrupted(self, number: int, frame: object) -> None:
        self._signals.append(number)
        if len(self._signals) > 1 or self._status is not None:
            self._recorder.channel.send("stop")
        elif number != signal.SIGINT:  # Ctrl-C has reached the target already, which is in our process group
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._target, number)

    def until_done(self, schedule: Schedule) -> int:
        """Wait for the target and for the recorder.

        Returns the target's wait status; 0 when it runs on after the duration, or as the trace is full; SIGINT when it does
        after a second Ctrl-C.

        Raises:
            ForktraceError: the recording broke off; the target has ended by then.
        """
        try:
            while not self._is_done(schedule):
                pass
        except ForktraceError:  # the target runs to its end before the error is reported
            if self._status is None:
                os.waitpid(self._pid, 0)
            raise
        if self._status is None:
            return signal.SIGINT if len(self._signals) > 1 else 0
        return self._status

    def _is_done(self, schedule: Schedule) -> bool:
        """Wait for what happens next, and return whether it is that the recorder is done."""
        target = [self._target] if self._status is None else []
        readable = wait_for_news(self._recorder, schedule, self._companions, *target)
        if self._target in readable:
            self._reap_target()
            return False
        return self._recorder in readable and self._recorder.receive("done")

    def _reap_target(self) -> None:
        """Take the status of the target, which has ended, and tell the recorder."""
        self._status = os.waitpid(self._pid, 0)[1]
        if os.getpid() == 1:
            self._reap_orphans()
        self._recorder.channel.send("ended")
