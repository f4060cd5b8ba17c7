"""The events of a trace: one flat schema, one row an event, and a function per kind that makes such a row.

A process is named by two columns, its number and its start: `(pid, start_ns)` is the process the event is about,
`(by_pid, by_start_ns)` with the thread `by_tid` the one that acted, `(parent_pid, parent_start_ns)` the real parent at
that moment, `(adopter_pid, adopter_start_ns)` who inherits the children. Numbers are those of the recorder's PID
namespace; 0 is a process that cannot be seen from there. A `start_ns` is the kernel's start time of the process
(CLOCK_BOOTTIME ns, the clock of /proc/PID/stat); it is null where only the number is known.

Rows are written in time order within a batch; batches of two flushes may overlap by a few microseconds, so a reader sorts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

Row = dict[str, Any]

KINDS: Final = (
    "fork",  # a thread group was made, or (origin target, attached, adopted) was first followed
    "fork-failed",  # fork, vfork, clone or clone3 of a process returned an error
    "exec",  # a new program runs
    "exit",  # the last thread is gone
    "zombie",  # a parent was notified with the exit signal; again for each parent it is handed to
    "wait",  # a wait call returned a child that it did not reap (stop, continue, WNOWAIT, tracee), or an unknown one
    "reap",  # the zombie was released by a wait, or (call kernel, unseen) without one that was seen
    "autoreap",  # released without a wait: the parent ignores SIGCHLD or set SA_NOCLDWAIT
    "signal",  # a signal that kills or stops reached a followed process
    "oom",  # the kernel's OOM killer chose this process
    "waits",  # running total of wait calls that brought no child, per place or per child
    "runtime",  # a Python interpreter was met: `file`; `detail` is JSON with its version and the directories of its library
    "source",  # the text (`detail`) of line `line` of `file`, on which a frame of a recorded stack stands
    "lost",  # the kernel side could not deliver `count` records of the kind in `detail`
    "end",  # the recording was closed; `detail` is JSON with the totals
    "request",  # a Python process connected to a socket of multiprocessing's (`file`), perhaps to have a fork server fork
)
# What a file of a rotation repeats of those before it, at its beginning: the rows that its processes are known by.
_CARRIED: Final = ("fork", "exec", "exit", "zombie", "signal", "oom", "waits", "runtime", "source", "lost")
CARRIED: Final[Mapping[str, str]] = {f"carried-{kind}": kind for kind in _CARRIED}
STORED_KINDS: Final = (*KINDS, *CARRIED)  # as a file has them; a reader sees the kind, and that it was carried over
# Enumerations grow at their ends. What a file of an older format has of them, by the format: name of the column -> how many.
SHORTER: Final[Mapping[int, Mapping[str, int]]] = {1: {"kind": KINDS.index("request")}, 2: {"kind": len(KINDS)}}

ORIGINS: Final = ("target", "forked", "attached", "adopted")
CALLS: Final = ("fork", "vfork", "clone", "clone3", "wait4", "waitid", "io_uring", "kernel", "unseen")
WAIT_CALLS: Final = CALLS[4:7]
TARGETS: Final = ("pid", "any", "pgid", "pidfd")
DISPOSITIONS: Final = ("default", "handler", "ignored", "nocldwait")
EINTR: Final = 4  # `result` of a wait that a signal ended, or that goes on when the recording ends
ECHILD: Final = 10  # `result` of a wait that found no such child (errno(3))
SENDERS: Final = ("process", "kernel", "oom", "pdeathsig", "pidns")
# Whose code called exit_group: os._exit; Py_Exit; any other, in an interpreter where SystemExit passes Py_Exit or main returns.
EXITS: Final = ("interpreter", "py-exit", "other", "returned")
# `detail` of the exit of a process that was a zombie before it was followed: what is known of its time.
FOUND_DEAD: Final = ("found dead; time at the latest", "found dead; time estimated")
# `detail` of a zombie whose parent was stopped when it began.
PARENT_STOPPED: Final = "parent stopped"
# `detail` of a wait that had not come back when the recording ended. Where it watches a pipe it has no call and no target.
GOES_ON: Final = "goes on"
# What may have been lost where the kernel did not run a probe: an event of any kind, of any process of the machine.
NOT_RUN: Final = "probe not run"
STACK_STATUSES: Final = ("ok", "no-runtime", "no-thread-state", "read-fault", "truncated", "not-python", "lost")

# What a column may hold: a width for integers, a tuple for the values of an enumeration, "text" for strings that repeat
# (a dictionary of their own in each batch), "string" for those that do not.
COLUMNS: Final[Mapping[str, str | tuple[str, ...]]] = {
    "time_ns": "int64",
    "kind": STORED_KINDS,
    "pid": "int32",
    "start_ns": "int64",
    "by_pid": "int32",
    "by_tid": "int32",
    "by_start_ns": "int64",
    "parent_pid": "int32",
    "parent_start_ns": "int64",
    "adopter_pid": "int32",
    "adopter_start_ns": "int64",
    "origin": ORIGINS,
    "call": CALLS,
    "ns_pid": "int32",  # null: the same as pid
    "flags": "int64",  # clone flags of a fork; options of a wait
    "signal": "int32",  # exit signal of a fork (0: none); number of a signal
    "comm": "text",
    "cgroup": "text",
    "file": "string",
    "argv": "string",  # arguments joined by NUL; detail says "argv cut" when longer than 4 KiB
    "status": "int32",  # wait status as the kernel encodes it
    "utime_ns": "int64",
    "stime_ns": "int64",
    "max_rss_kb": "int64",
    "disposition": DISPOSITIONS,  # of SIGCHLD in the parent (exit, zombie, autoreap); of the signal in its target (signal)
    "target": TARGETS,
    "target_pid": "int32",  # as the caller gave it
    "result": "int64",  # errno of a failed call, else 0
    "sent_by": SENDERS,
    "count": "int64",
    "exit_from": EXITS,  # of the exit of a Python process; null: it was killed, or it cannot be told
    "line": "int32",
    "stack": "text",  # folded, as forktrace.trace.stacks makes it
    "stack_status": STACK_STATUSES,
    "detail": "string",
}


def fork(
    time_ns: int,
    pid: int,
    *,
    by: int | None = None,
    by_tid: int | None = None,
    by_start_ns: int | None = None,
    parent: int | None = None,
    parent_start_ns: int | None = None,
    call: str | None = "clone",
    origin: str = "forked",
    flags: int = 17,
    signal: int = 17,
    **more: Any,
) -> Row:
    """A process was made at `time_ns`, which is also its `start_ns` unless `start_ns=` says otherwise.

    `by` is the process whose thread `by_tid` called; the real parent is `by` unless CLONE_PARENT made it `parent`.
    """
    row: Row = {"kind": "fork", "time_ns": time_ns, "pid": pid, "start_ns": time_ns, "origin": origin, "call": call}
    row |= {"flags": flags, "signal": signal} | acting(by, by_tid, by_start_ns)
    row |= {"parent_pid": by if parent is None else parent}
    row |= {"parent_start_ns": by_start_ns if parent is None else parent_start_ns}
    return row | more


def acting(by: int | None, by_tid: int | None = None, by_start_ns: int | None = None) -> Row:
    """The columns of the thread that acted: its main thread unless `by_tid` names another."""
    return {"by_pid": by, "by_tid": by if by_tid is None else by_tid, "by_start_ns": by_start_ns}


def fork_failed(time_ns: int, pid: int, errno: int, *, tid: int | None = None, call: str = "clone", **more: Any) -> Row:
    """A call of process `pid` that should have made a process returned `errno`; `detail`, `count`: the limit, when known."""
    return {"kind": "fork-failed", "time_ns": time_ns, "pid": pid, "by_pid": pid, "by_tid": tid or pid} | {
        "call": call,
        "result": errno,
        **more,
    }


def exec_(time_ns: int, pid: int, argv: list[str], *, file: str | None = None, tid: int | None = None, **more: Any) -> Row:
    """A new program runs; `tid` is the thread that called exec when it was not the leader."""
    row: Row = {"kind": "exec", "time_ns": time_ns, "pid": pid, "by_tid": tid or pid, "argv": "\0".join(argv)}
    return row | {"file": file or argv[0], "comm": (file or argv[0]).rsplit("/", 1)[-1][:15]} | more


def exit_(
    time_ns: int,
    pid: int,
    status: int = 0,
    *,
    parent: int | None = None,
    adopter: int | None = None,
    disposition: str = "default",
    **more: Any,
) -> Row:
    """The last thread is gone; `status` is the wait status, `adopter` inherits the children, if it leaves any."""
    row: Row = {"kind": "exit", "time_ns": time_ns, "pid": pid, "status": status, "parent_pid": parent}
    return row | {"adopter_pid": adopter, "disposition": disposition} | more


def zombie(time_ns: int, pid: int, *, parent: int | None = None, disposition: str = "default", **more: Any) -> Row:
    """`parent` was notified that `pid` died: by the dying process itself, or, when a parent dies, by that parent.

    `count`: how many threads of the parent were in a wait that takes it; null: not known.
    """
    row: Row = {"kind": "zombie", "time_ns": time_ns, "pid": pid, "parent_pid": parent}
    return row | {"disposition": disposition} | more


def reap(
    time_ns: int,
    pid: int | None,
    *,
    by: int | None = None,
    by_tid: int | None = None,
    by_start_ns: int | None = None,
    call: str = "wait4",
    target: str | None = "pid",
    options: int = 0,
    empty: int = 0,
    **more: Any,
) -> Row:
    """The zombie `pid` was released by a wait of `by`; `empty` calls for this very child had come back without it.

    With call `unseen` or `kernel` no wait was seen: `by` is the parent it had, and `time_ns` is an upper bound.
    """
    row: Row = {"kind": "reap", "time_ns": time_ns, "pid": pid, "call": call, "target": target, "flags": options}
    return row | {"target_pid": pid, "count": empty} | acting(by, by_tid, by_start_ns) | more


def wait(time_ns: int, pid: int | None, *, by: int, call: str | None = "wait4", target: str | None = "pid", **more: Any) -> Row:
    """A wait of `by` returned without a known reap: `result` is an errno, `status` that of a stop, or of an exit with WNOWAIT.

    With `detail` GOES_ON it had not returned when the recording ended; `count`: for how many ns its thread had slept.

    `pid` is the child it reports, null when the kernel did not say (waitid without an infop, EFAULT).
    """
    row: Row = {"kind": "wait", "time_ns": time_ns, "pid": pid, "call": call, "target": target, "result": 0, "flags": 0}
    return row | acting(by) | more


def autoreap(time_ns: int, pid: int, disposition: str = "ignored", **more: Any) -> Row:
    """`pid` was released without a wait at `time_ns`, because SIGCHLD was `ignored` or `nocldwait`."""
    return {"kind": "autoreap", "time_ns": time_ns, "pid": pid, "disposition": disposition} | more


def signal(time_ns: int, pid: int, number: int, *, by: int | None = None, sent_by: str = "process", **more: Any) -> Row:
    """Signal `number` reached `pid`; `by` sent it, and is null unless `sent_by` is `process` or `pdeathsig`."""
    row: Row = {"kind": "signal", "time_ns": time_ns, "pid": pid, "signal": number, "sent_by": sent_by}
    return row | {"disposition": "default"} | acting(by) | more


def request(time_ns: int, pid: int, stack: str | None = None, *, tid: int | None = None, **more: Any) -> Row:
    """A thread of `pid` connected to a socket of multiprocessing's; its stack says what for."""
    row: Row = {"kind": "request", "time_ns": time_ns, "pid": pid, "file": "/tmp/pymp-a/listener-b"} | acting(pid, tid)
    return row | {"stack": stack, "stack_status": "ok" if stack else None} | more


