"""What a file says of the interpreter in it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from forktrace.cpython import layouts
from forktrace.cpython.elf import Elf
from forktrace.cpython.layouts import TABLED, Unsupported, describe, library_folders

VERSIONS = Path("~/.pyenv/versions").expanduser()


def interpreter_files() -> list[Path]:
    """The files that have an interpreter in them, of this Python and of pyenv's."""
    found = [one.resolve() for one in VERSIONS.glob("*/lib/libpython*.so.1.0")]
    found += [one.resolve() for one in Path("/usr/bin").glob("python3.*") if one.name[8:].isdecimal()]
    return sorted(set(found))


@pytest.fixture(params=interpreter_files() or [Path(sys.executable).resolve()], ids=lambda path: path.name)
def file(request: pytest.FixtureRequest) -> Path:
    """One of them."""
    return Path(request.param)


def described(path: Path) -> layouts.Interpreter | None:
    """What `describe` says of a file."""
    with path.open("rb") as opened:
        return describe(opened.fileno(), path.name)


def test_every_interpreter_here_is_known(file: Path) -> None:
    """Its version is that of its name, and the addresses lie inside the file."""
    found = described(file)
    assert found is not None
    major, minor = (int(part) for part in found.version.split(".")[:2])
    assert f"python{major}.{minor}" in file.name
    assert found.fields["version"] == major << 8 | minor
    assert found.fields["text"] < found.fields["py_exit"] < found.fields["py_exit_end"] <= found.fields["text_end"]


@pytest.mark.skipif(shutil.which("strip") is None, reason="needs strip, of binutils")
def test_stripped_files_say_the_same(file: Path, tmp_path: Path) -> None:
    """strip(1) takes nothing away that is needed, not even of versions whose list of interpreters is a local symbol."""
    copy = tmp_path / file.name
    subprocess.run(["strip", "-o", copy, file], check=True)
    assert described(copy) == described(file)


def test_the_table_agrees_with_the_headers(tmp_path: Path) -> None:
    """The offsets of the public structs are what the compiler says, for the versions whose headers are here."""
    members = {"code_first_line": "co_firstlineno", "code_path": "co_filename", "code_name": "co_name"}
    checked = 0
    for (major, minor), fields in TABLED.items():
        lines = "co_linetable" if (major, minor) >= (3, 10) else "co_lnotab"
        for folder in VERSIONS.glob(f"{major}.{minor}.*/include/python{major}.{minor}*"):
            wanted = members | {"code_lines": lines}
            offsets = ", ".join(f"offsetof(PyCodeObject, {name})" for name in wanted.values())
            frames = "#include <frameobject.h>" if minor < 11 else ""
            text = f"#include <Python.h>\n{frames}\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{ size_t all[] = "
            text += f'{{{offsets}}}; for (int i = 0; i < {len(wanted)}; i++) printf("%zu ", all[i]); return 0; }}'
            (tmp_path / "offsets.c").write_text(text)
            command = ["gcc", "-w", f"-I{folder}", "-o", tmp_path / "offsets", tmp_path / "offsets.c"]
            subprocess.run(command, check=True)
            said = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True).stdout.split()
            assert {name: fields[name] for name in wanted} == dict(zip(wanted, map(int, said), strict=True)), (major, minor)
            checked += 1
    if not checked:
        pytest.skip("needs pyenv's interpreters with their headers")


def debug_offsets(version: int, free_threaded: int = 0) -> bytes:
    """The beginning of a _PyRuntime whose offsets are numbers that fit."""
    words = [0] * 128
    order = layouts._DEBUG_OFFSETS[version >> 8, version & 0xFF].split()
    names, of = [], ""
    for word in order:
        of = word[:-1] if word.endswith(":") else of
        names += [] if word.endswith(":") else [f"{of}.{word}"]
    head = 32 if free_threaded else 16
    fits = {"object.size": head, "bytes.ob_size": head, "bytes.ob_sval": head + 16, "unicode.length": head}
    copies = {"frame.tlbc_index": 72 * free_threaded, "code.co_tlbc": 144 * free_threaded}
    fits |= {"unicode.state": head + 16, "unicode.asciiobject_size": head + 24} | copies
    fits |= (
        {name: 64 for name in names if name.startswith(("code.", "frame."))}
        | {"frame.owner": 70, "thread.thread_id": 152}
        | fits
    )
    for place, name in enumerate(names):
        words[place] = fits.get(name, 8)
    return b"xdebugpy" + struct.pack("<QQ", version << 16, free_threaded) + struct.pack("<128Q", *words)


