"""What `record` has in common for a command and for running processes: the trace's file, the order, the wait for the end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from forktrace.errors import ForktraceError, UsageError
from forktrace.launcher.companion import Companions
from forktrace.launcher.options import RecordOptions
from forktrace.launcher.recorder_process import RecorderProcess
from forktrace.launcher.rotation import RotationFiles
from forktrace.launcher.schedule import Schedule
from forktrace.recorder.protocol.orders import Order, encoded
from forktrace.system.users import User, as_user
from forktrace.trace.files import SUFFIX


def check_output(path: str, force: bool) -> None:
    """Make sure that a trace may be written to `path`, before the seconds that arming the probes takes.

    Raises:
        UsageError: there is a file already, or something that holds no trace.
    """
    if os.path.isdir(path):
        raise UsageError(f"{path} is a directory", "name a file with -o, or have many with --rotate")
    if is_stream(path):
        return
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"{path} is neither a file nor a pipe", "name a file with -o")
    if os.path.lexists(path) and not force:
        raise UsageError(f"{path} exists", "name another with -o, or overwrite it with --force")


def is_stream(path: str) -> bool:
    """Say whether `path` is a pipe or a character device such as /dev/null: what is written there replaces nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def default_name(command: Sequence[str], pid: int) -> str:
    """Return `forktrace-consumer.4711.arrows`."""
    return f"{stem(command)}.{pid}{SUFFIX}"


def stem(command: Sequence[str]) -> str:
    """Return `forktrace-consumer` for `python3 consumer.py`, else it is the command's name."""
    return f"forktrace-{program_name(command)}"


def program_name(command: Sequence[str]) -> str:
    """Return `consumer` for `python3 consumer.py`, else the command's name."""
    name = os.path.basename(command[0])
    if name.startswith(("python", "pypy")):
        script = next((word for word in command[1:] if word.endswith(".py")), None)
        name = os.path.basename(script)[:-3] if script else name
    return name


@contextlib.contextmanager
def opened(path: str, who: User, force: bool) -> Iterator[int]:
    """Open the trace with the user's rights, until the recorder has it; after an error a new file is removed.

    A pipe waits for its reader.
    """
    if path == "-":
        yield 1
        return
    is_new = not as_user(who, os.path.lexists, path)
    flags = os.O_WRONLY | os.O_NOCTTY if as_user(who, is_stream, path) else os.O_RDWR | os.O_CREAT | (0 if force else os.O_EXCL)
    try:
        descriptor = as_user(who, os.open, path, flags | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists", "name another with -o, or overwrite it with --force") from None
    except OSError as error:
        raise ForktraceError(f"{path}: {error.strerror}", "name a place you may write to with -o") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        with contextlib.suppress(PermissionError):  # a file of somebody else's, which --force may write to
            as_user(who, os.fchmod, descriptor, 0o600)
    try:
        yield descriptor
    except BaseException:
        if is_new:
            with contextlib.suppress(OSError):
                as_user(who, os.unlink, path)
        raise
    finally:
        os.close(descriptor)


def open_first(
    path: str, command: Sequence[str], who: User, options: RecordOptions, beginning: ExitStack, recording: ExitStack
) -> tuple[str, int, RotationFiles | None]:
    """Open the trace, or the first file of a rotation in the directory `path`: its path, a descriptor, and the rotation.

    The trace is closed with `beginning`, a rotation with `recording`. If `beginning` ends by an error, a new file is removed.
    """
    if options.rotation is None:
        return path, beginning.enter_context(opened(path, who, options.force)), None
    files = RotationFiles(path, stem(command), options.rotation, who)
    recording.callback(files.close)
    beginning.push(files.give_up)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # from now on it never ends this process
        signal.signal(signal.SIGHUP, lambda *_: files.turn_soon())
    return files.path, files.descriptor, files


def begin(recorder: RecorderProcess, order: Order, trace: int) -> None:
    """Hand the recorder its order and the trace, a descriptor; return when it records."""
    recorder.channel.send_order(encoded(order), [trace])
    recorder.wait_for("ready")


def wait_for_news(recorder: RecorderProcess, schedule: Schedule, companions: Companions, *others: int) -> Sequence[object]:
    """Wait until something happens or is due, and do what is due. Return which of these, and of `others`, are readable."""
    watched: list[RecorderProcess | Schedule | int] = [recorder, schedule, *companions.running, *others]
    readable = select.select(watched, [], [], schedule.left_s())[0]
    schedule.do()
    companions.report_ended(readable)
    return readable


def finish(
    options: RecordOptions, name: str, files: RotationFiles | None, who: User, written: Callable[[str], object] | None
) -> None:
    """The recording is over: merge the batches of a single file, with the rights of the user; tell `written` the name."""
    if options.to_stdout:
        return
    if not files:
        as_user(who, _merge, name)
    if written:
        written(name)


def _merge(path: str) -> None:
    """Join the many small batches of a long recording."""
    if not os.path.isfile(path) or os.path.getsize(path) < 1 << 20:
        return
    from forktrace.trace.stream import merge

    merge(path)
