"""Every event as one row, in words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pandas as pd

from forktrace.analysis.history import History
from forktrace.analysis.log import NONE, Ints, Log, category, nullable, texts
from forktrace.analysis.options import WNOWAIT, option_names
from forktrace.trace import events
from forktrace.trace.waitstatus import decode, signal_name

KINDS: Final = (*events.KINDS, "reparent")

_ERRORS: Final = {
    1: "EPERM",
    3: "ESRCH",
    4: "EINTR",
    9: "EBADF",
    10: "ECHILD",
    11: "EAGAIN",
    12: "ENOMEM",
    14: "EFAULT",
    16: "EBUSY",
    17: "EEXIST",
    22: "EINVAL",
    28: "ENOSPC",
    38: "ENOSYS",
    512: "ERESTARTSYS",
    513: "ERESTARTNOINTR",
}


def errno_name(number: int) -> str:
    """Return `EAGAIN` for 11, as Linux numbers them wherever this runs; `errno 99` where no fork or wait returns it."""
    return _ERRORS.get(number, f"errno {number}")


def status_words(status: int) -> str:
    """Return a wait status in words: `exited 1`, `killed by SIGSEGV, core dumped`, `stopped by SIGSTOP`, `continued`."""
    if status == 0xFFFF:
        return "continued"
    if status & 0xFF == 0x7F:
        return f"stopped by {signal_name(status >> 8 & 0x7F)}"
    try:
        code, number, core = decode(status)
    except ValueError:
        return f"status {status:#x}"
    if number is None:
        return f"exited {code}"
    return f"killed by {signal_name(number)}" + (", core dumped" if core else "")


def event_table(history: History) -> pd.DataFrame:
    """Return one row per event, in time order, with the reparenting that follows from the parents' deaths as kind `reparent`.

    What a file of a rotation repeats of earlier ones is left out.

    Columns:
        time_ns                 int64, ns  when it happened
        kind                    category   docs/trace-format.md says exactly when
        id                      Int64      the process it is about; `<NA>`: none, or one outside the recording
        by_id, by_pid, by_tid   Int64      the process and the thread that acted; of a reparent the adopter
        call                    category   `clone`, `wait4`, ...
        status                  Int64      the wait status as the kernel encodes it
        site, stack             string     where the acting thread was; for an exit the thread that called it
        detail                  string     the rest in words
    """
    log, known = history.log, history.parents
    recorded, derived = len(log.time_ns), len(known.step_ns)
    nothing = np.full(derived, NONE)
    time_ns = np.concatenate([log.time_ns, known.step_ns])
    named = log.numbers("by_pid") != NONE
    rows = np.concatenate([np.arange(recorded), nothing])
    acting = np.concatenate([np.where(log.is_kind("exit"), log.id, log.by_id), nothing])
    by_tid = np.where(named, log.numbers("by_tid"), NONE)
    table = pd.DataFrame(
        {
            "time_ns": time_ns,
            "kind": category(np.concatenate([log.kind, np.full(derived, len(events.KINDS))]), KINDS),
            "id": nullable(np.concatenate([log.id, known.child_id])),
            "by_id": nullable(np.concatenate([log.by_id, known.new_id])),
            "by_pid": nullable(np.concatenate([log.numbers("by_pid"), known.new_pid])),
            "by_tid": nullable(np.concatenate([by_tid, nothing])),
            "call": category(np.concatenate([log.numbers("call"), nothing]), events.CALLS),
            "status": nullable(np.concatenate([log.numbers("status"), nothing])),
            "site": history.sites.sites(rows, acting),
            "stack": history.sites.stack_texts(rows),
            "detail": texts([*_details(history), *_handings_over(history)]),
        }
    )
    new = np.concatenate([~log.carried, known.step_ns >= (log.trace.header["start_ns"] if log.carried.any() else 0)])
    order = np.argsort(time_ns, kind="stable")
    in_order: pd.DataFrame = table.iloc[order[new[order]]].reset_index(drop=True)
    return in_order


def _details(history: History) -> list[Any]:
    """The words of each row of the trace."""
    log = history.log
    words: list[Any] = [pd.NA] * len(log.time_ns)
    for kind, describe in _DESCRIBERS.items():
        rows = log.rows(kind)
        for row, text in zip(rows.tolist(), describe(log, rows), strict=True):
            words[row] = text or pd.NA
    return words


def _handings_over(history: History) -> Iterator[str]:
    known = history.parents
    for old, new in zip(known.old_id.tolist(), known.new_pid.tolist(), strict=True):
        yield f"from {history.log.pid[old]} to {new}"


def _texts(log: Log, column: str, rows: Ints) -> list[Any]:
    """The strings of a column, None where there is none."""
    return [None if text is pd.NA else text for text in log.texts(column, rows).tolist()]


def _integers(log: Log, columns: tuple[str, ...], rows: Ints) -> Iterator[tuple[int, ...]]:
    return zip(*(log.at(column, rows).tolist() for column in columns), strict=True)


def _fork(log: Log, rows: Ints) -> Iterator[str]:
    origins = log.at("origin", rows).tolist()
    numbers = _integers(log, ("pid", "ns_pid", "by_pid", "parent_pid", "signal"), rows)
    for origin, (pid, ns_pid, by_pid, parent_pid, signal) in zip(origins, numbers, strict=True):
        parts = [] if origin in (NONE, events.ORIGINS.index("forked")) else [events.ORIGINS[origin]]
        parts += [f"sees itself as {ns_pid}"] if ns_pid not in (NONE, pid) else []
        parts += [f"child of {parent_pid}"] if parent_pid not in (NONE, by_pid) else []
        parts += [f"exit signal {signal_name(signal) if signal else 'none'}"] if signal not in (NONE, 17) else []
        yield ", ".join(parts)


def _fork_failed(log: Log, rows: Ints) -> Iterator[str]:
    for (result, most), limit in zip(_integers(log, ("result", "count"), rows), _texts(log, "detail", rows), strict=True):
        value = "" if most == NONE else f" of {most:,}"
        yield errno_name(result) + (f" ({limit}{value})" if limit else "")


def _exec(log: Log, rows: Ints) -> Iterator[str]:
    for argv, file, cut in zip(*(_texts(log, name, rows) for name in ("argv", "file", "detail")), strict=True):
        yield (file or "" if argv is None else shlex.join(argv.split("\0"))) + (" ..." if cut == "argv cut" else "")


def _exit(log: Log, rows: Ints) -> Iterator[str]:
    for (status,) in _integers(log, ("status",), rows):
        yield "status not known" if status == NONE else status_words(status)


def _zombie(log: Log, rows: Ints) -> Iterator[str]:
    stopped = [text == events.PARENT_STOPPED for text in _texts(log, "detail", rows)]
    for (parent, waiters), is_stopped in zip(_integers(log, ("parent_pid", "count"), rows), stopped, strict=True):
        words = f"parent {parent} notified" if parent != NONE else "parent notified"
        yield words + (", which waits for it" if waiters > 0 else "") + (", which is stopped" if is_stopped else "")


def _wait(log: Log, rows: Ints) -> Iterator[str]:
    numbers = _integers(log, ("pid", "result", "status", "flags"), rows)
    going = [text == events.GOES_ON for text in _texts(log, "detail", rows)]
    for call, goes_on, (pid, result, status, flags) in zip(wait_words(log, rows), going, numbers, strict=True):
        if goes_on:
            yield f"{call} had not come back when the recording ended"
        elif result > 0:
            yield f"{call} = {errno_name(result)}"
        elif pid == NONE:
            yield f"{call}, which child is not known"
        else:
            kept = ", left a zombie" if flags != NONE and flags & WNOWAIT else ""
            yield f"{call} saw {pid}" + (f" {status_words(status)}" if status != NONE else "") + kept


def wait_words(log: Log, rows: Ints) -> Iterator[str]:
    """Yield each wait as `wait4(500, WNOHANG)`; `any`, `pgid` or `pidfd` stands for the child when that was asked for."""
    options = option_names(log.at("flags", rows), log.at("call", rows)).tolist()
    calls, targets = log.at("call", rows).tolist(), log.at("target", rows).tolist()
    for call, target, (number,), option in zip(calls, targets, _integers(log, ("target_pid",), rows), options, strict=True):
        what = "?" if target == NONE else events.TARGETS[target]
        arguments = [str(number) if what == "pid" and number != NONE else what, "" if option is pd.NA else option]
        yield f"{'wait' if call == NONE else events.CALLS[call]}({', '.join(filter(None, arguments))})"


def _reap(log: Log, rows: Ints) -> Iterator[str]:
    silent = {events.CALLS.index("unseen"): "not seen, released before this", events.CALLS.index("kernel"): "by the kernel"}
    calls = log.at("call", rows).tolist()
    for call, words, (count,) in zip(calls, wait_words(log, rows), _integers(log, ("count",), rows), strict=True):
        yield silent.get(call, words) + (f" after {count} empty calls" if count > 0 else "")


def _autoreap(log: Log, rows: Ints) -> Iterator[str]:
    words = {events.DISPOSITIONS.index("ignored"): "SIGCHLD is ignored", events.DISPOSITIONS.index("nocldwait"): "SA_NOCLDWAIT"}
    for disposition in log.at("disposition", rows).tolist():
        yield words.get(disposition, "")


def _signal(log: Log, rows: Ints) -> Iterator[str]:
    senders = log.at("sent_by", rows).tolist()
    for sender, (number,) in zip(senders, _integers(log, ("signal",), rows), strict=True):
        yield signal_name(number) + (f" from {events.SENDERS[sender]}" if sender > 0 else "")


def _waits(log: Log, rows: Ints) -> Iterator[str]:
    words = {0: "empty", 4: "interrupted", 10: "no child"}
    for call, (result, count) in zip(wait_words(log, rows), _integers(log, ("result", "count"), rows), strict=True):
        yield f"{call}: {count} {'call' if count == 1 else 'calls'} so far, {words.get(result) or errno_name(result)}"


def _lost(log: Log, rows: Ints) -> Iterator[str]:
    for (count,), what in zip(_integers(log, ("count",), rows), _texts(log, "detail", rows), strict=True):
        yield f"{count} {what or 'events'}"


def _runtime(log: Log, rows: Ints) -> Iterator[str]:
    for file, found in zip(_texts(log, "file", rows), map(_object, _texts(log, "detail", rows)), strict=True):
        why = f"(not walked: {found['not_walked']})" if found.get("not_walked") else ""
        yield " ".join(filter(None, ("Python", str(found.get("version") or ""), f"in {file}" if file else "", why)))


def not_walked(log: Log) -> list[tuple[str, str]]:
    """Return the interpreters that were met and whose stacks are not walked: file, and why; sorted."""
    rows = log.rows("runtime")
    met = zip(_texts(log, "file", rows), map(_object, _texts(log, "detail", rows)), strict=True)
    return sorted({(str(file), str(why)) for file, found in met if (why := found.get("not_walked"))})


def _source(log: Log, rows: Ints) -> Iterator[str]:
    for file, (line,), text in zip(
        _texts(log, "file", rows), _integers(log, ("line",), rows), _texts(log, "detail", rows), strict=True
    ):
        yield f"{file}:{line}  {text or ''}"


def _end(log: Log, rows: Ints) -> Iterator[str]:
    for totals in map(_object, _texts(log, "detail", rows)):
        lost = totals.get("lost")
        parts = {"processes": totals.get("processes"), "still running": totals.get("still_running")}
        parts |= {f"{what} lost": number for what, number in (lost if isinstance(lost, dict) else {}).items()}
        yield ", ".join(f"{number} {what}" for what, number in parts.items() if isinstance(number, int))


def _object(text: str | None) -> dict[str, Any]:
    """The JSON object in a detail; {} where there is none."""
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _request(log: Log, rows: Ints) -> Iterator[str]:
    for address in _texts(log, "file", rows):
        yield f"connected to {address}" if address else ""


_DESCRIBERS: Final[dict[str, Callable[[Log, Ints], Iterator[Any]]]] = {
    "fork": _fork,
    "fork-failed": _fork_failed,
    "exec": _exec,
    "exit": _exit,
    "zombie": _zombie,
    "wait": _wait,
    "reap": _reap,
    "autoreap": _autoreap,
    "signal": _signal,
    "waits": _waits,
    "runtime": _runtime,
    "source": _source,
    "lost": _lost,
    "end": _end,
    "request": _request,
}
