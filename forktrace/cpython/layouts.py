"""Describes Python interpreters to the probes: the offsets that the stack walk needs, for each version.

The offsets of 2.7 to 3.12 are facts of CPython's sources, taken with gcc's offsetof from the internal headers of a release of
each (2.7.18, 3.6.15, ... 3.12.1); they are the same within a series. From 3.13 on the interpreter has them in the
`_Py_DebugOffsets` at the beginning of `_PyRuntime` (CPython: Include/internal/pycore_debug_offsets.h), read from its file.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from forktrace.cpython.elf import Elf

Version = tuple[int, int]

_TABLE: Final = """
                      2.7  3.6  3.7  3.8  3.9  3.10 3.11 3.12
runtime_interpreters    0    0   24   32   32   32   40   40
interpreter_next        0    0    0    0    0    0    0    0
interpreter_threads     8    8    8    8    8    8   16   72
interpreter_modules     0   16   40   56  856  856  888  944
thread_next             0    8    8    8    8    8    8    8
thread_id             144  152  176  176  176  176  152  136
thread_frame           16   24   24   24   24   24   56   56
has_cframe              0    0    0    0    0    0    1    1
cframe_frame            0    0    0    0    0    0    8    0
frame_bytes           124  124  112  112  112  104   80   80
frame_code             32   32   32   32   32   32   32    0
frame_back             24   24   24   24   24   24   48    8
frame_instruction     120  120  104  104  104   96   56   56
frame_owner             0    0    0    0    0    0    0   70
frame_locals          376  376  360  360  360  352   72   72
frame_of_object         0    0    0    0    0    0   24   24
int_digit              16   24   24   24   24   24   24   24
tuple_items            24   24   24   24   24   24   24   24
code_first_line        96   36   36   40   40   40   72   68
code_path              80   96   96  104  104  104  112  112
code_name              88  104  104  112  112  112  120  120
code_lines            104  112  112  120  120  120  136  136
code_instructions       0    0    0    0    0    0  184  192
code_version            0    0    0    0    0    0    0   92
text_kind               0    2    2    2    2    2    2    2
text_width_mask         0    7    7    7    7    7    7    7
text_width              1    0    0    0    0    0    0    0
text_ascii             36   48   48   48   48   48   48   40
text_compact           36   72   72   72   72   72   72   56
bytes_data             36   32   32   32   32   32   32   32
head_bytes             16   16   16   16   16   16   16   16
"""

# The structs of _Py_DebugOffsets up to the last one that is needed, with their members in order; the last ones since 3.14.
_LAST: Final = """
        tuple: size ob_item ob_size
        list: size ob_item ob_size
        set: size used table mask
        dict: size ma_keys ma_values
        float: size ob_fval
        long: size lv_tag ob_digit
        bytes: size ob_size ob_sval
        unicode: size state length asciiobject_size"""
_DEBUG_OFFSETS: Final[Mapping[Version, str]] = {
    (3, 13): """
        runtime: size finalizing interpreters_head
        interpreter: size id next threads_head gc imports_modules sysdict builtins ceval_gil gil gil_enabled gil_locked
            gil_holder
        thread: size prev next interp current_frame thread_id native_thread_id datastack_chunk status
        frame: size previous executable instr_ptr localsplus owner
        code: size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds co_code_adaptive
        object: size ob_type
        type: size tp_name tp_repr tp_flags
        tuple: size ob_item ob_size
        list: size ob_item ob_size
        dict: size ma_keys ma_values
        float: size ob_fval
        long: size lv_tag ob_digit
        bytes: size ob_size ob_sval
        unicode: size state length asciiobject_size""",
    (3, 14): """
        runtime: size finalizing interpreters_head
        interpreter: size id next threads_head threads_main gc imports_modules sysdict builtins ceval_gil gil gil_enabled
            gil_locked gil_holder code_object_generation tlbc_generation
        thread: size prev next interp current_frame thread_id native_thread_id datastack_chunk status
        frame: size previous executable instr_ptr localsplus owner stackpointer tlbc_index
        code: size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds co_code_adaptive
            co_tlbc
        object: size ob_type
        type: size tp_name tp_repr tp_flags"""
    + _LAST,
    (3, 15): """
        runtime: size finalizing interpreters_head
        interpreter: size id next threads_head threads_main gc imports_modules sysdict builtins ceval_gil gil gil_enabled
            gil_locked gil_holder code_object_generation tlbc_generation
        thread: size prev next interp current_frame base_frame last_profiled_frame last_profiled_frame_seq thread_id
            native_thread_id datastack_chunk status holds_gil gil_requested current_exception exc_state
        stack_item: exc_value
        frame: size previous executable instr_ptr localsplus owner stackpointer tlbc_index
        code: size filename name qualname linetable firstlineno argcount localsplusnames localspluskinds co_code_adaptive
            co_tlbc
        object: size ob_type
        type: size tp_name tp_repr tp_flags tp_basicsize tp_dictoffset
        heap_type: size ht_cached_keys"""
    + _LAST,
}

_UNSAID: Final = (b"2.7.", *(b"3.%d." % minor for minor in range(6, 11)))  # versions that do not export Py_Version
_VERSION: Final = re.compile(rb"(\d\.\d{1,2}\.\d{1,4})[+a-z0-9]{0,32}\0")
_OF_A_LONGER_NUMBER: Final = frozenset(b"%d" % digit for digit in range(10)) | {b"."}
_COMPACT_BYTES: Final = 16  # PyCompactUnicodeObject is so much longer than PyASCIIObject: utf8_length, utf8
FREE_HEAD: Final = 32  # bytes of the head of every object in a free-threaded build; else 16
_U64: Final = (1 << 64) - 1
_FAR: Final = 1 << 20  # larger than any struct of an interpreter
_MAGIC: Final = b"xdebugpy"
NEWEST: Final = max(_DEBUG_OFFSETS)


def _tabled() -> dict[Version, dict[str, int]]:
    head, *lines = (line.split() for line in _TABLE.strip().splitlines())
    versions = [(int(major), int(minor)) for major, minor in (text.split(".") for text in head)]
    return {version: {line[0]: int(line[1 + place]) for line in lines} for place, version in enumerate(versions)}


TABLED: Final = _tabled()


@dataclass(frozen=True)
class Interpreter:
    """The interpreter in a file: its full version, and the fields of the probes' `struct interpreter`."""

    version: str
    fields: Mapping[str, int]

    @property
    def is_free_threaded(self) -> bool:
        """Without a global lock: the head of every object is longer then."""
        return self.fields["head_bytes"] == FREE_HEAD


