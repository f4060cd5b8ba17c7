"""Traces that are damaged, cut off, or say what no recorder says: mutant N of seed S is always the same one."""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import tempfile
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from traces import HEADER, MS

from forktrace.trace import events as ev
from forktrace.trace import stream
from forktrace.trace.batches import SCHEMA, checksum
from forktrace.trace.checks import FORMAT
from forktrace.trace.reading import ipc_messages

DATA: Final = Path(__file__).parent / "data"

# Names that try to steer something: a terminal, a spreadsheet, matplotlib, XML, rich, a shell, str.format, CSV, Markdown.
EVIL: Final = (
    *(
        "\x1b]0;pwned\x07",
        "\x1b[2J\x1b[31m",
        "\x9b31m",
        "a\nb",
        "a\r\nb",
        "\u202eevil\u202c",
        "\u2066x\u2069",
        "\u2028",
        "\x7f",
    ),
    *(
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\uff1d1+1",
        "=cmd|' /C calc'!A0",
        '"=1"',
        "'",
        ",",
        ";=1",
        "\ufeff=1",
    ),
    *("$\\frac{", "$x$", "$", "\\$", "_^{", "<script>alert(1)</script>", "]]>", "--><x>", "&amp;", "<!--", "\x00", "\ud800"),
    *(
        "[bold]x[/bold]",
        "[/]",
        "[link=http://x]y[/link]",
        ":smile:",
        "{0}",
        "{it}",
        "%s",
        "`id`",
        "$(id)",
        "| a | b |",
        "![x](y)",
    ),
    *(
        "\u0338" * 40,
        "\u200b",
        "\U000e0041",
        "\U0001f600",
        "\u3042" * 50,
        "a" * 5000,
        "",
        " ",
        "/",
        "/" * 3000,
        "..",
        "a:b:c",
        ";;;",
        "::",
    ),
    *(
        "x.py:" + "9" * 5000 + " f",
        "x.py:\u0665 f",
        "x.py:99999999999999999999 f",
        "<signal handler>:17 SIGCHLD",
        "<string>:1 <module>",
    ),
    *(
        "[1" * 2000,
        '{"version": 1e999, "libraries": [1, null, {}]}',
        '{"version": "' + "9" * 5000 + '", "libraries": ["/"]}',
        "NaN",
    ),
    *(
        '{"processes": 1e400}',
        '{"processes": ' + "9" * 4000 + "}",
        '{"lost": {"\x1b[31m": 5}, "processes": -1}',
        "argv cut",
        "\0" * 3000,
    ),
    *(
        "sh\0-c\0\x1b[2J",
        "python\0-m\0multiprocessing.spawn",
        "python\0-c\0from multiprocessing.spawn import x; x(",
        "python\0-W",
    ),
)
EXTREMES: Final = (
    *(0, 1, 2, -1, -2, 10, 17, 127, 128, 255, 256, 0x7F, 0xFFFF, 0x10000, 0x137F, 2**31 - 1, -(2**31), 2**32 - 1, 2**32),
    *(2**53 + 1, 2**62 - 1, 2**62, 2**63 - 1, -(2**63), 999_999_999_999_999_999),
)


def careless_writer(sink: io.BytesIO, header: dict[str, Any]) -> stream.Writer:
    """Return a writer that packs all it can, however much that would be for a reader."""
    writer = stream.Writer(sink, header)
    writer._declared = -(1 << 50)
    return writer


def trace_of(*batches: list[ev.Row], closed: bool = True, **header: Any) -> bytes:
    """Return a trace whose checksums are right; values too wide for their column are cut to its width."""
    sink = io.BytesIO()
    writer = careless_writer(sink, HEADER | header)
    end_ns = 0
    for rows in batches:
        fitted = [{name: fitting(name, value) for name, value in row.items()} for row in rows]
        writer.write(stream.batch_of(fitted))
        end_ns = max([end_ns, *(row.get("time_ns") or 0 for row in fitted)])
    if closed:
        writer.write(stream.batch_of([ev.end(end_ns)]))
    writer.close()
    return sink.getvalue()


