"""The trace file: what is written is read, what is cut is read up to the cut, and nothing damaged gets through."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import with_changed_bytes
from traces import HEADER

from forktrace.errors import ForktraceError, PermissionMissing, TraceError
from forktrace.trace import events as ev
from forktrace.trace import stream
from forktrace.trace.batches import checksum, dictionary, integers, strings
from forktrace.trace.reading import ipc_messages

START_NS = 5_000_123_456_789


def process(time_ns: int, pid: int) -> list[ev.Row]:
    """Return the four events of a process with the columns that a recorder fills."""
    here = {"start_ns": time_ns}
    parent = {"parent": 4700, "parent_start_ns": START_NS}
    by: dict[str, Any] = {"by": 4700, "by_start_ns": START_NS}
    usage = {"utime_ns": 12_345_678 + pid, "stime_ns": 2_345_678 + pid % 97, "max_rss_kb": 23456 + pid % 100}
    exit_ns = time_ns + 200_000_000 + pid * 7919 % 1_000_003
    return [
        ev.fork(time_ns, pid, comm="python", cgroup="/user.slice/user-1000.slice/session-3.scope", **by),
        ev.exit_(exit_ns, pid, comm="python", **parent, **usage, **here),
        ev.zombie(exit_ns + 50_000, pid, **parent, **here),
        ev.reap(exit_ns + 800_000_000, pid, options=1, **by, **here),
    ]


def processes(count: int, first: int = 5000) -> list[ev.Row]:
    """Return the events of `count` processes in time order."""
    rows = [row for i in range(count) for row in process(START_NS + i * 1_000_003, first + i)]
    return sorted(rows, key=lambda row: row["time_ns"])


def written(*batches: list[ev.Row], closed: bool = True, **header: Any) -> bytes:
    """Return the bytes of a trace with these batches."""
    sink = io.BytesIO()
    writer = stream.Writer(sink, HEADER | header)
    for rows in batches:
        writer.write(stream.batch_of(rows))
    if closed:
        writer.write(stream.batch_of([ev.end(START_NS * 2)]))
        writer.close()
    return sink.getvalue()


def read_bytes(tmp_path: Path, data: bytes) -> stream.Trace:
    """Return what `read` makes of `data`."""
    path = tmp_path / "t.arrows"
    path.write_bytes(data)
    return stream.read(path)


def whole(rows: list[ev.Row]) -> list[dict[str, Any]]:
    """Return the rows with every column, as a table gives them."""
    return [{name: row.get(name) for name in ev.COLUMNS} for row in rows]


@pytest.mark.parametrize("counts", [[0], [1], [3], [1, 40, 1], [40, 1, 40, 2, 2], [300]])
def test_what_is_written_is_read(tmp_path: Path, counts: list[int]) -> None:
    """Batches of any size, small and large in turn, come back as they went in, in time order."""
    batches = [processes(count, 5000 + 1000 * i) for i, count in enumerate(counts)]
    trace = read_bytes(tmp_path, written(*batches))
    rows = [row for batch in batches for row in batch]
    assert trace.table.to_pylist()[:-1] == whole(sorted(rows, key=lambda row: row["time_ns"]))
    assert trace.cut is None
    assert trace.header == HEADER | {"format": stream.FORMAT}
    assert trace.table.schema.equals(stream.SCHEMA)


def values_of(what: str | tuple[str, ...]) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a column, null included."""
    if isinstance(what, tuple):
        return st.none() | st.sampled_from(what)
    if what in ("text", "string"):
        return st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    return st.none() | st.integers(0, 0x7EFF)


rows_of_anything = st.lists(
    st.fixed_dictionaries({name: values_of(what) for name, what in ev.COLUMNS.items()}).map(
        lambda row: row | {"time_ns": row["time_ns"] or 0, "kind": "fork"}
    ),
    max_size=20,
)


