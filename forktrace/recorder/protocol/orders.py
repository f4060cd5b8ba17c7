"""The orders of the launcher to the recorder, in two messages, checked where they arrive: anybody can have sent them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

from forktrace.errors import ForktraceError, TraceError

PID_MOST: Final = 1 << 22  # of any kernel (proc(5), pid_max)
PIDS_MOST: Final = 16_000  # there is room for 16,384 in the probes

_Order = TypeVar("_Order")


@dataclass(frozen=True)
class Arming:
    """What is to be recorded in general, before anything is known of the target.

    Attributes:
        stacks: Python stacks too
        attach: processes that run already
        rotates: to many files
        path: the PATH on which interpreters are expected
        words, live: whether sentences, and the line with the progress, are wanted
    """

    stacks: bool
    attach: bool
    rotates: bool
    path: str
    words: bool
    live: bool


@dataclass(frozen=True)
class Attaching:
    """Which processes are meant that run already.

    Attributes:
        pids: their numbers, the main one first
        never: those that are not to be recorded though they descend from one
        cgroup: the directory whose processes they are; those that come to it later are meant too
        remarks: what is to be said of how they were found
    """

    pids: tuple[int, ...]
    never: tuple[int, ...]
    cgroup: str | None
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """One recording. With it come descriptors: that of the trace.

    Attributes:
        path: what the trace is called; `-` is standard output
        header: that of the trace
        pid: the target, held before its exec; 0: `attach` says what is recorded
        attach: processes that run already; None: a target is
        program, search: the target's program, and the PATH by which its interpreter is found
        source: whether the text of source lines is wanted
        max_size: of the trace in bytes; None: none
        file: the number of the first file of a rotation; None: there is one file
    """

    path: str
    header: dict[str, Any]
    pid: int = 0
    attach: Attaching | None = None
    program: str | None = None
    search: str = ""
    source: bool = False
    max_size: int | None = None
    file: int | None = None


@dataclass(frozen=True)
class Next:
    """The next file of a rotation; with it comes its descriptor. `path`: what it is called."""

    path: str


def encoded(order: Arming | Order) -> dict[str, Any]:
    """Return an order as JSON has it."""
    return asdict(order)


def decoded(kind: type[_Order], message: object) -> _Order:
    """Return the order that a message holds.

    Raises:
        ForktraceError: it holds none; the message says what is wrong with it.
    """
    made = _decoded(kind, message, kind.__name__.lower())
    if isinstance(made, Order):
        if (made.attach is None) == (made.pid <= 0):
            raise _wrong("it names neither a target nor what to attach to, or both")
        pids = [made.pid, *(made.attach.pids + made.attach.never if made.attach else ())]
        if wrong := [pid for pid in pids if not 0 <= pid <= PID_MOST]:
            raise _wrong(f"{wrong[0]} is the number of no process")
        if len(pids) > PIDS_MOST:
            raise _wrong(f"it names more than {PIDS_MOST:,} processes")
        from forktrace.trace import checks  # the launcher, which decodes nothing, is to stay small

        try:
            checks.header_of(json.dumps({"format": checks.FORMAT, **made.header}).encode(), "the order")
        except TraceError as error:
            raise _wrong(str(error)) from None
    return made


def _decoded(kind: type[_Order], message: object, name: str) -> _Order:
    if not isinstance(message, Mapping):
        raise _wrong(f"{name} is no object")
    hints = get_type_hints(kind)
    values = {}
    for one in fields(kind):  # type: ignore[arg-type]
        if one.name not in message:
            raise _wrong(f"{name} has no {one.name}")
        values[one.name] = _value(hints[one.name], message[one.name], f"{name}.{one.name}")
    return kind(**values)


def _value(kind: Any, value: object, name: str) -> Any:
    """Return a value if it is of the kind that the field is declared with."""
    if isinstance(kind, UnionType):
        if value is None:
            return None
        (kind,) = (one for one in get_args(kind) if one is not type(None))
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise _wrong(f"{name} is no list")
        return tuple(_value(get_args(kind)[0], one, name) for one in value)
    if get_origin(kind) is dict:
        kind = dict
    if hasattr(kind, "__dataclass_fields__"):
        return _decoded(kind, value, name)
    if type(value) is not kind or (kind is int and not -1 <= value < 1 << 62):  # type: ignore[operator]
        raise _wrong(f"{name} is {value!r:.40}")
    if isinstance(value, str):
        try:
            is_name = b"\0" not in os.fsencode(value)
        except UnicodeEncodeError:
            is_name = False
        if not is_name:
            raise _wrong(f"{name} is no text: {value!r:.40}")
    return value


def _wrong(what: str) -> ForktraceError:
    return ForktraceError(f"this is no launcher of this forktrace: {what}", "use forktrace record")
