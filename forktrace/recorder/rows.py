"""Turns records of the ring buffer into columns of a trace, as whole arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from forktrace.kernel.bpf_maps import BUSY, DISCARDED, HEADER_BYTES, Records, record_words
from forktrace.kernel.layout import layouts
from forktrace.kernel.probes import EVENTS, RING_KINDS
from forktrace.recorder.stack_table import StackTable
from forktrace.trace.batches import Column
from forktrace.trace.events import FOUND_DEAD, KINDS, ORIGINS, PARENT_STOPPED

NONE: Final = 255  # of an enumeration: not known
_STRUCT_OF: Final = {
    "fork": "fork_record",
    "fork-failed": "fork_failed_record",
    "exec": "exec_record",
    "exit": "exit_record",
    "zombie": "zombie_record",
    "wait": "wait_record",
    "reap": "wait_record",
    "autoreap": "autoreap_record",
    "signal": "signal_record",
    "oom": "signal_record",
    "request": "request_record",
}
KIND_AT: Final = 8  # bytes into every record, whichever struct it is
PIECE_BYTES: Final = 4 << 20
TEXT_BYTES: Final = 32 << 20
MOMENTS: Final = {"AS_SEEN": None, "AT_THE_LATEST": FOUND_DEAD[0], "ESTIMATED": FOUND_DEAD[1]}  # enum moment, in its order
_MOMENTS: Final = tuple(MOMENTS.values())
JOINED: Final = (ORIGINS.index("attached"), ORIGINS.index("adopted"))
_EAGAIN: Final = 11  # a limit was met


@cache
def layout() -> Mapping[str, np.dtype[Any]]:
    """Return the numpy type of the records of each kind."""
    return {kind: layouts()[name] for kind, name in _STRUCT_OF.items()}


def pieces(chunk: bytes, most: int = PIECE_BYTES) -> Iterator[bytes]:
    """Split data of the ring buffer into pieces of whole records: processing a piece takes many times its memory."""
    words, start, at = memoryview(chunk).cast("I"), 0, 0
    while at < len(words):
        at += record_words(words[at])
        if (at - start) * 4 >= most or at >= len(words):
            yield chunk[start * 4 : at * 4]
            start = at


def split(chunk: bytes) -> tuple[dict[str, Records], dict[str, list[bytes]]]:
    """Return the events in `chunk` by kind, in ring order, and the other records; of `argv` only what was sent is valid."""
    found = _by_kind(chunk)
    padded = chunk + bytes(layout()["exec"].itemsize)
    events = {kind: _gather(padded, [start for start, _ in found[kind]], layout()[kind]) for kind in EVENTS if found[kind]}
    return events, {kind: [chunk[start:end] for start, end in found[kind]] for kind in RING_KINDS[len(EVENTS) :]}


def _by_kind(chunk: bytes) -> dict[str, list[tuple[int, int]]]:
    """The ranges of the records of each kind."""
    words = memoryview(chunk).cast("I")
    found: list[list[tuple[int, int]]] = [[] for _ in RING_KINDS]
    at = 0
    while at < len(words):
        length = words[at]
        if not length & (DISCARDED | BUSY):
            start = at * 4 + HEADER_BYTES
            found[words[(start + KIND_AT) // 4]].append((start, start + length))
        at += record_words(length)
    return dict(zip(RING_KINDS, found, strict=True))


def _gather(data: bytes, starts: list[int], kind: np.dtype[Any]) -> Records:
    from_each_byte = np.ndarray((len(data) - kind.itemsize + 1, kind.itemsize), np.uint8, data, strides=(1, 1))
    rows: Records = from_each_byte[starts].view(kind)[:, 0]
    return rows


class Columns:
    """The columns of one batch under construction: parts of a kind are added, then sorted by time."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._values: dict[str, npt.NDArray[Any]] = {}
        self._valid: dict[str, npt.NDArray[np.bool_]] = {}
        self._texts: dict[str, list[str | None]] = {}

    def put(self, part: slice, name: str, values: Any, valid: Any = True) -> None:
        """Set the integers or enumeration indexes of column `name` for the rows of `part`."""
        if name not in self._values:
            self._values[name] = np.zeros(self.rows, np.int64)
            self._valid[name] = np.zeros(self.rows, np.bool_)
        self._values[name][part] = values
        self._valid[name][part] = valid

    def put_text(self, part: slice, name: str, values: list[str | None]) -> None:
        """Set the strings of column `name` for the rows of `part`."""
        self._texts.setdefault(name, [None] * self.rows)[part] = values

    def finish(self) -> dict[str, Column]:
        """Return the columns, sorted by time."""
        order = np.argsort(self._values["time_ns"], kind="stable")
        done: dict[str, Column] = {name: (values[order], self._valid[name][order]) for name, values in self._values.items()}
        return done | {name: [texts[index] for index in order] for name, texts in self._texts.items()}