@settings(max_examples=25)
@given(st.lists(rows_of_anything, max_size=3))
def test_any_row_comes_back(batches: list[list[ev.Row]]) -> None:
    """Every column keeps every value, null and the empty string told apart."""
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"forktrace-test-{os.getpid()}.arrows"
    try:
        path.write_bytes(written(*batches))
        rows = [row for batch in batches for row in batch]
        back = [row for row in stream.read(path).table.to_pylist() if row["kind"] != "end"]
        assert back == sorted(rows, key=lambda row: row["time_ns"])
    finally:
        path.unlink()


def test_numpy_columns_make_the_same_batch() -> None:
    """`batch` from arrays equals `batch_of` from rows; a column left out is null."""
    rows = [{"time_ns": 1, "kind": "exit", "pid": 5, "comm": "b"}, {"time_ns": 2, "kind": "fork", "pid": None, "comm": "a"}]
    columns: dict[str, stream.Column] = {
        "time_ns": (np.array([1, 2]), None),
        "kind": (np.array([ev.KINDS.index("exit"), ev.KINDS.index("fork")], np.int8), None),
        "pid": (np.array([5, 77], np.int32), np.array([True, False])),
        "comm": ["b", "a"],
    }
    assert stream.batch(columns, 2).equals(stream.batch_of(rows))
    assert checksum(stream.batch(columns, 2)) == checksum(stream.batch_of(rows))


def test_a_wrong_column_is_refused() -> None:
    """A column that is not in the schema, of another length, or with a value out of its enumeration is a mistake."""
    with pytest.raises(KeyError, match="nonsense"):
        stream.batch_of([{"nonsense": 1}])
    with pytest.raises(ValueError, match="comm has 1 values in a batch of 2 rows"):
        stream.batch({"comm": ["a"]}, 2)
    with pytest.raises(ValueError, match="tuple"):
        stream.batch_of([{"kind": "nonsense"}])


def test_text_that_is_no_utf8_becomes_escapes(tmp_path: Path) -> None:
    """A file name of any bytes can be written, in a row and in the header."""
    name = os.fsdecode(b"caf\xe9")
    trace = read_bytes(tmp_path, written([ev.exec_(1, 5, [name])], command=[name]))
    assert trace.table["argv"][0].as_py() == "caf\\udce9"
    assert trace.header["command"] == ["caf?"]


def test_equal_times_keep_their_order(tmp_path: Path) -> None:
    """Sorting by time is stable, also across batches."""
    trace = read_bytes(tmp_path, written([ev.exit_(9, 1), ev.exit_(9, 2)], [ev.exit_(3, 3), ev.exit_(9, 4)]))
    assert trace.table["pid"].to_pylist() == [3, 1, 2, 4, None]


def test_sizes() -> None:
    """A batch costs at most 4 KiB and a process at most 120 bytes more; a row or five cost less than 3 KiB."""
    sink = io.BytesIO()
    writer = stream.Writer(sink, HEADER)

    def size(rows: list[ev.Row]) -> int:
        before = writer.bytes_written
        writer.write(stream.batch_of(rows))
        return writer.bytes_written - before

    assert size(process(START_NS, 5000)[:1]) <= 3072
    assert size(process(START_NS, 5001)[1:] + process(START_NS, 5002)[:2]) <= 3200
    for count in (1, 2, 3, 4, 6, 10, 30):
        assert size(processes(count, 6000)) <= 4096 + 120 * count
    for count in (100, 1000):
        assert size(processes(count, 7000)) <= 120 * count
    assert writer.bytes_written == len(sink.getvalue())


def test_the_header_and_an_empty_batch_come_at_once(tmp_path: Path) -> None:
    """A recorder that is killed before its first event leaves a trace that can be read."""
    trace = read_bytes(tmp_path, written(closed=False))
    assert trace.table.num_rows == 0
    assert trace.cut is not None
    assert "without its end mark" in trace.cut


