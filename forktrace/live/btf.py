"""Reads the running kernel's own type information (BTF): where a member lies, what a tracepoint hands over.

The format is the kernel's Documentation/bpf/btf.rst. Only what the probes need is understood: structs, unions, enums,
typedefs and function prototypes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from forktrace.errors import MachineLacks

VMLINUX = "/sys/kernel/btf/vmlinux"

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR = range(
    1, 15
)
_DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(15, 20)
_HEADER_BYTES = 12
_FIXED_TAIL = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_TAIL_PER_MEMBER = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_TRANSPARENT = {_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG}

_two_words = struct.Struct("<II").unpack_from
_three_words = struct.Struct("<III").unpack_from


class Member(NamedTuple):
    """Where a member lies: bytes from the start of its struct; for a bit-field also its first bit and its width in bits."""

    offset: int
    bit: int
    bits: int


class Btf:
    """The types of one BTF blob.

    Raises:
        MachineLacks: the kernel has no BTF, or it is not in the known format.
    """

    def __init__(self, path: str = VMLINUX) -> None:
        try:
            self._data = Path(path).read_bytes()
        except OSError as error:
            raise MachineLacks(
                f"the kernel offers no type information ({path}: {error.strerror})",
                "forktrace needs a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            ) from error
        if self._data[:2] != b"\x9f\xeb":
            raise MachineLacks(f"{path} is not little-endian BTF")
        header, type_at, type_bytes, string_at, string_bytes = struct.unpack_from("<IIIII", self._data, 4)
        self._types = header + type_at
        self._types_end = self._types + type_bytes
        self._strings = header + string_at
        self._strings_end = self._strings + string_bytes
        self._at = self._positions()

    def members(self, name: str) -> dict[str, Member]:
        """Return every named member of struct or union `name`, those of anonymous members included; {} if there is none."""
        at = self._find(name, (_STRUCT, _UNION))
        return dict(self._members(at, 0)) if at else {}

    def size(self, name: str) -> int:
        """Return the bytes of struct `name`, 0 if there is none."""
        at = self._find(name, (_STRUCT, _UNION))
        return _three_words(self._data, at)[2] if at else 0

    def tracepoint(self, name: str) -> tuple[str, ...] | None:
        """Return the argument types of a raw tracepoint, `("struct task_struct *", "u64")`; None: this kernel has none."""
        at = self._find(f"btf_trace_{name}", (_TYPEDEF,))
        if not at:
            return None
        pointer = self._at[_three_words(self._data, at)[2]]
        proto = self._at[_three_words(self._data, pointer)[2]]
        count = _two_words(self._data, proto)[1] & 0xFFFF
        types = [_two_words(self._data, proto + _HEADER_BYTES + 8 * i)[1] for i in range(1, count)]
        return tuple(self._spell(one) for one in types)

    def enumerator(self, enum: str, name: str) -> int | None:
        """Return the value of `name` in `enum`, None when the kernel was built without it."""
        at = self._find(enum, (_ENUM,))
        if not at:
            return None
        for i in range(_two_words(self._data, at)[1] & 0xFFFF):
            string, value = _two_words(self._data, at + _HEADER_BYTES + 8 * i)
            if self._name(string) == name:
                return int(value)
        return None

    def _positions(self) -> list[int]:
        """Return where each type starts; index 0 is void."""
        data, at, positions = self._data, self._types, [0]
        while at < self._types_end:
            positions.append(at)
            info = _two_words(data, at)[1]
            kind = (info >> 24) & 31
            tail = _TAIL_PER_MEMBER.get(kind)
            at += _HEADER_BYTES + (_FIXED_TAIL.get(kind, 0) if tail is None else tail * (info & 0xFFFF))
        return positions

    def _find(self, name: str, kinds: Iterable[int]) -> int:
        """Return the position of the first type of that name and one of those kinds, 0 if there is none."""
        wanted = set(self._string_offsets(name))
        for at in self._at[1:]:
            string, info = _two_words(self._data, at)
            if string in wanted and (info >> 24) & 31 in kinds:
                return at
        return 0

    def _string_offsets(self, name: str) -> Iterator[int]:
        pattern = b"\0" + name.encode() + b"\0"
        found = self._data.find(pattern, self._strings, self._strings_end)
        while found >= 0:
            yield found + 1 - self._strings
            found = self._data.find(pattern, found + 1, self._strings_end)

    def _name(self, string: int) -> str:
        start = self._strings + string
        return self._data[start : self._data.index(b"\0", start)].decode()

    def _members(self, at: int, base_bits: int) -> Iterator[tuple[str, Member]]:
        info = _two_words(self._data, at)[1]
        for i in range(info & 0xFFFF):
            string, type_id, place = _three_words(self._data, at + _HEADER_BYTES + 12 * i)
            first, width = (place & 0xFFFFFF, place >> 24) if info >> 31 else (place, 0)
            first += base_bits
            if string:
                yield self._name(string), Member(first // 8, first % 8, width)
            elif (inner := self._strip(type_id)) and (_two_words(self._data, inner)[1] >> 24) & 31 in (_STRUCT, _UNION):
                yield from self._members(inner, first)

    def _strip(self, type_id: int) -> int:
        """Return the position of the type behind typedefs and qualifiers, 0 for void."""
        while type_id:
            at = self._at[type_id]
            _, info, inner = _three_words(self._data, at)
            if (info >> 24) & 31 not in _TRANSPARENT:
                return at
            type_id = inner
        return 0

    def _spell(self, type_id: int) -> str:
        stars = ""
        while type_id:
            string, info, inner = _three_words(self._data, self._at[type_id])
            kind = (info >> 24) & 31
            if kind == _PTR:
                stars += "*"
            elif kind not in _TRANSPARENT or kind == _TYPEDEF:
                prefix = {_STRUCT: "struct ", _UNION: "union "}.get(kind, "")
                return f"{prefix}{self._name(string)} {stars}".strip()
            type_id = inner
        return f"void {stars}".strip()
