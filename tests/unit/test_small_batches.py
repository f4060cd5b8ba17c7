"""Small batches that are read many at once: the same rows, and the same refusals, as one by one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from mutants import with_changed_bytes
from traces import HEADER

from forktrace.errors import TraceError
from forktrace.trace import events as ev
from forktrace.trace import stream
from forktrace.trace.reading import ipc_messages, small_batches

TEXTS = ("python", "sh", "/a/b", "x;y", "Gr\u00fc\u00dfe", "")


def some_rows(generator: random.Random, count: int) -> list[ev.Row]:
    """Return rows of any kind, with any columns filled."""
    return [{name: some_value(generator, what) for name, what in ev.COLUMNS.items()} | known(generator) for _ in range(count)]


def known(generator: random.Random) -> ev.Row:
    """Return what every row has."""
    return {"time_ns": generator.randrange(1 << 40), "kind": "fork", "status": None}


def some_value(generator: random.Random, what: str | tuple[str, ...]) -> Any:
    """Return a value for such a column, or null."""
    if generator.random() < 0.4:
        return None
    if isinstance(what, tuple):
        return generator.choice(what)
    return generator.choice(TEXTS) if what in ("text", "string") else generator.randrange(1 << 30)


def write(path: Path, sizes: list[int], seed: int = 1) -> None:
    """Write a trace with batches of so many rows; at times only with nulls in a column, at times without any."""
    generator = random.Random(seed)
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        for size in sizes:
            rows = some_rows(generator, size)
            name = generator.choice([*ev.COLUMNS])
            if name not in ("time_ns", "kind", "status"):
                value = generator.choice([None, some_value(generator, ev.COLUMNS[name])])
                rows = [row | {name: value} for row in rows]
            writer.write(stream.batch_of(rows))
        writer.write(stream.batch_of([ev.end(1 << 41)]))
        writer.close()


def read_one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the trace as the careful reader has it, or what it complains of."""
    with monkeypatch.context() as patch:
        patch.setattr(small_batches, "FEWEST", 1 << 40)
        return read(path)


def read(path: Path) -> Any:
    """Return the rows and the reason of a cut, or the complaint."""
    try:
        trace = stream.read(path)
    except TraceError as error:
        return str(error)
    return trace.table.to_pylist(), trace.cut


def joined_batches(path: Path) -> int | None:
    """Return to how many batches the file is joined; None: it is read one by one."""
    data = path.read_bytes()
    with path.open("rb") as file:
        parts = stream._fast(data, ipc_messages.scan(file, len(data), "t"), "t")
    return None if parts is None else len(parts)


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([3] * 80, 3),  # the empty batch at the start, 70 of the run and the rest of it
        ([1, 11, 4, 2] * 40, 4),
        ([2] * 70 + [12] + [3] * 70, 5),
        ([2] * 70 + [30, 1, 40] + [3] * 70 + [50], 8),
        ([12] * 30 + [3] * 90, 33),
        ([2] * 70 + [0] + [2] * 70, 5),
        ([2] * 40 + [40] + [2] * 40, None),
        ([100] * 5, None),
    ],
)
def test_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], parts: int | None) -> None:
    """In the same order, whatever comes between, with dictionaries that change from batch to batch."""
    path = tmp_path / "t.arrows"
    write(path, sizes)
    monkeypatch.setattr(small_batches, "MOST", 70)
    assert joined_batches(path) == parts
    rows, cut = read(path)
    assert (rows, cut) == read_one_by_one(path, monkeypatch)
    assert len(rows) == sum(sizes) + 1
    assert cut is None


def test_a_dictionary_that_came_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of a small batch may be those of a large one before it."""
    path = tmp_path / "t.arrows"
    words = {"comm": "python" * 50, "cgroup": "/a" * 50}
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        for count in [40, *[2] * 80]:
            writer.write(stream.batch_of([ev.exit_(number, 5, **words) for number in range(count)]))
        writer.close()
    assert joined_batches(path) == 3
    rows, _ = read(path)
    assert rows == read_one_by_one(path, monkeypatch)[0]
    assert {row["comm"] for row in rows} == {words["comm"]}


def test_cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is cut off anywhere is read up to the same batch, with the same words."""
    path = tmp_path / "t.arrows"
    write(path, [3] * 20)
    whole = path.read_bytes()
    monkeypatch.setattr(small_batches, "FEWEST", 4)
    generator = random.Random(3)
    for _ in range(60):
        path.write_bytes(whole[: generator.randrange(len(whole))])
        assert read(path) == read_one_by_one(path, monkeypatch)