class Unsupported(ValueError):
    """The file is an interpreter whose stacks cannot be walked; the message says why."""


def describe(descriptor: int, name: str) -> Interpreter | None:
    """Return the Python interpreter in an ELF file, None when there is none; `name` is the file's, without symbolic links.

    Raises:
        Unsupported: there is one whose stacks cannot be walked.
    """
    if re.match(r"(lib)?pypy", name):
        raise Unsupported("it is PyPy")
    try:
        elf = Elf(descriptor)
        if elf.dynamic_symbol("Py_Exit") is None:
            return None
        return _described(elf, name)
    except Unsupported:
        raise
    except ValueError:
        return None


def _described(elf: Elf, name: str) -> Interpreter:
    version, runtime = _version(elf, name), elf.dynamic_symbol("_PyRuntime")
    number = (version[0], version[1])
    if number > NEWEST:
        raise Unsupported(f"Python {number[0]}.{number[1]} is newer than this forktrace, which knows {NEWEST[0]}.{NEWEST[1]}")
    if number >= (3, 13):
        if runtime is None:
            raise Unsupported("it has no _PyRuntime")
        fields, start = _from_debug_offsets(elf.bytes_at(runtime[0], 1024), number), runtime[0]
    elif number in TABLED:
        fields = TABLED[number]
        start = runtime[0] if runtime else _list_of_interpreters(elf)
    else:
        raise Unsupported(f"forktrace does not know Python {number[0]}.{number[1]}")
    py_exit, size = elf.dynamic_symbol("Py_Exit") or (0, 0)
    text, text_end = elf.text
    places = {"runtime": start, "first_page": elf.first_page, "first_code": elf.first_code, "text": text, "text_end": text_end}
    places |= {"py_exit": py_exit, "py_exit_end": py_exit + size, "version": number[0] << 8 | number[1]}
    if not all(0 <= place <= _U64 for place in places.values()) or max(number) > 0xFF:
        raise Unsupported("its addresses or its version are impossible")
    flags = {"instruction_is_pointer": _U64 if number >= (3, 11) else 0, "returns": int(_returns_after_system_exit(version))}
    return Interpreter(".".join(map(str, version)), {**fields, **places, **flags})


