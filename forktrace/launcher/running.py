"""Records what runs already: finds the processes that are meant, and lets the recorder follow them until it is told to stop.

The attached processes are never signalled, and nothing waits for them: whatever ends this process only ends the recording.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from forktrace.errors import UsageError
from forktrace.launcher.companion import Companions
from forktrace.launcher.options import RecordOptions
from forktrace.launcher.recorder_process import RecorderProcess
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
from forktrace.recorder.protocol.orders import Attaching, Order
from forktrace.system.procfs import Proc, cgroup_pids, mounts
from forktrace.system.users import User, as_user, invoking_user

DETACHING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Chosen:
    """What to attach to.

    Attributes:
        pids: the processes, all of them there a moment ago
        remarks: what to tell the user of how they were found, such as that the parent of a zombie was chosen
        cgroup: the directory whose processes they are; those that come to it later are meant too
    """

    pids: tuple[int, ...]
    remarks: tuple[str, ...] = ()
    cgroup: str | None = None


def attach(chosen: Chosen, options: RecordOptions, written: Callable[[str], object] | None = None) -> None:
    """Record the chosen processes and their descendants until the last is gone, `duration_s` is over, or a signal comes.

    Or until the trace would exceed `max_size` bytes. `written` is told the path of the trace at its end.

    Raises:
        ForktraceError: the recording could not be made, or broke off.
    """
    proc, who = Proc(), invoking_user()
    main = chosen.pids[0]
    command = list(proc.argv(main) or [proc.comm(main)])
    name = options.output or default_name(command, main)
    if not options.to_stdout and not options.rotation:
        as_user(who, check_output, name, options.force)
    target_user = user_of(main, proc)
    with contextlib.ExitStack() as recording:
        with contextlib.ExitStack() as beginning:  # before the recorder, which waits for no reader of a pipe
            path, trace, files = open_first(name, command, who, options, beginning, recording)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would hide from us how the recorder ends
            recorder = RecorderProcess(target_user, quiet=options.quiet)
            recording.callback(recorder.close)
            recorder.arm(options, search_path(main), attach=True)
            order = _order(chosen, command, path, target_user.name, options, files)
            _stop_on_signals(recorder)
            begin(recorder, order, trace)
            schedule = Schedule(recorder, options.duration_s, files)
            recording.callback(schedule.close)
        companions = recording.enter_context(Companions(options.companions, path, who))
        _until_done(recorder, schedule, companions)
    finish(options, name, files, who, written)


def choose(words: Iterable[str], proc: Proc | None = None) -> Chosen:
    """Return the processes that the words of `-p` name: numbers, with commas or blanks between them.

    The number of a thread stands for its process, that of a zombie for its parent, which alone can reap it.

    Raises:
        UsageError: there is no such process, or it is one of forktrace's own.
    """
    proc = proc or Proc()
    pids: dict[int, None] = {}
    remarks = []
    for word in " ".join(words).replace(",", " ").split():
        pid, remark = _meant(word, proc)
        pids[pid] = None
        remarks += [remark] if remark else []
    if not pids:
        raise UsageError("-p names no process", 'as in -p 4711 or -p "$(pgrep -d, -f consumer.py)"')
    return Chosen(tuple(pids), tuple(remarks))


def _meant(word: str, proc: Proc) -> tuple[int, str]:
    if not (word.isascii() and word.isdigit()) or len(word) > 9:
        raise UsageError(f"{word} is not the number of a process", 'as in -p 4711 or -p "$(pgrep -d, -f consumer.py)"')
    pid = int(word)
    meant = process_meant(pid, proc)
    if meant == os.getpid():
        raise UsageError(f"{meant} is forktrace itself", "name another process")
    if meant == pid:
        return pid, ""
    if int(proc.status(pid).get("Tgid", pid)) == pid:
        return meant, f"{pid} is a zombie; attached to its parent {meant}, which alone can reap it"
    return meant, f"{pid} is a thread; attached to its process {meant}"


def process_meant(pid: int, proc: Proc) -> int:
    """Return the process that a number means: that of a thread its process, that of a zombie its parent, which alone reaps it.

    Raises:
        UsageError: there is none, or it cannot be seen from here.
    """
    leader = int(proc.status(pid).get("Tgid", pid))
    try:
        found = proc.stat(leader)
    except PermissionError:
        raise UsageError(f"process {pid} is hidden from you (hidepid)", "root sees it") from None
    if found is None:
        raise UsageError(f"there is no process {pid}", "ps lists those that there are, forktrace ps the parents of zombies")
    if not found.is_zombie:
        return leader
    if found.ppid == 0 or not proc.read(f"{found.ppid}/stat"):
        raise UsageError(f"{pid} is a zombie, and its parent cannot be seen from here", "ask outside of the container")
    return found.ppid


def choose_cgroup(path: str, proc: Proc | None = None) -> Chosen:
    """Return the processes of a control group and of the groups in it: a directory, or a name as in /proc/PID/cgroup.

    Raises:
        UsageError: there is no such group, or it has no processes.
    """
    proc = proc or Proc()
    places = [Path(path)] if os.path.isabs(path) else []
    places += [mount.point / path.lstrip("/") for mount in mounts(proc) if mount.kind in ("cgroup2", "cgroup")]
    place = next((one for one in places if (one / "cgroup.procs").is_file()), None)
    if place is None:
        raise UsageError(f"there is no control group {path}", "cat /proc/PID/cgroup names that of a process")
    pids = cgroup_pids(str(place))
    if not pids:
        raise UsageError(f"no process is in {place}", "wait until one is, or name another group")
    found = [one for pid in pids if (one := proc.stat(pid))]
    oldest = sorted((one.start_ticks, one.pid) for one in found)
    return Chosen(tuple(pid for _, pid in oldest), cgroup=str(place))


def search_path(pid: int) -> str:
    """Return the PATH of a process, by which its interpreters are found early; nothing when it cannot be read."""
    return _environment(pid).get("PATH", "")


def _environment(pid: int) -> dict[str, str]:
    """The environment with which a process began its program; empty when it cannot be read."""
    entries = (Proc().read(f"{pid}/environ") or "").split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in reversed(entries))}


def user_of(pid: int, proc: Proc) -> User:
    """Return for whom a process runs; nobody when it is gone."""
    status = proc.status(pid)
    uid, gid = (int(status.get(name, "65534").split()[0]) for name in ("Uid", "Gid"))
    groups = tuple(int(word) for word in status.get("Groups", "").split())
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return User(name, uid, gid, groups, {})


def _order(
    chosen: Chosen, command: list[str], path: str, user: str, options: RecordOptions, files: RotationFiles | None
) -> Order:
    from forktrace.launcher.header import header

    main, proc = chosen.pids[0], Proc()
    facts = header(command, main, user, _environment(main)) | {"own": list(options.own), "attached": list(chosen.pids)}
    return Order(
        path=path,
        header=facts | {"cwd": proc.link(f"{main}/cwd") or facts["cwd"]},
        attach=Attaching(chosen.pids, (os.getpid(),), chosen.cgroup, chosen.remarks),
        source=options.source and options.stacks,
        max_size=None if files else options.max_size,
        file=files.number if files else None,
    )


def _stop_on_signals(recorder: RecorderProcess) -> None:
    """Let the signals that ask a process to end end the recording."""

    def stop(number: int, frame: object) -> None:
        recorder.channel.send("stop")

    for number in DETACHING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _until_done(recorder: RecorderProcess, schedule: Schedule, companions: Companions) -> None:
    while recorder not in wait_for_news(recorder, schedule, companions) or not recorder.receive("done"):
        pass
