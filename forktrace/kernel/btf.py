"""Reads the running kernel's type information (BTF): offsets of members, arguments of tracepoints.

The format is described in the kernel's Documentation/bpf/btf.rst. Only what the probes need is read: structs, unions, enums,
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
# By kind: the bytes per member after the header; or the bytes after the header of a kind without members.
_TAILS = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_TAIL_PER_MEMBER = [_TAILS.get(kind, 0) for kind in range(32)]
_FIXED_BYTES = [_HEADER_BYTES + {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}.get(kind, 0) for kind in range(32)]
_SIGNED, _BOOL = 1, 4  # encodings of an int
_TRANSPARENT = {_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG}

_word = struct.Struct("<I").unpack_from
_two_words = struct.Struct("<II").unpack_from
_three_words = struct.Struct("<III").unpack_from


class Member(NamedTuple):
    """A member: its offset in bytes; for a bit-field also its first bit and its width in bits.

    `bytes` is its size, `type` the number of its type.
    """

    offset: int
    bit: int
    bits: int
    bytes: int
    type: int = 0


class Btf:
    """The types of one BTF blob.

    Raises:
        MachineLacks: the kernel has no BTF, or in an unknown format.
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
        self._structs: dict[int, dict[str, Member]] = {}
        self._at, self._named = self._read_types()

    def members(self, name: str) -> dict[str, Member]:
        """Return every named member of struct or union `name`, those of anonymous members included; {} if there is none."""
        return self.members_at(self._find(name, (_STRUCT, _UNION)))

    def members_at(self, type_id: int) -> dict[str, Member]:
        """Return the same for the struct or union with this type number; {} if it is neither."""
        if type_id not in self._structs:
            at = self._strip(type_id)
            self._structs[type_id] = dict(self._members(at, 0)) if at and self._kind(at) in (_STRUCT, _UNION) else {}
        return self._structs[type_id]

    def size(self, name: str) -> int:
        """Return the bytes of struct `name`, 0 if there is none."""
        return self._bytes(self._find(name, (_STRUCT, _UNION)))

    def tracepoint(self, name: str) -> tuple[str, ...] | None:
        """Return the argument types of a raw tracepoint, `("struct task_struct *", "u64")`; None: this kernel has none.

        Integers are spelled by sign and bits: their typedefs differ between kernels.
        """
        number = self._find(f"btf_trace_{name}", (_TYPEDEF,))
        if not number:
            return None
        pointer = self._at[_three_words(self._data, self._at[number])[2]]
        proto = self._at[_three_words(self._data, pointer)[2]]
        count = _two_words(self._data, proto)[1] & 0xFFFF
        types = [_two_words(self._data, proto + _HEADER_BYTES + 8 * i)[1] for i in range(1, count)]
        return tuple(self._spell(one) for one in types)

    def function(self, name: str) -> int:
        """Return the number of a function among the types, 0 if there is none."""
        return self._find(name, (_FUNC,))

    def has_variable(self, name: str) -> bool:
        """Whether the kernel has a variable of that name with a value for each processor; of others BTF says nothing."""
        return bool(self._find(name, (_VAR,)))

    def enumerator(self, enum: str, name: str) -> int | None:
        """Return the value of `name` in `enum`, None when the kernel was built without it."""
        number = self._find(enum, (_ENUM,))
        if not number:
            return None
        at = self._at[number]
        for i in range(_two_words(self._data, at)[1] & 0xFFFF):
            string, value = _two_words(self._data, at + _HEADER_BYTES + 8 * i)
            if self._name(string) == name:
                return int(value)
        return None

    def _read_types(self) -> tuple[list[int], dict[int, int]]:
        """Return where each type starts, by its number (0: void), and the first type of each name and kind."""
        data, at, end = self._data, self._types, self._types_end
        positions, named = [0], dict[int, int]()
        while at < end:
            string, info = _two_words(data, at)
            kind = (info >> 24) & 31
            if string:
                named.setdefault(string << 5 | kind, len(positions))
            positions.append(at)
            each = _TAIL_PER_MEMBER[kind]
            at += each * (info & 0xFFFF) + _HEADER_BYTES if each else _FIXED_BYTES[kind]
        return positions, named

    def _find(self, name: str, kinds: Iterable[int]) -> int:
        """Return the number of the first type of that name and one of those kinds, 0 if there is none."""
        string = self._data.find(b"\0" + name.encode() + b"\0", self._strings, self._strings_end) + 1 - self._strings
        found = [self._named.get(string << 5 | kind, 0) for kind in kinds]  # each text is there once (btf__dedup)
        return min(filter(None, found), default=0)

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
                yield self._name(string), Member(first // 8, first % 8, width, self._bytes(type_id), type_id)
            elif (inner := self._strip(type_id)) and self._kind(inner) in (_STRUCT, _UNION):
                yield from self._members(inner, first)

    def _kind(self, at: int) -> int:
        return (int(_two_words(self._data, at)[1]) >> 24) & 31

    def _bytes(self, type_id: int) -> int:
        """Return the size of a type, 0 for what has none."""
        if not (at := self._strip(type_id)):
            return 0
        kind = self._kind(at)
        if kind == _PTR:
            return 8
        if kind == _ARRAY:
            of, _, count = _three_words(self._data, at + _HEADER_BYTES)
            return int(count) * self._bytes(of)
        return 0 if kind in (_FWD, _FUNC, _FUNC_PROTO) else int(_three_words(self._data, at)[2])

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
            at = self._at[type_id]
            string, _, inner = _three_words(self._data, at)
            kind = self._kind(at)
            if kind == _INT:
                encoding = (_word(self._data, at + _HEADER_BYTES)[0] >> 24) & 15
                name = "bool" if encoding & _BOOL else f"{'s' if encoding & _SIGNED else 'u'}{8 * inner}"
                return f"{name} {stars}".strip()
            if kind == _PTR:
                stars += "*"
            elif kind not in _TRANSPARENT:
                prefix = {_STRUCT: "struct ", _UNION: "union "}.get(kind, "")
                return f"{prefix}{self._name(string)} {stars}".strip()
            type_id = inner
        return f"void {stars}".strip()