def fitting(name: str, value: Any) -> Any:
    """Return an integer as the width of its column lets it be."""
    if not isinstance(value, int):
        return value
    bits = 32 if ev.COLUMNS[name] == "int32" else 64
    return (value + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def rows_of(data: bytes) -> tuple[dict[str, Any], list[ev.Row]]:
    """Return the header and the rows of a trace, without nulls."""
    with tempfile.NamedTemporaryFile(suffix=".arrows") as file:
        file.write(data)
        file.flush()
        trace = stream.read(file.name)
    rows = [{name: value for name, value in row.items() if value is not None} for row in trace.table.to_pylist()]
    return trace.header, rows


class Seeds:
    """The traces that are mutated: recordings of the scenes, and some that hold what these do not."""

    def __init__(self) -> None:
        self.traces = {path.stem: path.read_bytes() for path in sorted(DATA.glob("*.arrows"))}
        rich = every_kind()
        self.traces["kinds"] = trace_of(rich)
        self.traces["small"] = trace_of(*([row] for row in rich * 5))  # batches so small that runs.py reads them
        self.traces["family"] = trace_of(family(90))
        self.rows = {name: rows_of(data) for name, data in self.traces.items() if name != "small"}


def every_kind() -> list[ev.Row]:
    """Return rows of every kind, about orphans, thieves and adopted ones."""
    stack = "/srv/consumer.py:41 main;/usr/lib/python3.11/multiprocessing/process.py:121 start"
    rows = [
        ev.fork(0, 100, by=50, origin="target", comm="python"),
        ev.exec_(1 * MS, 100, ["python", "consumer.py"], cgroup="/user"),
        ev.runtime(1 * MS, "/usr/bin/python3", "3.11.7", ["/usr/lib/python3.11"]),
        ev.source(2 * MS, "/srv/consumer.py", 41, "p.start()"),
        ev.fork_failed(3 * MS, 100, 11, detail="RLIMIT_NPROC", stack=stack, stack_status="ok"),
        ev.oom(30 * MS, 103),
        ev.waits(40 * MS, 7, by=100, stack=stack, stack_status="ok", call="wait4", target="any", flags=1),
        ev.waits(40 * MS, 7, pid=101),
        ev.wait(41 * MS, 101, by=100, result=10),
        ev.wait(41 * MS, None, by=100, call="waitid", target="any", flags=4),
        ev.signal(29 * MS, 103, 9, sent_by="kernel"),
        ev.signal(29 * MS, 102, 15, by=100, stack=stack, stack_status="ok"),
        ev.lost(42 * MS, 3, "exit"),
        ev.fork(50 * MS, 200, by=None, origin="adopted", parent=100),
        ev.autoreap(60 * MS, 104),
    ]
    for number, call in enumerate(("wait4", "waitid", "unseen", "kernel", None)):
        pid = 101 + number
        rows.append(ev.fork((10 + number) * MS, pid, by=100 + number // 2, stack=stack, stack_status="ok", comm="python"))
        rows.append(ev.exit_((30 + number) * MS, pid, 9 if number == 2 else 0, parent=100, adopter=1, exit_from="other"))
        rows.append(ev.zombie((31 + number) * MS, pid, parent=100))
        if call:
            rows.append(ev.reap((35 + number) * MS, pid, by=100, call=call, options=1, empty=3, stack=stack, stack_status="ok"))
    return sorted(rows, key=lambda row: row["time_ns"])


def family(children: int) -> list[ev.Row]:
    """Return rows of more processes than the timeline has bars for: each forks the next, and starts sweep the dead."""
    rows = [ev.fork(0, 100, by=50, origin="target", comm="python")]
    for number in range(children):
        pid, at = 1000 + number, (number + 1) * 10 * MS
        rows += [ev.fork(at, pid, by=100, comm=f"c{number}", call="clone"), ev.exit_(at + 2 * MS, pid, 0, parent=100)]
        rows.append(ev.zombie(at + 2 * MS, pid, parent=100))
        if number % 7 == 6:
            rows += [ev.reap(at + 9 * MS + back, pid - back, by=100, options=1) for back in range(6)]
    return sorted(rows, key=lambda row: row["time_ns"])


Mutant = tuple[str, bytes]
Dice = random.Random


def mutant(seeds: Seeds, seed: int, number: int) -> Mutant:
    """Return the name and the bytes of mutant `number`."""
    dice = random.Random(f"{seed}/{number}")
    makers = [flip, flip, cut, splice, overwrite, shuffle_messages, fields, fields, fields, fields, arrays, headers]
    make = makers[number % len(makers)]
    name = dice.choice([*seeds.traces])
    return f"{make.__name__} of {name}", make(seeds, name, dice)


def flip(seeds: Seeds, name: str, dice: Dice) -> bytes:
    """Change bytes or bits."""
    data = bytearray(seeds.traces[name])
    for _ in range(dice.choice((1, 1, 1, 2, 8, 64))):
        place = dice.randrange(len(data))
        data[place] = dice.choice((data[place] ^ 1 << dice.randrange(8), 0, 255, 127, 128, dice.randrange(256)))
    return bytes(data)


def cut(seeds: Seeds, name: str, dice: Dice) -> bytes:
    """Cut off the end, at times with rubbish in its place."""
    data = seeds.traces[name]
    return data[: dice.randrange(len(data))] + dice.choice((b"", b"", bytes(8), b"\xff" * 8, dice.randbytes(40)))


def splice(seeds: Seeds, name: str, dice: Dice) -> bytes:
    """Move, repeat, drop or lend a stretch; at times whole words of 8 bytes, as Arrow lays them out."""
    data, other = seeds.traces[name], seeds.traces[dice.choice([*seeds.traces])]
    unit = dice.choice((1, 8, 64))
    start, stop, at = (dice.randrange(len(data)) // unit * unit for _ in range(3))
    start, stop = sorted((start, stop))
    stop = min(stop, start + dice.choice((8, 64, 4096, 1 << 20)))
    what = dice.randrange(4)
    if what == 0:
        return data[:start] + data[stop:]
    part = other[start:stop] if what == 1 else data[start:stop]
    return data[:at] + part + data[at if what < 3 else min(at + len(part), len(data)) :]


def overwrite(seeds: Seeds, name: str, dice: Dice) -> bytes:
    """Put extreme integers where Arrow has lengths, offsets and counts."""
    data = bytearray(seeds.traces[name])
    for _ in range(dice.choice((1, 1, 2, 4))):
        form = dice.choice(("<i", "<q", "<H", "<q"))
        size = struct.calcsize(form)
        place = dice.randrange((len(data) - size) // size) * size
        bits = 8 * size
        value = dice.choice(EXTREMES) & (1 << bits) - 1
        data[place : place + size] = value.to_bytes(size, "little")
    return bytes(data)


def messages(data: bytes) -> list[bytes]:
    """Return the messages of a trace, the schema first, without the end mark."""
    found = ipc_messages.scan(io.BytesIO(data), len(data), "seed").messages
    return [data[one.offset : one.end] for one in found]


def shuffle_messages(seeds: Seeds, name: str, dice: Dice) -> bytes:
    """Drop, repeat, reorder or lend whole messages: the checksums stay right, the dictionaries may not."""
    schema, *rest = messages(seeds.traces[name])
    lent = messages(seeds.traces[dice.choice([*seeds.traces])])
    for _ in range(dice.choice((1, 1, 2, 5))):
        one = dice.randrange(len(rest))
        dice.choice(
            (
                lambda one=one: rest.pop(one),
                lambda one=one: rest.insert(dice.randrange(len(rest)), rest[one]),
                lambda one=one: rest.append(rest.pop(one)),
                lambda one=one: rest.insert(one, dice.choice(lent)),
                lambda: dice.shuffle(rest),
            )
        )()
        if not rest:
            break
    return schema + b"".join(rest) + dice.choice((b"", b"\xff\xff\xff\xff\0\0\0\0"))


def value(dice: Dice, column: str, rows: list[ev.Row]) -> Any:
    """Return something that the type of `column` lets be said, from nowhere, or from some row of the trace."""
    what = ev.COLUMNS[column]
    if dice.random() < 0.4:
        alike = [name for name, kind in ev.COLUMNS.items() if kind == what]
        return dice.choice(rows).get(dice.choice((column, dice.choice(alike))))
    if isinstance(what, tuple):
        return dice.choice(what)
    if what in ("text", "string"):
        words = "".join(dice.choice(EVIL) for _ in range(dice.choice((1, 1, 2, 4))))
        return (
            ";".join(f"{words}:{dice.randrange(99)} {dice.choice(EVIL)}" for _ in range(dice.choice((0, 1, 3, 400)))) or words
        )
    return dice.choice(EXTREMES) if dice.random() < 0.6 else dice.randrange(1 << dice.choice((4, 16, 30, 40, 60)))


def fields(seeds: Seeds, name: str, dice: Dice) -> bytes:
    """Change values, and write them with checksums that are right."""
    header, rows = seeds.rows[name if name in seeds.rows else "kinds"]
    rows = [dict(row) for row in rows]
    possible = dice.random() < 0.8  # most mutants shall get beyond the checks
    for _ in range(dice.choice((1, 2, 4, 16, 64))):
        what, row = dice.randrange(10), dice.choice(rows)
        if what == 0:
            rows.remove(row)
        elif what == 1:
            rows.append(row | {"time_ns": (row.get("time_ns") or 0) + dice.choice((0, 1, -1, MS, 10**12))})
        elif what == 2:  # itself, or another, as parent, forker, adopter, reaper or sender: cycles
            role, other = dice.choice(("by", "parent", "adopter")), dice.choice(rows)
            row |= {f"{role}_pid": other.get("pid", 0), f"{role}_start_ns": other.get("start_ns", 0)}
        else:
            column = dice.choice([*ev.COLUMNS])
            changed = value(dice, column, rows)
            for each in [row] if dice.random() < 0.8 else dice.sample(rows, len(rows) // 2):
                each[column] = changed
        if not rows:
            break
    rows = [{key: found for key, found in row.items() if found is not None} for row in rows]
    if possible:
        rows = [made_possible(row) for row in rows]
    if dice.random() < 0.7:
        rows.sort(key=lambda row: row.get("time_ns", 0))
    size = dice.choice((1, 7, 100, 10_000))
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    return trace_of(*batches, closed=dice.random() < 0.5, **header)


def made_possible(row: ev.Row) -> ev.Row:
    """Return `row` as trace/checks.py lets it pass."""
    row = dict(row)
    for name, found in row.items():
        if isinstance(found, int):
            found = fitting(name, found)
            free = name in ("flags", "target_pid", "result")
            row[name] = found if free else abs(found) % (1 << 62) if name.endswith("_ns") else max(0, found)
    row.setdefault("time_ns", 5 * MS)
    row.setdefault("kind", "exit")
    if row["kind"] == "exit" and "status" in row:
        row["status"] = row["status"] % 0x7F
    if row["kind"] == "end":
        row["detail"] = "{}" if "detail" not in row or not row["detail"].startswith("{") else row["detail"]
    return row


def headers(seeds: Seeds, name: str, dice: Dice) -> bytes:
    """Change the header."""
    header, rows = seeds.rows[name if name in seeds.rows else "kinds"]
    header = dict(header)
    for _ in range(dice.choice((1, 1, 3))):
        key = dice.choice([*header, "own", "format"])
        evil: list[Any] = [
            *EVIL,
            *EXTREMES,
            None,
            True,
            [],
            [dice.choice(EVIL)],
            [dice.choice(EVIL)] * 300,
            {},
            [[]],
            1.5,
            float("nan"),
        ]
        if isinstance(header.get(key), str):
            evil = [*EVIL]
        if isinstance(header.get(key), list) or key == "own":
            evil = [[dice.choice(EVIL) for _ in range(dice.choice((0, 1, 5)))]]
        if isinstance(header.get(key), int):
            evil = [number for number in EXTREMES if number >= 0]
        header[key] = dice.choice(evil)
    sink = io.BytesIO()
    text = json.dumps({**header, "format": header.get("format", FORMAT)}).encode()
    schema = SCHEMA.with_metadata({b"forktrace": text})
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression=dice.choice((None, "zstd")))) as writer:
        batch = stream.batch_of(rows)
        writer.write_batch(batch, custom_metadata={b"crc32": b"%08x" % checksum(batch)})
    return sink.getvalue()


def arrays(seeds: Seeds, name: str, dice: Dice) -> bytes:
    """Write arrays that Arrow itself would not make: lying offsets, indices, null counts, dictionaries, types."""
    _, rows = seeds.rows[name if name in seeds.rows else "kinds"]
    batch = stream.batch_of(rows)
    schema = SCHEMA.with_metadata({b"forktrace": json.dumps({**HEADER, "format": FORMAT}).encode()})
    place = dice.randrange(len(SCHEMA))
    column = batch.column(place)
    made = None
    while made is None:
        with contextlib.suppress(pa.ArrowInvalid):  # one that Arrow refuses to make
            made = hostile_array(column, dice)
    if made.type != column.type:
        schema = schema.set(place, pa.field(SCHEMA.names[place], made.type))
    try:
        changed = pa.RecordBatch.from_arrays(
            [made if at == place else one for at, one in enumerate(batch.columns)], schema=schema
        )
        crc = checksum(changed)
    except (pa.ArrowException, ValueError, TypeError, AttributeError, IndexError):
        crc, changed = 0, batch
    sink = io.BytesIO()
    compression = dice.choice((None, "zstd", "lz4"))
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        try:
            for _ in range(dice.choice((1, 1, 90))):
                writer.write_batch(changed, custom_metadata={b"crc32": b"%08x" % crc})
        except pa.ArrowException:
            pass  # so hostile that it cannot be written
    return sink.getvalue()


def hostile_array(column: Any, dice: Dice) -> Any:
    """Return an array as long as `column` that lies."""
    rows = len(column)
    number = dice.choice(EXTREMES)
    noise = pa.py_buffer(
        b"".join(
            struct.pack("<q", fitting("time_ns", dice.choice((number, 0, 1, 5, dice.choice(EXTREMES)))))
            for _ in range(rows + 1)
        )
    )
    if dice.random() < 0.25:
        return dice.choice(
            (
                lambda: pa.nulls(rows, dice.choice((pa.null(), pa.float64(), pa.large_string(), pa.binary(), column.type))),
                lambda: pa.array([b"\xff\xfe"] * rows, pa.binary()),
                lambda: pa.array([[1]] * rows),
                lambda: pa.array([1.5] * rows),
            )
        )()
    kind = column.type
    validity = dice.choice((None, None, pa.py_buffer(dice.randbytes(rows // 8 + 1))))
    nulls = dice.choice((-1, 0, 1, rows))
    if isinstance(kind, pa.DictionaryType):
        words = dice.choice(
            (
                column.dictionary,
                column.dictionary[:1],
                pa.array([None, "a", *EVIL[:2]]),
                pa.array(["a", "a"]),
                pa.array([], pa.string()),
                pa.Array.from_buffers(
                    pa.string(),
                    2,
                    [
                        None,
                        pa.py_buffer(struct.pack("<3i", 0, dice.choice((-5, 9, 2**31 - 1)), 3)),
                        pa.py_buffer(b"\xff\xfe\xfd"),
                    ],
                ),
            )
        )
        return pa.DictionaryArray.from_buffers(kind, rows, [validity, noise], words, nulls)
    if kind == pa.string():
        offsets = [0] * (rows + 1)
        for _ in range(dice.choice((1, 3, rows))):
            offsets[dice.randrange(rows + 1)] = dice.choice((-1, 5, 1 << 20, 2**31 - 1, -(2**31), 3))
        if dice.random() < 0.5:
            offsets = [min(abs(one), 6) for one in sorted(offsets)]
        text = dice.choice((b"abcdef", b"\xff\xfe\xfd\xc0\x80\xed", b"\xed\xa0\x80abc", b""))
        return pa.Array.from_buffers(
            kind, rows, [validity, pa.py_buffer(struct.pack(f"<{rows + 1}i", *offsets)), pa.py_buffer(text)], nulls
        )
    return pa.Array.from_buffers(kind, rows, [validity, noise], nulls)


def with_changed_bytes(data: bytes, dice: random.Random) -> bytes:
    """Return `data` with some bytes, up to eight, replaced by others."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)