def test_a_cut_trace_is_read_up_to_its_last_whole_batch(tmp_path: Path) -> None:
    """Wherever the file ends, the batches before that are there, and `cut` says why no more are."""
    data = written(processes(1), processes(40, 6000), processes(1, 7000))
    layout = ipc_messages.scan(io.BytesIO(data), len(data), "t")
    known = [0, 0, 4, 164, 168]  # rows before each batch: the empty one, three of processes, the end
    for offset, rows in zip(layout.batches, known, strict=True):
        assert read_bytes(tmp_path, data[:offset]).table.num_rows == rows
    generator, before = random.Random(3), 0
    for end in sorted(generator.randrange(layout.batches[0], len(data)) for _ in range(60)):
        trace = read_bytes(tmp_path, data[:end])
        assert trace.table.num_rows in (*known, 169)
        assert trace.table.num_rows >= before
        assert trace.cut is not None
        before = trace.table.num_rows
    assert read_bytes(tmp_path, data[:-8]).table.num_rows == 169


def test_a_trace_that_was_not_closed_says_so(tmp_path: Path) -> None:
    """An end mark without the last event, the totals, is a cut too."""
    sink = io.BytesIO()
    writer = stream.Writer(sink, HEADER)
    writer.close()
    assert "not closed" in str(read_bytes(tmp_path, sink.getvalue()).cut)