def _returns_after_system_exit(version: tuple[int, ...]) -> bool:
    """Whether main also returns after SystemExit, without Py_Exit: "gh-152132: Fix Py_RunMain() to return an exit code"."""
    return version >= (3, 15) or (3, 14) > version >= (3, 13, 15) or version >= (3, 14, 7)


def _version(elf: Elf, name: str) -> tuple[int, ...]:
    """From 3.11 on by a symbol of the file, before by its name and a constant."""
    if said := elf.dynamic_symbol("Py_Version"):
        (number,) = struct.unpack("<I", elf.bytes_at(said[0], 4))
        return number >> 24, number >> 16 & 0xFF, number >> 8 & 0xFF
    named = re.search(r"python(\d)\.(\d{1,2})", name, re.ASCII)
    series = [b"%s.%s." % (named[1].encode(), named[2].encode())] if named else _UNSAID
    constants = elf.constants()
    found = [match for one in series if (match := _version_in(constants, one))]
    if found:
        return tuple(int(part) for part in min(found, key=re.Match.start)[1].split(b"."))
    if named:
        return int(named[1]), int(named[2])
    raise Unsupported("its version cannot be told")


def _version_in(constants: bytes, series: bytes) -> re.Match[bytes] | None:
    """Return the first version like `3.9.18` of the series `3.9.` that a NUL follows.

    It may be the end of a longer string, such as a path: linkers share them.
    """
    at = constants.find(series)
    while at >= 0:
        if (match := _VERSION.match(constants, at)) and constants[max(at - 1, 0) : at] not in _OF_A_LONGER_NUMBER:
            return match
        at = constants.find(series, at + 1)
    return None


