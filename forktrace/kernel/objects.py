"""The compiled probes: instructions with marked places, into which a loader puts what differs from kernel to kernel.

One object serves every kernel and both processors (docs/decisions/0008). It is made by bcc (`make object`), lies beside the
sources, and is used only where it was made of these very sources. The marks are those of probes/kernel.bpf.h.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from forktrace.errors import ForktraceError

OBJECT: Final = "probes.object"
FORMAT: Final = "forktrace probes, format 1"
OBJECT_BYTES_MOST: Final = 8 << 20
SHARED: Final = "shared_"  # prefix of the functions that programs call

INSTRUCTION: Final = np.dtype([("op", "u1"), ("registers", "u1"), ("offset", "<i2"), ("value", "<i4")])
LOAD_64, CALL = 0x18, 0x85  # include/uapi/linux/bpf.h: BPF_LD | BPF_DW | BPF_IMM, over two instructions; BPF_JMP | BPF_CALL
FROM_MAP, FROM_FUNCTION = 1, 1  # source registers: BPF_PSEUDO_MAP_FD of the first, BPF_PSEUDO_CALL of the second
FACT_MARK: Final = 0x666F726B  # the upper half of a number; the lower half is the number of the fact
CALL_MARK: Final = 0x5AFE0000  # plus the number of the function

Instructions = npt.NDArray[np.void]


class MapSpec(NamedTuple):
    """A map: as bpf(2) wants it."""

    name: str
    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


class Place(NamedTuple):
    """A marked instruction: the `number`-th `what` goes there."""

    at: int
    what: str
    number: int


@dataclass(frozen=True)
class ProbesObject:
    """The compiled probes.

    Attributes:
        functions: name -> instructions; those of programs, and those they share (`shared_...`)
        maps: in the order of their numbers
        facts: names, in the order of their numbers
        digest: of the sources
        made_by: the compiler
    """

    functions: Mapping[str, bytes]
    maps: tuple[MapSpec, ...]
    facts: tuple[str, ...]
    digest: str
    made_by: str

    @property
    def shared(self) -> tuple[str, ...]:
        """The functions that programs share, in the order of their numbers."""
        return tuple(name for name in self.functions if name.startswith(SHARED))

    def places(self, name: str) -> list[Place]:
        """Return the marked places of a function.

        Raises:
            ForktraceError: a mark names nothing.
        """
        code = instructions(self.functions[name])
        loads, calls = np.flatnonzero(code["op"] == LOAD_64), np.flatnonzero(code["op"] == CALL)
        found = [Place(int(at), "map", int(code["value"][at])) for at in loads if code["registers"][at] >> 4 == FROM_MAP]
        facts = [at for at in loads if code["registers"][at] >> 4 == 0 and code["value"][at + 1] == FACT_MARK]
        found += [Place(int(at), "fact", int(code["value"][at])) for at in facts]
        marked = [at for at in calls if code["value"][at] & ~0xFFFF == CALL_MARK]
        found += [Place(int(at), "function", int(code["value"][at]) & 0xFFFF) for at in marked]
        most = {"map": len(self.maps), "fact": len(self.facts), "function": len(self.shared)}
        if wrong := next((one for one in found if not 0 <= one.number < most[one.what]), None):
            raise ForktraceError(f"the compiled probes are damaged: {name} has no {wrong.what} {wrong.number}", "make object")
        return sorted(found)

    def to_bytes(self) -> bytes:
        """Return the content of the file: a line with the format, a line of JSON, the instructions."""
        code = b"".join(self.functions.values())
        head = {
            "digest": self.digest,
            "made_by": self.made_by,
            "code": hashlib.sha256(code).hexdigest(),
            "maps": self.maps,
            "facts": self.facts,
            "functions": {name: len(code) // INSTRUCTION.itemsize for name, code in self.functions.items()},
            "places": {name: self.places(name) for name in self.functions},
        }
        return b"\n".join([FORMAT.encode(), json.dumps(head).encode(), code])


def instructions(code: bytes) -> Instructions:
    """Return instructions as an array that can be written to."""
    return np.frombuffer(code, INSTRUCTION).copy()


def from_bytes(data: bytes) -> ProbesObject:
    """Return the object that a file holds.

    Raises:
        ForktraceError: it holds none, or a damaged one.
    """
    try:
        name, head, code = data.split(b"\n", 2)
        if name != FORMAT.encode():
            raise ValueError("it is not of this format")
        return _parsed(json.loads(head), code)
    except (ValueError, KeyError, TypeError) as error:
        raise ForktraceError(f"the compiled probes are damaged: {error}", "make object") from error


def _parsed(head: Mapping[str, Any], code: bytes) -> ProbesObject:
    if hashlib.sha256(code).hexdigest() != head["code"]:
        raise ValueError("the instructions are not those that were written")
    functions, at = {}, 0
    for name, count in head["functions"].items():
        functions[name] = code[at : at + count * INSTRUCTION.itemsize]
        at += count * INSTRUCTION.itemsize
    if at != len(code):
        raise ValueError("there are more instructions than functions")
    maps = tuple(MapSpec(str(name), *map(int, numbers)) for name, *numbers in head["maps"])
    found = ProbesObject(functions, maps, tuple(map(str, head["facts"])), str(head["digest"]), str(head["made_by"]))
    for name in functions:
        if [list(place) for place in found.places(name)] != head["places"][name]:
            raise ValueError(f"the marks of {name} are not those that were written")
    return found


def read_object(folder: Path) -> ProbesObject | None:
    """Return the object in `folder`, None when there is none.

    Raises:
        ForktraceError: it is damaged.
    """
    try:
        with (folder / OBJECT).open("rb") as file:
            return from_bytes(file.read(OBJECT_BYTES_MOST))
    except FileNotFoundError:
        return None