@pytest.mark.parametrize("version", [0x30D, 0x30E, 0x30F])
def test_an_interpreter_says_its_own_offsets(version: int) -> None:
    """From 3.13 on they are read from the file."""
    fields = layouts._from_debug_offsets(debug_offsets(version), (version >> 8, version & 0xFF))
    assert (fields["thread_id"], fields["frame_owner"], fields["text_compact"]) == (152, 70, 56)
    assert (fields["head_bytes"], fields["frame_of_object"], fields["code_copies"]) == (16, 24, 0)


@pytest.mark.parametrize(("version", "text_kind", "copies"), [(0x30D, 2, (0, 0)), (0x30E, 8, (72, 144)), (0x30F, 8, (72, 144))])
def test_a_free_threaded_build(version: int, text_kind: int, copies: tuple[int, int]) -> None:
    """Its objects have a longer head; from 3.14 on threads have copies of the bytecode, and the state of a str another form."""
    fields = layouts._from_debug_offsets(debug_offsets(version, 1), (version >> 8, version & 0xFF))
    assert (fields["head_bytes"], fields["frame_of_object"], fields["bytes_data"], fields["text_compact"]) == (32, 40, 48, 72)
    assert (fields["text_kind"], (fields["frame_copy"], fields["code_copies"])) == (text_kind, copies)


def test_an_unknown_order_is_refused() -> None:
    """One whose _Py_DebugOffsets have another order, and something else altogether."""
    with pytest.raises(Unsupported, match="order"):
        layouts._from_debug_offsets(debug_offsets(0x30D), (3, 15))
    with pytest.raises(Unsupported, match="does not begin"):
        layouts._from_debug_offsets(bytes(1024), (3, 13))


def test_which_main_returns_after_system_exit() -> None:
    """gh-152132 came in the middle of two series; before 3.11 a file may not say more than its series."""
    before = [(2, 7, 18), (3, 8), (3, 12, 99), (3, 13, 0), (3, 13, 14), (3, 14, 0), (3, 14, 6)]
    after = [(3, 13, 15), (3, 13, 16), (3, 14, 7), (3, 14, 10), (3, 15, 0)]
    told = [layouts._returns_after_system_exit(version) for version in before + after]
    assert told == [False] * len(before) + [True] * len(after)


@pytest.mark.parametrize("data", [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + bytes(10), b"\x7fELF\x02\x01" + b"\xff" * 200])
def test_what_is_no_interpreter(data: bytes, tmp_path: Path) -> None:
    """Anything may be in a file that a process runs."""
    (tmp_path / "file").write_bytes(data)
    assert described(tmp_path / "file") is None
    assert described(Path("/bin/sh").resolve()) is None


def test_damaged_interpreters_do_no_harm(tmp_path: Path) -> None:
    """Whatever bytes of its headers and symbol tables are changed, the answer is an answer."""
    source = interpreter_files()[0] if interpreter_files() else Path(sys.executable).resolve()
    with source.open("rb") as opened:
        head = opened.read(4096)
    for place in range(16, 700, 3):
        damaged = bytearray(head)
        damaged[place] ^= 0xFF
        (tmp_path / "file").write_bytes(damaged)
        try:
            described(tmp_path / "file")
        except Unsupported:
            continue


def test_elf_reads_what_is_loaded() -> None:
    """Bytes at an address are those that the file loads there."""
    with open(os.path.realpath("/bin/sh"), "rb") as opened:
        elf = Elf(opened.fileno())
        assert elf.bytes_at(elf.segments[0][2], 4) == b"\x7fELF"
        with pytest.raises(ValueError, match="nothing is loaded"):
            elf.bytes_at(1 << 60, 8)


def test_library_folders() -> None:
    """The standard library of this very Python is found from the file that its interpreter is in."""
    files = [
        Path(sysconfig.get_config_var("LIBDIR") or "/", sysconfig.get_config_var("INSTSONAME") or ""),
        Path(sys.executable),
    ]
    file = next(one.resolve() for one in files if one.is_file())
    python = described(file)
    assert python is not None
    assert sysconfig.get_path("stdlib") in library_folders(str(file), python)
    assert library_folders("/nowhere/bin/python3.11", layouts.Interpreter("3.9.1", {"head_bytes": 16})) == []


def test_library_folders_of_a_free_threaded_build(tmp_path: Path) -> None:
    """It has a folder of its own, beside that of the ordinary build of the same version."""
    for name in ("python3.13", "python3.13t"):
        (tmp_path / "lib" / name).mkdir(parents=True)
        (tmp_path / "lib" / name / "os.py").touch()
    for head, name in ((16, "python3.13"), (32, "python3.13t")):
        python = layouts.Interpreter("3.13.5", {"head_bytes": head})
        assert library_folders(str(tmp_path / "bin" / "python3"), python) == [str(tmp_path / "lib" / name)]