def _from_debug_offsets(data: bytes, version: Version) -> dict[str, int]:
    magic, _, free_threaded = struct.unpack_from("<8sQQ", data)
    if magic != _MAGIC:
        raise Unsupported("its _PyRuntime does not begin with _Py_DebugOffsets")
    offsets, at, of = {}, 24, ""
    for word in _DEBUG_OFFSETS[version].split():
        if word.endswith(":"):
            of = word[:-1]
            continue
        (offsets[f"{of}.{word}"],) = struct.unpack_from("<Q", data, at)
        at += 8
    code_version = offsets["code.firstlineno"] + 24  # not among them: co_version, Include/cpython/code.h
    head = offsets["object.size"]
    return _checked(
        {
            "runtime_interpreters": offsets["runtime.interpreters_head"],
            "interpreter_next": offsets["interpreter.next"],
            "interpreter_threads": offsets["interpreter.threads_head"],
            "interpreter_modules": offsets["interpreter.imports_modules"],
            "thread_next": offsets["thread.next"],
            "thread_id": offsets["thread.thread_id"],
            "thread_frame": offsets["thread.current_frame"],
            "frame_bytes": min(offsets["frame.owner"] + 8, 120),
            "frame_code": offsets["frame.executable"],
            "frame_back": offsets["frame.previous"],
            "frame_instruction": offsets["frame.instr_ptr"],
            "frame_owner": offsets["frame.owner"],
            "frame_locals": offsets["frame.localsplus"],
            "frame_of_object": head + 8,
            "int_digit": offsets["long.ob_digit"],
            "tuple_items": offsets["tuple.ob_item"],
            "code_first_line": offsets["code.firstlineno"],
            "code_path": offsets["code.filename"],
            "code_name": offsets["code.name"],
            "code_lines": offsets["code.linetable"],
            "code_instructions": offsets["code.co_code_adaptive"],
            "code_version": code_version if offsets["code.localsplusnames"] == code_version + 4 else 0,
            "text_kind": 8 if free_threaded and version >= (3, 14) else 2,  # after `interned`, then a byte of its own
            "text_width_mask": 7,
            "text_ascii": offsets["unicode.asciiobject_size"],
            "text_compact": offsets["unicode.asciiobject_size"] + _COMPACT_BYTES,
            "bytes_data": offsets["bytes.ob_sval"],
            "head_bytes": head,
            "frame_copy": offsets.get("frame.tlbc_index", 0),  # 0, too, where there are no copies: not before 3.14
            "code_copies": offsets.get("code.co_tlbc", 0),
        },
        offsets,
    )


def _checked(fields: dict[str, int], offsets: Mapping[str, int]) -> dict[str, int]:
    """Check what the probes rely on: an unknown order of _Py_DebugOffsets is noticed here."""
    head = fields["head_bytes"]
    places = offsets["bytes.ob_size"], offsets["bytes.ob_sval"], offsets["unicode.length"], offsets["unicode.state"]
    holds = (
        head in (16, FREE_HEAD),
        places == (head, head + 16, head, head + 16),
        all(fields[name] < 120 for name in fields if name.startswith("frame_")),
        all(32 <= fields[name] <= 152 for name in ("code_first_line", "code_path", "code_name", "code_lines")),
        fields["text_ascii"] - head in (24, 32),
        all(value < _FAR for value in fields.values()),
    )
    if not all(holds):
        raise Unsupported("its _Py_DebugOffsets are of an order that forktrace does not know")
    return fields


def _list_of_interpreters(elf: Elf) -> int:
    """Before 3.7 the list begins at a variable of its own: by symbol, or where PyInterpreterState_Head reads it."""
    if local := elf.local_symbol("interp_head"):
        return local[0]
    if head := elf.dynamic_symbol("PyInterpreterState_Head"):
        code = elf.bytes_at(head[0], 16)
        start = 4 if code.startswith(b"\xf3\x0f\x1e\xfa") else 0  # endbr64
        if code[start : start + 3] == b"\x48\x8b\x05":  # mov rax, [rip + ...]
            (distance,) = struct.unpack_from("<i", code, start + 3)
            return head[0] + start + 7 + int(distance)
    raise Unsupported("its list of interpreters cannot be found")


def library_folders(file: str, interpreter: Interpreter, root: str = "/") -> list[str]:
    """Return where the standard library of the interpreter in `file` is, as processes whose root is `root` name it.

    A library lies in PREFIX/lib or below, a program in PREFIX/bin; the standard library in PREFIX/lib/python3.11, of a
    free-threaded build in PREFIX/lib/python3.13t.
    """
    name = f"python{'.'.join(interpreter.version.split('.')[:2])}{'t' if interpreter.is_free_threaded else ''}"
    parts = os.path.dirname(file).split("/")
    prefixes = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    places = [f"{prefix}/{lib}/{name}" for prefix in prefixes for lib in ("lib", "lib64")]
    return [place for place in places if os.path.isfile(f"{root.rstrip('/')}{place}/os.py")][:2]
