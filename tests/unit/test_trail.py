"""The files of a recording that is still made: over a turn nothing is read twice, and nothing is missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from traces import HEADER, MS, child, target

from forktrace.service.trail import Trail
from forktrace.trace import events as ev
from forktrace.trace import stream
from forktrace.trace.batches import as_carried


class Files:
    """Writes the files of a rotation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: list[Any] = []

    def begin(self, number: int, *repeated: ev.Row) -> stream.Writer:
        """Begin a file, which repeats some rows of those before it."""
        file = (self.folder / f"run.{number:06}.arrows").open("wb", buffering=0)
        self._open.append(file)
        writer = stream.Writer(file, HEADER | {"file": number, "rotation": 0})
        if repeated:
            writer.write(as_carried(stream.batch_of(repeated)))
        return writer


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A directory."""
    return Files(tmp_path)


def kinds(trail: Trail) -> list[tuple[str, int | None]]:
    """The kind and the process of each row that there is to read now."""
    found: list[tuple[str, int | None]] = []
    while True:
        table = pa.Table.from_batches(trail.read(), stream.SCHEMA)
        found += zip(table["kind"].to_pylist(), table["pid"].to_pylist(), strict=True)
        if not trail.is_behind:
            return found


def turn(writer: stream.Writer, **totals: Any) -> None:
    """End a file that goes on in the next."""
    writer.close(stream.batch_of([ev.end(5 * MS, '{"continues": true}' if not totals else "{}")]))


def test_over_a_turn(files: Files, tmp_path: Path) -> None:
    """What the next file repeats is left out, as is the end of a file that goes on; the end of the last is there."""
    first = files.begin(1)
    trail = Trail(str(tmp_path / "run.000001.arrows"))
    first.write(stream.batch_of([target(), *child(200, 1, 2)]))
    assert kinds(trail) == [("fork", 100), ("fork", 200), ("exit", 200), ("zombie", 200)]
    turn(first)
    assert kinds(trail) == []
    assert trail.path.endswith("run.000001.arrows")
    second = files.begin(2, target(), *child(200, 1, 2)[:1])
    second.write(stream.batch_of([ev.reap(6 * MS, 200, by=100)]))
    assert kinds(trail) == [("reap", 200)]
    assert not trail.begins_anew
    assert trail.header["file"] == 2
    turn(second, last=True)
    files.begin(3)
    assert kinds(trail) == [("end", None)]
    assert trail.path.endswith("run.000002.arrows")


def test_files_that_were_removed(files: Files, tmp_path: Path) -> None:
    """It goes on with the next one that there is and all that it repeats but losses, and takes no other recording's for it."""
    turn(files.begin(1))
    turn(files.begin(2))
    lost = ev.lost(6 * MS, 3, "exit")
    files.begin(10, *child(200, 1, 2), lost).write(stream.batch_of(child(300, 7, 8)))
    (tmp_path / "other.000003.arrows").write_bytes(b"")
    (tmp_path / "run.arrows").write_bytes(b"")
    trail = Trail(str(tmp_path / "run.000001.arrows"))
    (tmp_path / "run.000002.arrows").unlink()
    assert trail.read() == []
    assert trail.begins_anew
    assert kinds(trail) == [(kind, pid) for pid in (200, 300) for kind in ("fork", "exit", "zombie")]
    assert not trail.begins_anew


def test_the_next_file_is_empty_at_first(files: Files, tmp_path: Path) -> None:
    """It was made before its time."""
    turn(files.begin(1))
    (tmp_path / "run.000002.arrows").touch()
    trail = Trail(str(tmp_path / "run.000001.arrows"))
    assert kinds(trail) == []
    files.begin(2).write(stream.batch_of(child(300, 7, 8)))
    assert len(kinds(trail)) == 3