def test_mutations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No changed byte passes here that the careful reader refuses, and the refusal is the same."""
    path = tmp_path / "t.arrows"
    write(path, [2] * 8 + [15] + [3] * 8, seed=5)
    whole = path.read_bytes()
    monkeypatch.setattr(small_batches, "FEWEST", 4)
    assert joined_batches(path) == 4
    generator = random.Random(11)
    outcomes = []
    for _ in range(300):
        path.write_bytes(with_changed_bytes(whole, generator))
        outcome = read(path)
        assert outcome == read_one_by_one(path, monkeypatch)
        outcomes.append(type(outcome))
    assert outcomes.count(str) > 100
    assert outcomes.count(tuple) > 10


def test_other_words_of_an_enumeration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dictionary has to be the one that the columns are described with, which no checksum covers."""
    path = tmp_path / "t.arrows"
    write(path, [3] * 80)
    whole = path.read_bytes()
    with path.open("rb") as file:
        layout = ipc_messages.scan(file, len(whole), "t")
    calls = next(whole[one.offset : one.end] for one in layout.messages if b"wait4" in whole[one.offset : one.end])
    middle = layout.batches[40]
    path.write_bytes(whole[:middle] + calls + whole[middle:])
    assert len(read(path)[0]) == 241
    path.write_bytes(whole[:middle] + calls.replace(b"wait4", b"wait5") + whole[middle:])
    assert read(path) == read_one_by_one(path, monkeypatch)
    assert "damaged in batch 40" in read(path)


def test_headers_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing is read from them: these bytes are of tables that point to what is."""
    path = tmp_path / "t.arrows"
    write(path, [2] * 80)
    whole = path.read_bytes()
    with path.open("rb") as file:
        start = ipc_messages.scan(file, len(whole), "t").batches[5]
    for place in (18, 68, 100, 113):
        path.write_bytes(whole[: start + place] + b"\xff" + whole[start + place + 1 :])
        assert isinstance(read(path), str)
        assert read(path) == read_one_by_one(path, monkeypatch)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("comm", 99, "out of bounds"),
        ("call", 99, "out of bounds"),
        ("comm", -1, "out of bounds"),
        ("argv", b"\xff", "UTF8"),
        ("pid", -5, "pid is -5"),
    ],
)
def test_what_no_recorder_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str, value: Any, words: str) -> None:
    """A batch whose checksum is right and whose values are not is refused, by its number."""
    path = tmp_path / "t.arrows"
    good = [ev.exec_(1, 5, ["x"], file="x", comm="x", call="fork"), ev.exec_(2, 5, ["y"], file="y", comm="y", call="vfork")]
    batch = stream.batch_of(good)
    place = batch.schema.get_field_index(column)
    old = batch.column(place)
    buffers = old.buffers()
    changed = bytearray(buffers[-1])
    width = {"comm": 4, "call": 1, "argv": 1, "pid": 4}[column]
    changed[:width] = value if isinstance(value, bytes) else value.to_bytes(width, "little", signed=True)
    buffers[-1] = pa.py_buffer(bytes(changed))
    dictionary = old.dictionary if isinstance(old, pa.DictionaryArray) else None
    bad_array = (
        pa.Array.from_buffers(old.type, 2, buffers)
        if dictionary is None
        else pa.DictionaryArray.from_buffers(old.type, 2, buffers, dictionary)
    )
    bad = batch.set_column(place, batch.schema.field(place), bad_array)
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        for one in [*[batch] * 70, bad, *[batch] * 70]:
            writer.write(one)
        writer.close()
    complaint = read(path)
    assert complaint == read_one_by_one(path, monkeypatch)
    assert "damaged in batch 71 at byte" in complaint
    assert words in complaint
