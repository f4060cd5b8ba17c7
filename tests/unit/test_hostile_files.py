"""Files that were made to mislead, stall or crash whoever looks for an interpreter in them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from test_layouts import debug_offsets

from forktrace.cpython.layouts import Interpreter, Unsupported, describe
from forktrace.kernel.layout import layouts
from forktrace.system import files
from forktrace.system.files import open_regular

MIB = 1 << 20
SOON_S = 60  # for what would else take hours
CODE, DATA = 5, 4  # segment flags
SYMTAB, DYNSYM = 2, 11

Segment = tuple[int, int, int, int]  # flags, offset, address, size
Section = tuple[int, int, int, int]  # kind, offset, size, link


def elf(
    segments: list[Segment], sections: list[Section], parts: Mapping[int, bytes], counts: tuple[int, int] = (0, 0)
) -> bytes:
    """A file with these segments, sections, and bytes at offsets; `counts` are told in place of how many there are."""
    programs = b"".join(
        struct.pack("<IIQQQQQQ", 1, flags, offset, at, at, size, size, 8) for flags, offset, at, size in segments
    )
    heads = b"".join(struct.pack("<IIQQQQIIQQ", 0, kind, 0, 0, at, size, link, 0, 8, 24) for kind, at, size, link in sections)
    numbers = (56, counts[0] or len(segments), 64, counts[1] or len(sections), 0)
    data = b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HHIQQQIH", 3, 62, 1, 0, 64, 64 + len(programs), 0, 64)
    data = bytearray(data + struct.pack("<5H", *numbers) + programs + heads)
    for offset, part in parts.items():
        data = data.ljust(offset, b"\0")
        data[offset : offset + len(part)] = part
    return bytes(data)


def python(symbols: Mapping[str, tuple[int, int]], *segments: Segment, parts: Mapping[int, bytes] | None = None) -> bytes:
    """A file that exports these symbols, with their addresses and sizes; its first MiB is loaded at 0."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in symbols)
    table = bytes(24)
    for name, (value, size) in symbols.items():
        table += struct.pack("<IBBHQQ", names.index(b"\0" + name.encode() + b"\0") + 1, 0, 0, 1, value, size)
    at = 512 << 10
    sections = [(DYNSYM, at, len(table), 1), (3, at + len(table), len(names), 0)]
    everything = {at: table + names, MIB - 1: b"\0", **(parts or {})}
    return elf([(DATA, 0, 0, MIB), *segments], sections, everything)


def answer(data: bytes, path: Path, name: str = "libpython3.11.so.1.0") -> Interpreter | str | None:
    """What is said of a file with this content: an interpreter whose fields the probes can be told, or none."""
    path.write_bytes(data)
    with path.open("rb") as file:
        try:
            found = describe(file.fileno(), name)
        except Unsupported as error:
            return str(error)
    if found:
        kind = layouts()["interpreter"]
        np.array(tuple(found.fields.get(field, 0) for field in kind.names or ()), kind)
    return found


GOOD = {"Py_Exit": (0x1000, 64), "_PyRuntime": (0x2000, 64), "Py_Version": (0x3000, 4)}
UNNAMED = {"Py_Exit": (0x1000, 64), "_PyRuntime": (0x2000, 64)}
VERSION = {0x3000: struct.pack("<I", 0x030B07F0)}


def test_the_forgery_is_one(tmp_path: Path) -> None:
    """What these tests change is taken for an interpreter before they do."""
    found = answer(python(GOOD, (CODE, 0, 0x1000, 0x1000), parts=VERSION), tmp_path / "file")
    assert isinstance(found, Interpreter)
    assert found.version == "3.11.7"


@pytest.mark.parametrize(
    "changed",
    [
        {"Py_Exit": ((1 << 64) - 1, (1 << 64) - 1)},
        {"Py_Version": ((1 << 64) - 2, 4)},
        {"Py_Version": (0x4000, 4)},
    ],
)
def test_impossible_addresses(changed: Mapping[str, tuple[int, int]], tmp_path: Path) -> None:
    """An address beyond the end of all memory, and a version 255.255, do not get to the probes."""
    parts = VERSION | {0x4000: b"\xff\xff\xff\xff"}
    assert not isinstance(answer(python(GOOD | changed, parts=parts), tmp_path / "file"), Interpreter)


def test_impossible_segments(tmp_path: Path) -> None:
    """Code that ends beyond the end of all memory."""
    data = python(GOOD, (CODE, 0, (1 << 64) - 1, (1 << 64) - 1), parts=VERSION)
    assert answer(data, tmp_path / "file") == "its addresses or its version are impossible"


@pytest.mark.parametrize("distance", [-0x5000, -(1 << 31)])
def test_a_list_before_the_beginning(distance: int, tmp_path: Path) -> None:
    """A version below 3.7 says where its list is by an instruction, which may point below 0."""
    symbols = {"Py_Exit": (0x1000, 64), "PyInterpreterState_Head": (0x2000, 16)}
    data = python(symbols, parts={0x2000: b"\x48\x8b\x05" + struct.pack("<i", distance)})
    assert answer(data, tmp_path / "file", "libpython3.6m.so.1.0") == "its addresses or its version are impossible"