def oom(time_ns: int, pid: int, **more: Any) -> Row:
    """The OOM killer chose `pid`: it sent the kernel's SIGKILL just before."""
    return {"kind": "oom", "time_ns": time_ns, "pid": pid} | more


def waits(time_ns: int, count: int, *, pid: int | None = None, by: int | None = None, result: int = 0, **more: Any) -> Row:
    """Running total: `count` wait calls of `by` at one place ended with `result` (0 empty, 4 EINTR, 10 ECHILD).

    With `pid` and no `by`: the empty calls for that very child so far, when it was still alive at the end.
    """
    row: Row = {"kind": "waits", "time_ns": time_ns, "pid": pid, "result": result, "count": count}
    return row | acting(by) | more


def runtime(time_ns: int, file: str, version: str, libraries: list[str], not_walked: str = "", **more: Any) -> Row:
    """An interpreter was met: its shared library or executable, `3.11.7`, and where its standard library is.

    `not_walked`: why its stacks are not walked; then its version and library are not said.
    """
    found = {"version": version, "libraries": libraries} | ({"not_walked": not_walked} if not_walked else {})
    return {"kind": "runtime", "time_ns": time_ns, "file": file, "detail": json.dumps(found)} | more


def source(time_ns: int, file: str, line: int, text: str) -> Row:
    """Line `line` of `file` reads `text`, stripped; `file` is as the frames of the stacks spell it."""
    return {"kind": "source", "time_ns": time_ns, "file": file, "line": line, "detail": text}


def lost(time_ns: int, count: int, what: str) -> Row:
    """`count` records of kind `what` could not be delivered since the last such row, or since the start."""
    return {"kind": "lost", "time_ns": time_ns, "count": count, "detail": what}


def end(time_ns: int, totals: str = "{}") -> Row:
    """The recording was closed; `totals` is JSON. A trace without this row was cut off."""
    return {"kind": "end", "time_ns": time_ns, "detail": totals}
