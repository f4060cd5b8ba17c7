"""A trace that is read while it is written."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from traces import HEADER, MS, child, consumer, target

from forktrace.errors import NoFile, TraceError
from forktrace.service import growing
from forktrace.service.growing import Growing
from forktrace.trace import events as ev
from forktrace.trace import stream


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the trace is."""
    return tmp_path / "run.arrows"


def written(path: Path, *batches: list[ev.Row]) -> bytes:
    """Write a whole trace and return its bytes."""
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        for rows in batches:
            writer.write(stream.batch_of(rows))
        writer.close()
    return path.read_bytes()


def rows_of(batches: list[pa.RecordBatch]) -> list[dict[str, object]]:
    """The rows of batches, as the reader of whole traces returns them."""
    return pa.Table.from_batches(batches, stream.SCHEMA).to_pylist()


def test_every_byte_is_a_place_to_stop(path: Path) -> None:
    """Wherever the file ends for now, what is whole is returned once, in order, as the reader of whole traces has it."""
    data = written(path, [target()], child(4711, 1, 2), consumer(20), [ev.end(9_000 * MS)])
    whole = stream.read(path).table.to_pylist()
    with path.open("wb", buffering=0) as file:
        trace = Growing(path)
        assert trace.read() == []
        found: list[dict[str, object]] = []
        for place in range(0, len(data), 97):
            file.write(data[place : place + 97])
            found += rows_of(trace.read())
    assert sorted(map(repr, found)) == sorted(map(repr, whole))
    assert trace.header["command"] == HEADER["command"]
    assert trace.ended
    assert trace.read() == []


def test_a_look_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come since the last look is returned in parts, whose dictionaries may be those of parts before."""
    monkeypatch.setattr(growing, "MOST_ROWS", 10)
    written(path, *(child(4711 + number, number + 1, number + 2) for number in range(40)))
    trace = Growing(path)
    parts = [rows_of(part) for part in iter(trace.read, [])]
    assert {len(part) for part in parts} == {12}
    assert [row for part in parts for row in part] == stream.read(path).table.to_pylist()
    assert {row["comm"] for part in parts for row in part if row["kind"] == "fork"} == {"child"}


def test_what_is_wrong_is_a_trace_error(path: Path) -> None:
    """A file that is no trace, one that became shorter, a wrong checksum and an impossible value are named with their place."""
    data = written(path, [target()], child(4711, 1, 2))
    trace = Growing(path)
    assert trace.read()
    path.write_bytes(data[:-400])
    trace.ended = False
    with pytest.raises(TraceError, match="shorter than it was"):
        trace.read()
    path.write_bytes(data.replace(b"child", b"chilt"))
    with pytest.raises(TraceError, match="the checksum is wrong"):
        Growing(path).read()
    path.write_text("A text, and no trace at all.")
    with pytest.raises(TraceError, match="damaged at byte 0"):
        Growing(path).read()
    written(path, [target() | {"parent_pid": -5}])
    with pytest.raises(TraceError, match="parent_pid is -5"):
        Growing(path).read()


def test_no_file(path: Path) -> None:
    """A file that is not there is said to be not there."""
    with pytest.raises(NoFile):
        Growing(path)
