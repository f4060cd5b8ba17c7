"""Reads ELF files (elf(5)): segments, symbols, bytes at an address. 64-bit little-endian only."""

from __future__ import annotations

import os
import struct
from functools import cached_property
from typing import Any, Final

import numpy as np

_PT_LOAD, _PF_X, _ET_EXEC = 1, 1, 2
_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_TABLE_MOST: Final = 64 << 20  # bytes of a symbol or string table, of all constants: more is no interpreter
_PARTS_MOST: Final = 4096  # segments or sections
_NAMED_MOST: Final = 64  # symbols whose name ends like the one that is looked for
_SYMBOL: Final = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)


class Elf:
    """The ELF file behind an open descriptor. It can change while it is read, and can be hostile.

    Attributes:
        position_dependent: it is loaded at the addresses that it names
        segments: of each loaded segment its flags, offset in the file, address and size in the file

    Raises:
        ValueError: it is no such file; from the constructor and every method.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        head = self._read(0, 64)
        if head[:6] != b"\x7fELF\x02\x01":
            raise ValueError("no 64-bit little-endian ELF file")
        kind, programs, self._sections = struct.unpack_from("<H14xQQ", head, 16)
        program_size, program_count, self._section_size, self._section_count = struct.unpack_from("<4H", head, 54)
        if max(program_count, self._section_count) > _PARTS_MOST:
            raise ValueError("it has too many parts")
        self.position_dependent = kind == _ET_EXEC
        self.segments = [
            (flags, offset, address, size)
            for number in range(program_count)
            for kind, flags, offset, address, size in [
                struct.unpack("<IIQQ8xQ", self._read(programs + number * program_size, 40))
            ]
            if kind == _PT_LOAD
        ]
        if not self.segments:
            raise ValueError("nothing of it is loaded")

    @property
    def first_page(self) -> int:
        """The address that a dynamic linker maps first."""
        return int(min(address for _, _, address, _ in self.segments)) & ~0xFFF

    @property
    def first_code(self) -> int:
        """The lowest address of executable code, which the kernel calls start_code."""
        return min((address for flags, _, address, _ in self.segments if flags & _PF_X), default=0)

    @property
    def text(self) -> tuple[int, int]:
        """From where to where executable code lies."""
        code = [(address, address + size) for flags, _, address, size in self.segments if flags & _PF_X]
        return min(code, default=(0, 0))[0], max(end for _, end in code) if code else 0

    def dynamic_symbol(self, name: str) -> tuple[int, int] | None:
        """Return the address and size of a symbol that the file exports."""
        return self._find(self._exported, name)

    def local_symbol(self, name: str) -> tuple[int, int] | None:
        """Return the address and size of a symbol in the table that strip(1) removes."""
        return self._find(self._table(_SHT_SYMTAB), name)

    def bytes_at(self, address: int, size: int) -> bytes:
        """Return what is loaded at an address."""
        for _, offset, start, length in self.segments:
            if start <= address and address + size <= start + length:
                return self._read(offset + address - start, size)
        raise ValueError(f"nothing is loaded at {address:#x}")

    def constants(self) -> bytes:
        """Return the loaded segments without code, if they are no larger than a table may be."""
        parts, room = [], _TABLE_MOST
        for flags, offset, _, size in self.segments:
            if not flags & _PF_X and size <= room:
                parts.append(self._read(offset, size))
                room -= size
        return b"".join(parts)

    @cached_property
    def _exported(self) -> tuple[Any, bytes] | None:
        return self._table(_SHT_DYNSYM)

    def _table(self, wanted: int) -> tuple[Any, bytes] | None:
        """The first symbol table of a kind, and its names."""
        heads = [
            struct.unpack("<II16xQQII", self._read(self._sections + number * self._section_size, 48))
            for number in self._numbers
        ]
        for _, kind, offset, size, link, _ in heads:
            if kind == wanted and link < len(heads):
                symbols = np.frombuffer(self._read(offset, size - size % _SYMBOL.itemsize), _SYMBOL)
                return symbols, self._read(*heads[link][2:4])
        return None

    @property
    def _numbers(self) -> range:
        return range(self._section_count if self._sections else 0)

    def _find(self, table: tuple[Any, bytes] | None, name: str) -> tuple[int, int] | None:
        if table is None:
            return None
        symbols, names = table
        wanted = name.encode() + b"\0"
        at = -1
        for _ in range(_NAMED_MOST):
            at = names.find(wanted, at + 1)
            if at < 0:
                break
            here = symbols[(symbols["name"] == at) & (symbols["section"] != 0)]
            if len(here):
                return int(here[0]["value"]), int(here[0]["size"])
        return None

    def _read(self, offset: int, size: int) -> bytes:
        if size > _TABLE_MOST or offset < 0:
            raise ValueError("a table is too large")
        try:
            data = os.pread(self._descriptor, size, offset)
        except (OSError, OverflowError) as error:
            raise ValueError(f"it cannot be read: {error}") from None
        if len(data) != size:
            raise ValueError("it is cut off")
        return data
