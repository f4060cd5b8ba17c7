"""The children that multiprocessing of a running program holds in its set `_children`, read from the program's memory.

`Process.start()` sweeps this set: so it is known what will reap a zombie that is in it.
Layouts: CPython's Include/cpython/dictobject.h, setobject.h, object.h and internal/pycore_dict.h of 3.6 to 3.15.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from forktrace.cpython.remote_stack import Python, Reader
from forktrace.system.memory import Memory, Unreadable

OLDEST, NEWEST = (3, 6), (3, 15)  # before, the set is elsewhere; later releases are not known
MOST_ENTRIES: Final = 1 << 16  # of a dict or a set
_TRIES: Final = 5
# Offsets behind the head of an object, which is longer in a free-threaded build; the object's type is the head's last word.
_MODULE_DICT, _DICT_KEYS, _SET_MASK, _TEXT_LENGTH = 0, 16, 16, 0
_TYPE_SIZE, _TYPE_FLAGS, _TYPE_DICT_OFFSET = 16, 152, 272
_CACHED_KEYS: Final = {11: 856, 12: 864, 13: 864, 14: 864, 15: 872}  # of a class, by minor version
_VALUES_BEFORE: Final = {16: 32, 32: 16}  # by the length of the head: values and dict of an instance lie so far before it
_HAS_DICT: Final = 1 << 4  # Py_TPFLAGS_MANAGED_DICT
_GENERAL: Final = 0  # enum of dk_kind: entries with a hash


def multiprocessing_children(memory: Memory, python: Python) -> frozenset[int] | None:
    """Return the pids, in the program's PID namespace, of the children that its next `Process.start()` polls; None: not known.

    A child is in the set from its start until multiprocessing has waited for it.
    """
    version = (python.fields["version"] >> 8, python.fields["version"] & 0xFF)
    if not OLDEST <= version <= NEWEST:
        return None
    before: frozenset[int] | None = None
    for _ in range(_TRIES):
        try:
            now = frozenset(_Objects(memory, python, version[1]).children())
        except (Unreadable, struct.error):
            continue
        if now == before:
            return now
        before = now
    return None


class _Objects:
    """Python objects, by their addresses."""

    def __init__(self, memory: Memory, python: Python, minor: int) -> None:
        self._memory = memory
        self._python = python
        self._minor = minor
        self._head = python.fields["head_bytes"]
        self._reader = Reader(memory, python)

    def children(self) -> Iterator[int]:
        modules = self._memory.word(self._main_interpreter() + self._python.fields["interpreter_modules"])
        module = self._named(self._entries(modules), "multiprocessing.process")
        names = self._entries(self._memory.word(module + self._head + _MODULE_DICT)) if module else iter(())
        held = self._named(names, "_children")
        for process in self._members(held) if held else ():
            popen = self._named(self._attributes(process), "_popen")
            number = popen and self._named(self._attributes(popen), "pid")
            if number:
                yield self._memory.unpack("<I", number + self._python.fields["int_digit"])[0]

    def _main_interpreter(self) -> int:
        """The last of the list: new ones are inserted at the front."""
        found = self._memory.word(self._python.runtime + self._python.fields["runtime_interpreters"])
        for _ in range(MOST_ENTRIES):
            following = self._memory.word(found + self._python.fields["interpreter_next"])
            if not following:
                return found
            found = following
        raise Unreadable("a list without an end")

    def _named(self, entries: Iterator[tuple[int, int]], name: str) -> int:
        """The value of a key; 0: it is not there."""
        for key, value in entries:
            if value and self._memory.word(key + self._head + _TEXT_LENGTH) == len(name) and self._reader.text(key) == name:
                return value
        return 0

    def _entries(self, table: int) -> Iterator[tuple[int, int]]:
        """The keys and values of a dict."""
        keys, values = self._memory.unpack("<QQ", table + self._head + _DICT_KEYS)
        return self._pairs(keys, values + (8 if values and self._minor >= 13 else 0))

    def _pairs(self, keys: int, values: int) -> Iterator[tuple[int, int]]:
        """The entries of a table of keys; the values may be in another table."""
        if self._minor >= 11:
            index_bytes, kind = self._memory.unpack("<BB", keys + 9)
            count, first = self._memory.word(keys + 24), keys + 32 + (1 << min(index_bytes, 63))
        else:
            size, kind = self._memory.word(keys + 8), _GENERAL
            width = next(width for width in (1, 2, 4, 8) if size < 1 << 8 * width or width == 8)
            count, first = self._memory.word(keys + 32), keys + 40 + size * width
        if count > MOST_ENTRIES:
            raise Unreadable("more entries than a dict has")
        form = "<8xQQ" if kind == _GENERAL else "<QQ"
        entries = struct.iter_unpack(form, self._memory.read(first, count * struct.calcsize(form)))
        if not values:
            return entries
        elsewhere = struct.iter_unpack("<Q", self._memory.read(values, 8 * count))
        return ((key, value) for (key, _), (value,) in zip(entries, elsewhere, strict=True))

    def _attributes(self, thing: int) -> Iterator[tuple[int, int]]:
        """The attributes of an instance, where this version stores them."""
        kind = self._memory.word(thing + self._head - 8)
        if self._minor < 11:
            offset = self._memory.word(kind + self._head + _TYPE_DICT_OFFSET)
            table = self._memory.word(thing + offset) if 0 < offset < 4096 else 0
            return self._entries(table) if table else iter(())
        if not self._memory.word(kind + self._head + _TYPE_FLAGS) & _HAS_DICT:
            return iter(())
        values, table = self._memory.unpack("<QQ", thing - _VALUES_BEFORE[self._head])
        if self._minor == 12:
            values, table = (table + 1, 0) if table & 1 else (0, table)
        elif self._minor >= 13:
            values = 0 if table else thing + self._memory.word(kind + self._head + _TYPE_SIZE) + 8
        if values:
            return self._pairs(self._memory.word(kind + self._head + _CACHED_KEYS[self._minor]), values)
        return self._entries(table) if table else iter(())

    def _members(self, held: int) -> Iterator[int]:
        """The members of a set; a removed one leaves an entry with the hash -1."""
        mask, table = self._memory.unpack("<QQ", held + self._head + _SET_MASK)
        if mask >= MOST_ENTRIES:
            raise Unreadable("more entries than a set has")
        entries = struct.iter_unpack("<Qq", self._memory.read(table, 16 * (mask + 1)))
        return (key for key, digest in entries if key and digest != -1)
