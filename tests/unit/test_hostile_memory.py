"""What a program can put into its own memory, and so into the records of the probes, is read within bounds."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from test_rows import NOT_PYTHON, record
from test_walked_stacks import code_record, fresh, stack_record, texts
from traces import HEADER

from forktrace.cpython.line_tables import Code
from forktrace.kernel.layout import layouts
from forktrace.recorder import stack_table as stacks_module
from forktrace.recorder.rows import columns_of, in_parts, pieces, split
from forktrace.recorder.stack_table import TEXT_MOST, StackTable
from forktrace.trace import events, stream
from forktrace.trace.reading import ipc_messages
from forktrace.trace.stacks import unfold
from forktrace.trace.stream import Writer, batch, batch_of, read

MIB = 1 << 20
SOON_S = 60
VERSIONS = (0x207, 0x308, 0x30A, 0x30B, 0x30E)
ENDLESS = bytes([13 << 3]) + b"\xff" * 16000  # from 3.11 on: a difference of lines, of 96,000 bits


def coded(table: bytes, version: int = 0x30B, **more: Any) -> bytes:
    """A code record with this line table."""
    whole = code_record(1, version=version, lines_bytes=len(table), lines_whole=len(table), **more)
    return whole + table


def place(record_: bytes, instruction: int = 0) -> str:
    """The text of a stack of one frame of this code."""
    stacks, _ = fresh()
    stacks.add_code(record_)
    stacks.add_stack(stack_record(10, (1, instruction)))
    ((text, status),) = texts(stacks, (10, "ok"))
    assert status == "ok"
    assert text is not None
    return text


@pytest.mark.parametrize("table", [ENDLESS, bytes([13 << 3]) + b"\x7f" * 6 + b"\x01"])
def test_lines_without_bounds(table: bytes) -> None:
    """A line number of thousands of digits, or one below 0, is none."""
    assert place(coded(table)) == "/srv/a.py:0 f"


def test_a_first_line_without_bounds() -> None:
    """So is a function's own."""
    for first_line in ((1 << 31), (1 << 32) - 1):
        assert place(coded(b"", first_line=first_line), (1 << 32) - 1) == "/srv/a.py:0 f"
    assert place(coded(b"", first_line=(1 << 31) - 1), (1 << 32) - 1) == f"/srv/a.py:{(1 << 31) - 1} f"


@pytest.mark.parametrize("version", VERSIONS)
def test_any_table_is_read(version: int) -> None:
    """Whatever is in it: a line that a trace can hold, soon."""
    chance, start = random.Random(5), time.monotonic()
    for size in [0, 1, 2, 7, 100, 1000] * 20 + [16383] * 5:
        code = Code("f.py", "f", chance.getrandbits(32), chance.randbytes(size), version)
        assert all(0 <= code.line(chance.getrandbits(32)) < 1 << 31 for _ in range(20))
    assert time.monotonic() - start < SOON_S


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 7, (1 << 32) - 1])
def test_any_name_is_read(version: int, width: int) -> None:
    """Half a character, lone surrogates, numbers that are none: names with escapes, of one frame."""
    for name in (b"\xff" * 255, b"\x00\xd8" * 100 + b"x", bytes(range(256))):
        text = place(coded(b"", version, name=name, path=name, name_width=width, path_width=width))
        assert len(unfold(text.encode("utf-8", "backslashreplace").decode())) == 1


def test_long_stacks_are_cut() -> None:
    """Of 1,024 frames with names of a kilobyte the innermost are kept, and the status says so."""
    stacks, _ = fresh()
    stacks.add_code(code_record(1, path=b"/" + b"p" * 1000))
    stacks.add_code(code_record(2, path=b"/inner.py"))
    stacks.add_stack(stack_record(10, (2, 0), *[(1, 0)] * 1023))
    stacks.add_stack(stack_record(11, (2, 0), *[(2, 0)] * 1023))
    (cut, status), (whole, fine) = texts(stacks, (10, "ok"), (11, "ok"))
    assert (status, fine) == ("truncated", "ok")
    assert TEXT_MOST * 0.9 < len(cut or "") <= TEXT_MOST
    assert unfold(cut or "")[-1].file == "/inner.py"
    assert len(unfold(whole or "")) == 1024


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless new code objects with long tables, and endless new stacks: what was kept of them is forgotten in time."""
    monkeypatch.setattr(stacks_module, "MOST_BYTES", MIB)
    tracemalloc.start()
    stacks, forgotten = fresh()
    table = bytes([15 << 3]) * 16000
    for number in range(1, 60):
        code = bytearray(coded(table))
        code[:8] = number.to_bytes(8, "little")
        stacks.add_code(bytes(code))
        stacks.add_stack(stack_record(1000 + number, *[(number, 2 * at) for at in range(50)]))
        stacks.make_room()
    assert tracemalloc.get_traced_memory()[0] < 4 * MIB
    tracemalloc.stop()
    assert len(forgotten) > 5


def ring(count: int, **fields: Any) -> bytes:
    """So many exec records, with nearly no arguments."""
    size = layouts()["exec_record"].fields["argv"][1] + 8  # type: ignore[index]
    return b"".join(record("exec", number, number, size, argv_bytes=8, **fields) for number in range(count))


def test_pieces_are_whole_records() -> None:
    """Cut anywhere near a size, they are what the ring held."""
    chunk = ring(100) + record("fork", 1, 1)
    one = len(ring(1))
    for most in (1, one, one + 1, 10 * one, len(chunk) - 1, len(chunk), 2 * len(chunk)):
        found = list(pieces(chunk, most))
        assert b"".join(found) == chunk
        assert all(len(piece) < most + one for piece in found)
        assert sum(len(split(piece)[0].get("exec", ())) for piece in found) == 100
    assert list(pieces(b"")) == []


def test_a_piece_takes_little_memory() -> None:
    """Records of 400 bytes, each of which may be as long as 4 KiB, as many as fit."""
    (first, *_) = pieces(ring(30_000))
    tracemalloc.start()
    records, _ = split(first)
    assert len(records["exec"]) > 10_000
    assert tracemalloc.get_traced_memory()[1] < 250 * MIB
    tracemalloc.stop()


def test_parts_hold_no_more_text_than_they_may() -> None:
    """Columns whose texts are long are cut, and nothing gets lost; a text that repeats counts once where it is kept once."""
    records, _ = split(ring(64, file=b"/x" * 100))
    columns, rows = columns_of(records, lambda *_: "/group", lambda *_: None, 1, StackTable(print, NOT_PYTHON.__contains__))
    assert [number for _, number in in_parts(columns, rows)] == [64]
    parts = list(in_parts(columns, rows, 100))
    assert [number for _, number in parts] == [1] * 64
    assert [row for part in parts for row in batch(*part).to_pylist()] == batch(columns, rows).to_pylist()


def test_what_was_written_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that zstd makes hundreds of times smaller: the reader takes no file that grows so much, so none is written."""
    for module in (stream, ipc_messages):
        monkeypatch.setattr(module, "FREE_BYTES", MIB)
        monkeypatch.setattr(module, "MAX_RATIO", 10)
    path, text = tmp_path / "trace.arrows", "/deep.py:1 f;" * 5_000
    with path.open("wb") as sink:
        writer = Writer(sink, HEADER)
        for number in range(50):
            rows = [events.fork(number * 12 + each, 5, stack=f"{number} {each}{text}") for each in range(12)]
            writer.write(batch_of(rows))
        writer.write(batch_of([events.end(10**6)]))
        writer.close()
    trace = read(path)
    assert trace.cut is None
    assert trace.table.num_rows == 601