@pytest.mark.parametrize("value", [1 << 20, 1 << 32, (1 << 64) - 1])
@pytest.mark.parametrize("place", range(3, 100, 7))
def test_offsets_without_bounds(value: int, place: int, tmp_path: Path) -> None:
    """Whatever a _PyRuntime says of its structs: what gets to the probes fits there."""
    offsets = bytearray(debug_offsets(0x30D).ljust(1024, b"\0")[:1024])
    struct.pack_into("<Q", offsets, 8 * place, value)
    parts = {0x2000: bytes(offsets), 0x3000: struct.pack("<I", 0x030D00F0)}
    answer(python(GOOD, parts=parts), tmp_path / "file")


@pytest.mark.parametrize("name", ["libpython9.99999999999.so", "libpython3.4294967297.so", "libpython\u0663.\u0661.so"])
def test_versions_in_names(name: str, tmp_path: Path) -> None:
    """A file may be called anything."""
    parts = {0x2000: debug_offsets(0x30E)}
    answer(python(UNNAMED, parts=parts), tmp_path / name, name)


def test_constants_without_end(tmp_path: Path) -> None:
    """Thousands of segments that are the same 60 MiB of the file are not all read."""
    data = python(UNNAMED, *[(DATA, MIB, number << 32, 60 * MIB) for number in range(1, 2000)])
    path = tmp_path / "file"
    path.write_bytes(data)
    os.truncate(path, 64 * MIB)
    tracemalloc.start()
    with path.open("rb") as file:
        found = describe(file.fileno(), "libpython3.10.so")
    assert tracemalloc.get_traced_memory()[1] < 300 * MIB
    tracemalloc.stop()
    assert found is not None
    assert found.version == "3.10"


def test_a_version_without_end(tmp_path: Path) -> None:
    """A text that is nearly a version, in ever so many ways."""
    start = time.monotonic()
    digits = python(UNNAMED, (DATA, MIB, MIB, 8 * MIB), parts={MIB: b"3.10." + b"1" * 8 * MIB})
    assert isinstance(answer(digits, tmp_path / "file", "libpython3.10.so"), Interpreter)
    assert time.monotonic() - start < SOON_S


def test_a_name_without_end(tmp_path: Path) -> None:
    """A table of nothing but the name that is looked for, and none of it a symbol."""
    symbols, names = 4 * MIB // 24 * 24, 4 * MIB
    sections = [(DYNSYM, MIB, symbols, 1), (3, MIB + symbols, names, 0)]
    data = elf([(DATA, 0, 0, MIB)], sections, {MIB + symbols: b"\0" + b"Py_Exit\0" * (names // 8)})
    start = time.monotonic()
    assert answer(data, tmp_path / "file") is None
    assert time.monotonic() - start < SOON_S


@pytest.mark.parametrize("counts", [(65535, 1), (1, 65535)])
def test_parts_without_end(counts: tuple[int, int], tmp_path: Path) -> None:
    """65,535 segments, or as many symbol tables that all are the same 60 MiB."""
    path = tmp_path / "file"
    section = (SYMTAB, 0, 60 * MIB, 0)
    path.write_bytes(elf([(DATA, 0, 0, MIB)], [section] * 65535, {}, counts))
    os.truncate(path, 64 * MIB)
    start = time.monotonic()
    with path.open("rb") as file:
        assert describe(file.fileno(), "libpython3.11.so") is None
    assert time.monotonic() - start < SOON_S


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe, a directory, a device: opening those has effects, or no end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link", ".", "missing"):
        with pytest.raises(OSError, match=r"."):
            open_regular(str(tmp_path / name))
    (tmp_path / "file").write_text("text")
    descriptor = open_regular(str(tmp_path / "file"))
    assert os.read(descriptor, 9) == b"text"
    os.close(descriptor)


def test_what_was_looked_at_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is a file when it is looked at and a pipe a moment later: the pipe is not opened."""
    (tmp_path / "name").write_text("text")
    os.mkfifo(tmp_path / "pipe")

    def looked_at(mode: int) -> bool:
        if (tmp_path / "pipe").exists():
            (tmp_path / "pipe").rename(tmp_path / "name")
        return mode & 0o170000 == 0o100000

    monkeypatch.setattr(files.stat, "S_ISREG", looked_at)
    descriptor = open_regular(str(tmp_path / "name"))
    assert os.read(descriptor, 9) == b"text"
    os.close(descriptor)


def test_nobody_waits_for_a_lease(tmp_path: Path) -> None:
    """Who holds a lease on his file makes others that open it wait for 45 s; not forktrace."""
    path = tmp_path / "file"
    path.write_text("")
    holds = "import fcntl, signal, sys\nfile = open(sys.argv[1])\n"
    holds += "fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\nprint(flush=True)\nsignal.pause()\nsignal.pause()"
    command = [sys.executable, "-c", f"import signal\nsignal.signal(signal.SIGIO, lambda *_: None)\n{holds}", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BlockingIOError):
            open_regular(str(path))
        holder.kill()