def test_damage_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    """A changed byte in the middle is no cut: the file, the batch and its offset are named."""
    data = bytearray(written(processes(40), processes(40, 6000)))
    layout = ipc_messages.scan(io.BytesIO(bytes(data)), len(data), "t")
    data[(layout.batches[1] + layout.batches[2]) // 2 + 400] ^= 0xFF
    with pytest.raises(TraceError, match=r"t\.arrows: damaged in batch 1 at byte \d+"):
        read_bytes(tmp_path, bytes(data))


def test_a_message_length_that_swallows_the_next_is_damage(tmp_path: Path) -> None:
    """A length that reaches beyond the file is damage when messages follow, not a cut."""
    data = bytearray(written(processes(1), processes(1, 6000), processes(1, 7000)))
    layout = ipc_messages.scan(io.BytesIO(bytes(data)), len(data), "t")
    struct.pack_into("<i", data, layout.batches[1] + 4, 60000)
    with pytest.raises(TraceError, match="reaches into the next"):
        read_bytes(tmp_path, bytes(data))


def test_mutations_give_a_result_or_a_trace_error(tmp_path: Path) -> None:
    """No changed byte crashes the reader or passes unnoticed as other events."""
    data = written(processes(1), processes(40, 6000), processes(2, 9000))
    right = read_bytes(tmp_path, data).table.to_pylist()
    generator = random.Random(7)
    refusals = []
    for _ in range(400):
        try:
            trace = read_bytes(tmp_path, with_changed_bytes(data, generator))
        except TraceError as error:
            refusals.append(str(error))
        else:
            assert trace.cut or trace.table.num_rows == len(right)
            assert all(row in right for row in trace.table.to_pylist())
    assert len(refusals) > 200
    assert not [line for line in refusals if "\n" in line]


@pytest.mark.parametrize("size", [1 << 29, 1 << 40, (1 << 63) - 1, -2])
def test_a_decompression_bomb_is_refused_before_it_grows(tmp_path: Path, size: int) -> None:
    """The declared sizes of compressed buffers are bounded before Arrow allocates them."""
    data = bytearray(written(processes(40)))
    layout = ipc_messages.scan(io.BytesIO(bytes(data)), len(data), "t")
    frame = data.index(b"\x28\xb5\x2f\xfd", layout.batches[1])  # zstd's magic number, after the int64 size
    struct.pack_into("<q", data, frame - 8, size)
    with pytest.raises(TraceError, match="a buffer of"):
        read_bytes(tmp_path, bytes(data))


def test_many_declared_gigabytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a whole file may grow to is bounded by its size, in bytes and in rows."""
    with monkeypatch.context() as patch:
        patch.setattr(ipc_messages, "FREE_BYTES", 1 << 15)
        patch.setattr(ipc_messages, "MAX_RATIO", 1)
        with pytest.raises(TraceError, match="would grow to"):
            read_bytes(tmp_path, written(*[processes(100)] * 20))
    zeros = np.zeros(400_000, np.int64)
    silent = stream.batch({"time_ns": (zeros, None), "kind": (zeros + ev.KINDS.index("waits"), None)}, len(zeros))
    sink = io.BytesIO()
    monkeypatch.setattr(stream, "FREE_BYTES", 1 << 40)  # a writer that does not care
    writer = stream.Writer(sink, HEADER)
    writer.write(silent)
    writer.close()
    assert len(sink.getvalue()) < 100_000
    with pytest.raises(TraceError, match=r"would grow to .* bytes, 400,000 rows"):
        read_bytes(tmp_path, sink.getvalue())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"hello, world", "not a trace of forktrace"),
        (b"ARROW1\0\0", "not a trace of forktrace"),
        (b"\xff\xff\xff\xff", "cut off inside its header"),
        (b"\xff\xff\xff\xff" + b"\xff" * 100, "a message header of -1 bytes"),
        (b"\xff\xff\xff\xff\x08\0\0\0" + b"\x01" * 100, "points outside itself"),
        (b"\xff\xff\xff\xff\0\0\0\0", "damaged at byte 0"),
    ],
)
def test_what_is_not_a_trace_is_told_in_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    """Empty, foreign and headless files are TraceErrors that name the file."""
    with pytest.raises(TraceError, match=rf"t\.arrows: .*{words}"):
        read_bytes(tmp_path, data)


def foreign(schema: pa.Schema) -> bytes:
    """Return an empty Arrow stream of another writer."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=schema))
    return sink.getvalue()


def written_in_format(form: int, batches: list[list[ev.Row]]) -> bytes:
    """Return the bytes of a trace as forktrace wrote it before there were requests, or before there were rotations."""
    sink = io.BytesIO()
    schema = stream.SCHEMA.with_metadata({"forktrace": json.dumps(HEADER | {"format": form})})
    with pa.ipc.new_stream(sink, schema) as writer:
        for rows in [*batches, [ev.end(START_NS * 2)]]:
            now = stream.batch_of(rows)
            codes, valid = integers(pa.chunked_array([now["kind"]]))
            kind = dictionary(strings(ev.STORED_KINDS[: ev.SHORTER[form]["kind"]]), codes, valid)
            before = now.set_column(now.schema.get_field_index("kind"), now.schema.field("kind"), kind)
            writer.write_batch(before, custom_metadata={"crc32": b"%08x" % checksum(before)})
    return sink.getvalue()


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize("counts", [[3], [1] * 200, [20, 1, 20]])
def test_a_trace_of_an_older_format_is_read(tmp_path: Path, counts: list[int], form: int) -> None:
    """Its enumeration of kinds is shorter; what comes of it is as of any other, and can be written again."""
    batches = [processes(count, 5000 + 1000 * i) for i, count in enumerate(counts)]
    trace = read_bytes(tmp_path, written_in_format(form, batches))
    assert trace.table.to_pylist() == read_bytes(tmp_path, written(*batches)).table.to_pylist()
    assert trace.table["kind"].chunk(0).dictionary.to_pylist() == list(ev.STORED_KINDS)


@pytest.mark.parametrize("count", [1, 200])
def test_a_request_in_format_1_is_damage(tmp_path: Path, count: int) -> None:
    """A number that its enumeration has not; and the enumeration of one format in a file of the other."""
    with pytest.raises(TraceError, match="damaged in batch"):
        read_bytes(tmp_path, written_in_format(1, [[ev.request(START_NS, 100)]] * count))
    with pytest.raises(TraceError, match="damaged in batch 0"):
        read_bytes(tmp_path, written_in_format(1, [processes(1)] * count).replace(b'"format": 1}', b'"format": 2}'))


def test_another_arrow_stream_is_not_a_trace(tmp_path: Path) -> None:
    """A stream without our header, or with other columns, is told apart."""
    with pytest.raises(TraceError, match="but not a trace of forktrace"):
        read_bytes(tmp_path, foreign(pa.schema([("x", pa.int8())])))
    header = pa.ipc.open_stream(written()).schema.metadata
    with pytest.raises(TraceError, match="the columns are not those of format 3"):
        read_bytes(tmp_path, foreign(pa.schema([("x", pa.int8())], metadata=header)))


@pytest.mark.parametrize(
    ("json", "words"),
    [
        (b'{"format": 4, "forktrace": "9.9"}', "written by forktrace 9.9 in format 4; this one reads up to 3"),
        (b'{"format": 4, "forktrace": "\\u001b[2J"}', r"written by forktrace \\x1b\[2J in format 4"),
        (b"{", "the header is no JSON"),
        (b"[" * 100_000, "the header is no JSON"),
        (b"[]", "names no format"),
        (b'{"format": true}', "names no format"),
        (b'{"format": 1, "forktrace": "1", "command": [1]}', "the header's command is"),
        (b'{"format": 1, "forktrace": "1", "command": ["a"]}', "the header's cwd is None"),
    ],
)
def test_a_header_that_cannot_be(tmp_path: Path, json: bytes, words: str) -> None:
    """A newer format is named with the version that wrote it; anything else that is wrong is damage."""
    with pytest.raises(TraceError, match=words):
        read_bytes(tmp_path, foreign(stream.SCHEMA.with_metadata({"forktrace": json})))


def test_what_a_header_may_leave_out(tmp_path: Path) -> None:
    """What a kernel lacked is not in older traces; where it is, it is a list of words."""
    assert read_bytes(tmp_path, written(lacks=["stacks"])).header["lacks"] == ["stacks"]
    assert "lacks" not in read_bytes(tmp_path, written()).header
    with pytest.raises(TraceError, match="the header's lacks is 7"):
        read_bytes(tmp_path, written(lacks=7))


def test_a_header_names_a_span_or_none(tmp_path: Path) -> None:
    """The span in which the target was started has the form that W3C gives it."""
    span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert read_bytes(tmp_path, written(traceparent=span)).header["traceparent"] == span
    for wrong in (7, "", f"{span};rm", span.upper(), span.replace("00f067aa0ba902b7", "0" * 16)):
        with pytest.raises(TraceError, match="the header's traceparent is"):
            read_bytes(tmp_path, written(traceparent=wrong))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (ev.exit_(-1, 5), "time_ns is -1"),
        (ev.exit_(1 << 62, 5), f"time_ns is {1 << 62}"),
        ({"kind": "exit"}, "an event without time_ns"),
        ({"time_ns": 5}, "an event without kind"),
        (ev.exit_(1, -5), "pid is -5"),
        (ev.exit_(1, 5, status=0x137F), "the wait status of an exit is 0x137f"),
        (ev.end(1, "[]"), "the totals of the end are no JSON object"),
        (ev.end(1, "{"), "the totals of the end are no JSON object"),
        (ev.exec_(1, 5, ["x"], comm="x" * 1025), "a comm of 1,025 bytes"),
        (ev.exec_(1, 5, ["\u00e9" * (1 << 15) + "x"], file="x"), "an argv of 65,537 bytes"),
        (ev.fork(1, 5, stack="a:1 f;" * 8192), "stacks of 8,193 frames, one of 8,193"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, row: ev.Row, words: str) -> None:
    """A value that no recorder writes is damage, and its batch is named."""
    with pytest.raises(TraceError, match=f"damaged in batch 2 at byte .*: {words}"):
        read_bytes(tmp_path, written(processes(1), [row]))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing files and directories are errors of one line."""
    for path in (tmp_path / "none.arrows", tmp_path):
        with pytest.raises(ForktraceError, match=str(path)):
            stream.read(path)


def test_a_file_without_permission(tmp_path: Path) -> None:
    """A trace of somebody else is a missing permission, status 77."""
    path = tmp_path / "t.arrows"
    path.touch(0)
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may read everything
    try:
        with pytest.raises(PermissionMissing):
            stream.read(path)
    finally:
        os.seteuid(user)


def test_devices_are_not_read_to_their_end() -> None:
    """/dev/zero has no end, and is no trace."""
    with pytest.raises(TraceError, match="not a trace"):
        stream.read("/dev/zero")


class Disk(io.RawIOBase):
    """A sink of `room` bytes; it takes few bytes at a time, as a pipe does."""

    def __init__(self, room: int, error: int = errno.ENOSPC) -> None:
        self.data = b""
        self.room = room
        self.error = error

    def write(self, data: Any) -> int:
        """Take up to 1,000 bytes."""
        taken = bytes(data)[: min(1000, self.room - len(self.data))]
        if not taken:
            raise OSError(self.error, os.strerror(self.error))
        self.data += taken
        return len(taken)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EPIPE])
def test_a_full_disk_keeps_what_was_written(tmp_path: Path, error: int) -> None:
    """A sink that takes no more is one clear error; the batches before it are read."""
    disk = Disk(len(written(processes(40), closed=False)) + 500, error)
    writer = stream.Writer(disk, HEADER)  # type: ignore[arg-type] - a raw file is enough
    writer.write(stream.batch_of(processes(40)))
    with pytest.raises(ForktraceError, match=f"cannot write the trace: {os.strerror(error)}"):
        writer.write(stream.batch_of(processes(40, 6000)))
    disk.room += 10_000  # somebody deletes a file: too late
    with pytest.raises(ForktraceError, match="cannot write the trace"):
        writer.write(stream.batch_of([ev.end(START_NS * 2)]))
    writer.close()
    trace = read_bytes(tmp_path, disk.data)
    assert trace.table.num_rows == 160
    assert "inside the message" in str(trace.cut)


class Everything(io.BytesIO):
    """A sink that fails the test when it is given more than `most` bytes."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def write(self, data: Any) -> int:
        """Take all of it."""
        assert self.tell() + len(data) <= self.most
        return super().write(data)


def largest_totals() -> pa.RecordBatch:
    """Return the batch of an end that counts as much as it ever can, and more."""
    counts = dict.fromkeys(ev.KINDS, 1 << 62)
    losses = {f"{kind} with a long name": 1 << 62 for kind in ev.KINDS * 2}
    return stream.batch_of([ev.end(1 << 61, json.dumps({"events": counts, "lost": losses, "processes": 1 << 62}))])


@pytest.mark.parametrize("most", [32 << 10, 48 << 10, 100_001])
def test_a_trace_stays_within_its_size(tmp_path: Path, most: int) -> None:
    """What does not fit is not begun; smaller batches may follow, large and small in turn, and the end always fits."""
    sink = Everything(most)
    writer = stream.Writer(sink, HEADER, most)
    written: list[ev.Row] = []
    refused = 0
    generator = random.Random(most)
    for first in range(5000, 2_000_000, 1000):
        rows = processes(generator.choice([1, 2, 40, 900]), first)
        try:
            writer.write(stream.batch_of(rows))
        except stream.Full:
            refused += 1
            if refused == 30:
                break
        else:
            written += rows
    writer.close(largest_totals())
    trace = read_bytes(tmp_path, sink.getvalue())
    assert trace.cut is None
    assert trace.table.to_pylist()[:-1] == whole(sorted(written, key=lambda row: row["time_ns"]))
    assert most - stream.END_BYTES - 4096 < writer.bytes_written <= most


def test_a_size_that_does_not_hold_the_header() -> None:
    """Is told before anything is written."""
    sink = io.BytesIO()
    with pytest.raises(stream.Full):
        stream.Writer(sink, HEADER | {"command": ["x" * 65536]}, 65536)
    assert sink.getvalue() == b""


def write_long(path: Path, batches: int) -> None:
    """Write a trace of many batches with one process each."""
    small = [stream.batch_of(process(START_NS + i, 5000 + i)) for i in range(10)]
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        for i in range(batches):
            writer.write(small[i % 10])
        writer.write(stream.batch_of([ev.end(START_NS * 2)]))
        writer.close()


def test_many_tiny_batches_are_merged(tmp_path: Path) -> None:
    """Merging keeps every event, the header, the mode and the owner, and leaves nothing else behind."""
    path = tmp_path / "t.arrows"
    write_long(path, 1200)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    before, old = stream.read(path), path.stat()
    assert stream.merge(path)
    after, new = stream.read(path), path.stat()
    assert after.table.to_pylist() == before.table.to_pylist()
    assert (after.header, after.cut) == (before.header, None)
    assert new.st_size < old.st_size / 10
    assert (stat.S_IMODE(new.st_mode), new.st_uid, new.st_gid) == (0o640, old.st_uid, old.st_gid)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.arrows"]
    assert not stream.merge(path)


def test_merged_dictionaries_are_sorted(tmp_path: Path) -> None:
    """Batch-local dictionaries hold the words of their batch, in order."""
    words = ["zsh", "awk", "make", None, "awk"]
    parts = [stream.batch_of([ev.exit_(9 - i, 5, comm=word)]) for i, word in enumerate(words)]
    batch = stream.merged(parts)
    assert batch["comm"].dictionary.to_pylist() == ["awk", "make", "zsh"]
    assert batch["comm"].to_pylist() == words[::-1]


def test_what_lies_under_a_null_is_repeated() -> None:
    """In a merged batch, of numbers, enumerations and texts: zstd makes less of that than of zeros; the rows stay the same."""
    rows = [ev.exit_(1, 5, adopter=7, comm="a", disposition="ignored"), ev.lost(2, 1, "fork")]
    rows += [ev.exit_(3, 5, adopter=9, comm="b"), ev.lost(4, 1, "fork")]
    parts = [stream.batch_of([row]) for row in rows]
    batch = stream.merged(parts)
    assert batch.to_pylist() == stream.batch_of(rows).to_pylist()
    under = {name: integers(pa.chunked_array([batch[name]]))[0].tolist() for name in ("adopter_pid", "disposition", "comm")}
    assert under == {"adopter_pid": [7, 7, 9, 9], "disposition": [2, 2, 0, 0], "comm": [0, 0, 1, 1]}
    batch.validate(full=True)


def test_little_is_packed_more_tightly(tmp_path: Path) -> None:
    """What an hour of a quiet program is merged to is smaller than by the level of zstd that a large trace gets."""
    path, some = tmp_path / "t.arrows", random.Random(7)
    rows = [row for i in range(300) for row in process(START_NS + i * 10**9 + some.randrange(10**7), 5000 + i)]
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        for row in rows:
            writer.write(stream.batch_of([row]))
        writer.close()
    assert stream.merge(path)
    fast = stream.Writer(io.BytesIO(), HEADER, level=9)
    fast.write(stream.merged(stream.batch_of([row]) for row in rows))
    fast.close()
    assert path.stat().st_size < fast.bytes_written
    assert stream.read(path).table.num_rows == len(rows)


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_merge_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    """Whatever goes wrong, the trace is as it was."""
    path = tmp_path / "t.arrows"
    write_long(path, 1200)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    assert not stream.merge(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.arrows"]


def test_what_opens_fast_or_was_cut_is_not_merged(tmp_path: Path) -> None:
    """A short trace, one that is cut off, one that is damaged, and what is no file at all stay as they are."""
    path = tmp_path / "t.arrows"
    path.write_bytes(written(processes(3)))
    assert not stream.merge(path)
    write_long(path, 1100)
    path.write_bytes(path.read_bytes()[:-8])
    assert not stream.merge(path)
    path.write_bytes(b"no trace")
    assert not stream.merge(path)
    assert not stream.merge("/dev/null")
    assert not stream.merge(tmp_path / "none.arrows")


def test_recording_and_merging_import_no_pandas(tmp_path: Path) -> None:
    """The recorder stays small: pandas costs most of a second and 40 MB."""
    path = tmp_path / "t.arrows"
    write_long(path, 1100)
    program = (
        "import sys; from forktrace.trace import stream, events as ev\n"
        "stream.Writer(open('/dev/null', 'wb'), {}).write(stream.batch_of([ev.exit_(1, 5, comm='a')] * 50))\n"
        f"assert stream.merge({str(path)!r}) and stream.read({str(path)!r}).cut is None\n"
        "assert 'pandas' not in sys.modules, 'pandas'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