def in_parts(columns: dict[str, Column], rows: int, most: int = TEXT_BYTES) -> Iterator[tuple[dict[str, Column], int]]:
    """Yield the columns whole, or in parts that hold fewer characters than `most`, and the number of rows of each."""
    held = 0
    for column in columns.values():
        if isinstance(column, list):
            held += sum(map(len, filter(None, set(column))))
    if held <= most or rows < 2:
        yield columns, rows
        return
    for part in (slice(0, rows // 2), slice(rows // 2, rows)):
        yield from in_parts({name: _cut(column, part) for name, column in columns.items()}, part.stop - part.start, most)


def _cut(column: Column, part: slice) -> Column:
    if not isinstance(column, tuple):
        return column[part]
    values, valid = column
    return values[part], None if valid is None else valid[part]


def columns_of(
    records: Mapping[str, Records],
    cgroup: Callable[[int, int], str | None],
    argv: Callable[[int, int], str | None],
    pid_ns: int,
    stacks: StackTable,
) -> tuple[dict[str, Column], int]:
    """Return the trace's columns for `records`, sorted by time, and the number of rows.

    `cgroup(id, pid)` names a control group, `argv(pid, start_ns)` the arguments, with NUL between them, of a process that no
    exec was seen of; `pid_ns` is the inode number of the recorder's PID namespace.
    """
    rows = sum(map(len, records.values()))
    if not rows:
        return {}, 0
    columns = Columns(rows)
    start = 0
    for kind, part in records.items():
        where = slice(start, start + len(part))
        start += len(part)
        _put_head(columns, where, kind, part["head"])
        _put_stack(columns, where, part["head"], stacks)
        if kind in ("fork", "exec"):
            ids = zip(part["cgroup_id"].tolist(), part["head"]["process"]["pid"].tolist(), strict=True)
            columns.put_text(where, "cgroup", [cgroup(*one) for one in ids])
        if kind == "fork" and (joined := np.isin(part["origin"], JOINED)).any():
            who = zip(joined.tolist(), part["head"]["process"][["pid", "start_ns"]].tolist(), strict=True)
            columns.put_text(where, "argv", [argv(*one) if is_joined else None for is_joined, one in who])
        _FILL[kind](columns, where, part, pid_ns)
    return columns.finish(), rows


def _put_head(columns: Columns, where: slice, kind: str, head: Records) -> None:
    columns.put(where, "time_ns", head["time_ns"])
    columns.put(where, "kind", KINDS.index(kind))
    _put_who(columns, where, "", head["process"])
    _put_who(columns, where, "by_", head["by"])
    columns.put(where, "by_tid", head["by"]["tid"], head["by"]["tid"] != 0)


def _put_stack(columns: Columns, where: slice, head: Records, stacks: StackTable) -> None:
    if (head["stack_status"] == NONE).all():
        return
    texts, statuses = stacks.texts(head["stack"], head["stack_status"])
    columns.put_text(where, "stack", texts)
    _put_enum(columns, where, "stack_status", statuses)


def _put_who(columns: Columns, where: slice, prefix: str, who: Records) -> None:
    known = who["start_ns"] != 0
    columns.put(where, f"{prefix}pid", who["pid"], known)
    columns.put(where, f"{prefix}start_ns", who["start_ns"], known)


def _put_enum(columns: Columns, where: slice, name: str, values: Any) -> None:
    columns.put(where, name, np.where(values == NONE, 0, values), values != NONE)


def _texts(values: npt.NDArray[np.bytes_]) -> list[str | None]:
    return [value.partition(b"\0")[0].decode("utf-8", "backslashreplace") for value in values.tolist()]


def _fork(columns: Columns, where: slice, part: Records, pid_ns: int) -> None:
    _put_who(columns, where, "parent_", part["parent"])
    columns.put(where, "flags", part["flags"].astype(np.int64))
    columns.put(where, "signal", part["exit_signal"])
    own = part["ns_pids"][:, -1]
    columns.put(where, "ns_pid", own, own != part["head"]["process"]["pid"])
    _put_enum(columns, where, "origin", part["origin"])
    _put_enum(columns, where, "call", part["call"])
    columns.put_text(where, "comm", _texts(part["comm"]))


def _fork_failed(columns: Columns, where: slice, part: Records, pid_ns: int) -> None:
    columns.put(where, "result", part["error"])
    _put_enum(columns, where, "call", part["call"])
    limits = [_limit(one) for one in part]
    columns.put_text(where, "detail", [name for name, _ in limits])
    columns.put(where, "count", [most for _, most in limits], [name is not None for name, _ in limits])


def _limit(failed: Any) -> tuple[str | None, int]:
    """Return the limit that a failed fork met and its value; None: not known. The kernel looks at them in this order."""
    if failed["error"] != _EAGAIN:
        return None, 0
    if 0 < failed["tasks_max"] <= failed["tasks"]:
        return "RLIMIT_NPROC", int(failed["tasks_max"])
    if failed["cgroup_pids_max"]:
        return "pids.max", int(failed["cgroup_pids_max"])
    reserved = 300  # numbers below are not reused (RESERVED_PIDS)
    if failed["ns_pids_max"] and failed["ns_pids"] + reserved >= failed["ns_pids_max"]:
        return "pid_max", int(failed["ns_pids_max"])
    return None, 0


def _exec(columns: Columns, where: slice, part: Records, pid_ns: int) -> None:
    columns.put_text(where, "comm", _texts(part["comm"]))
    columns.put_text(where, "file", _texts(part["file"]))
    most = layout()["exec"]["argv"].itemsize
    raw = np.ascontiguousarray(part["argv"]).view(np.uint8).reshape(len(part), most)
    sizes = np.minimum(part["argv_bytes"], most - 1).tolist()
    arguments = [row[:size].tobytes().removesuffix(b"\0") for row, size in zip(raw, sizes, strict=True)]
    columns.put_text(where, "argv", [value.decode("utf-8", "backslashreplace") for value in arguments])
    columns.put_text(where, "detail", ["argv cut" if size >= most else None for size in part["argv_bytes"].tolist()])


def _exit(columns: Columns, where: slice, part: Records, pid_ns: int) -> None:
    _put_who(columns, where, "parent_", part["parent"])
    _put_who(columns, where, "adopter_", part["adopter"])
    columns.put(where, "status", part["status"] & 0xFFFF)
    utime, stime = cpu_times(part["utime_ticks_ns"], part["stime_ticks_ns"], part["runtime_ns"])
    columns.put(where, "utime_ns", utime)
    columns.put(where, "stime_ns", stime)
    columns.put(where, "max_rss_kb", part["max_rss_pages"] * 4)
    _put_enum(columns, where, "disposition", part["disposition"])
    _put_enum(columns, where, "exit_from", part["exit_from"])
    columns.put_text(where, "comm", _texts(part["comm"]))
    columns.put_text(where, "detail", [_MOMENTS[moment] for moment in part["moment"].tolist()])


def cpu_times(utime_ticks: Any, stime_ticks: Any, runtime: Any) -> tuple[Any, Any]:
    """Return user and system time in ns: the exact run time, split as the sampled ticks are (the kernel's cputime_adjust)."""
    ticks = utime_ticks.astype(np.float64) + stime_ticks
    share = np.where(stime_ticks == 0, 0.0, np.where(utime_ticks == 0, 1.0, stime_ticks / np.maximum(ticks, 1)))
    stime = (runtime * share).astype(np.int64)
    return runtime.astype(np.int64) - stime, stime


def _zombie(columns: Columns, where: slice, part: Records, pid_ns: int) -> None:
    _put_who(columns, where, "parent_", part["parent"])
    _put_enum(columns, where, "disposition", part["disposition"])
    columns.put(where, "count", part["waiters"], part["waiters"] != NONE)
    columns.put_text(where, "detail", [PARENT_STOPPED if stopped else None for stopped in part["stopped"].tolist()])


def _wait(columns: Columns, where: slice, part: Records, pid_ns: int) -> None:
    nameless = (part["head"]["process"]["start_ns"] == 0) & (part["ns"] == pid_ns) & (part["ns_pid"] != 0)
    known = part["head"]["process"]["start_ns"] != 0
    columns.put(where, "pid", np.where(nameless, part["ns_pid"], part["head"]["process"]["pid"]), known | nameless)
    _put_enum(columns, where, "call", part["call"])
    _put_enum(columns, where, "target", part["target"])
    columns.put(where, "flags", part["options"], part["target"] != NONE)
    columns.put(where, "target_pid", part["target_pid"], part["target"] != NONE)
    columns.put(where, "status", part["status"] & 0xFFFF, part["has_status"] != 0)
    columns.put(where, "result", part["error"])
    columns.put(where, "count", part["empty_waits"])


def _autoreap(columns: Columns, where: slice, part: Records, pid_ns: int) -> None:
    _put_who(columns, where, "parent_", part["parent"])
    columns.put(where, "count", part["empty_waits"])
    _put_enum(columns, where, "disposition", part["disposition"])


def _signal(columns: Columns, where: slice, part: Records, pid_ns: int) -> None:
    columns.put(where, "signal", part["signal"])
    _put_enum(columns, where, "disposition", part["disposition"])
    _put_enum(columns, where, "sent_by", part["sent_by"])


def _request(columns: Columns, where: slice, part: Records, pid_ns: int) -> None:
    columns.put_text(where, "file", [_address(raw) for raw in part["address"].tolist()])


def _address(raw: bytes) -> str:
    """A socket's address as ss(8) shows it: `@` for the zero byte that an abstract one begins with."""
    path = b"@" + raw[1:] if raw.startswith(b"\0") else raw.partition(b"\0")[0]
    return path.decode("utf-8", "backslashreplace").replace("\0", "@")


_FILL: Final = {
    "fork": _fork,
    "fork-failed": _fork_failed,
    "exec": _exec,
    "exit": _exit,
    "zombie": _zombie,
    "wait": _wait,
    "reap": _wait,
    "autoreap": _autoreap,
    "signal": _signal,
    "oom": _signal,
    "request": _request,
}
