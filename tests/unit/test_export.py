"""Tables for other tools."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from traces import MS, child, consumer, recording, target

from forktrace.analysis.recording import Recording
from forktrace.errors import ForktraceError, UsageError
from forktrace.trace import events as ev
from forktrace.views.formats import export

ROWS = [target(), *child(500, 10, 20, status=15), ev.reap(40 * MS, 500, by=100, options=1), ev.fork_failed(50 * MS, 100, 11)]
ROWS += [ev.signal(15 * MS, 500, 15, by=100), ev.waits(55 * MS, 2, by=100, target="any", call="wait4", flags=1)]
ROWS += [*child(600, 30, 31), ev.reap(32 * MS, 600, by=100, target="any")]
ROWS += [ev.fork(34 * MS, 700, by=100), ev.fork(35 * MS, 701, by=700), ev.exit_(36 * MS, 700, parent=100, adopter=100)]
ROWS += [ev.zombie(36 * MS, 700, parent=100), ev.reap(37 * MS, 700, by=100)]
ROWS += [ev.wait(33 * MS, None, by=100, result=10, target_pid=600, stack="/usr/lib/python3.11/subprocess.py:7 wait")]
ROWS += [ev.wait(56 * MS, 701, by=100, result=4, target_pid=701, detail=ev.GOES_ON, count=MS)]


def exported(made: Recording, table: str, form: str) -> bytes:
    """Return what is written."""
    sink = io.BytesIO()
    export.write(made, table, form, sink)
    return sink.getvalue()


@pytest.mark.parametrize("table", export.TABLES)
def test_parquet_keeps_everything(table: str) -> None:
    """What is read back from Parquet has the same values, dtypes (but for the storage of strings) and order."""
    made = recording(*ROWS, *child(501, 60, 70))
    expected = export.TABLES[table](made)
    expected = expected.astype({name: "string" for name in expected.columns if expected[name].dtype == "string"})
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(exported(made, table, "parquet"))), expected)


@pytest.mark.parametrize("table", export.TABLES)
def test_every_column_is_described(table: str) -> None:
    """docs/tables.md has a section for each table, with a row for each column."""
    text = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    section = text.partition(f"## {table}\n")[2].partition("\n## ")[0]
    cells_ = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    assert {f"`{name}`" for name in export.TABLES[table](recording(*ROWS)).columns} <= {
        name for cell in cells_ for name in cell.strip().split(", ")
    }


@pytest.mark.parametrize("table", export.TABLES)
def test_same_rows_in_every_format(table: str) -> None:
    """CSV and JSON have a record for each row and a field for each column."""
    made = recording(*ROWS)
    expected = export.TABLES[table](made)
    records = json.loads(exported(made, table, "json"))
    lines = list(csv.DictReader(io.StringIO(exported(made, table, "csv").decode())))
    assert len(records) == len(lines) == len(expected)
    assert all(list(one) == list(expected.columns) for one in (*records, *lines))


def test_values() -> None:
    """Times are ISO 8601 and ns stay integers; what is not known is null, or an empty field."""
    made = recording(*ROWS)
    record = json.loads(exported(made, "lifecycles", "json"))[1]
    line = list(csv.DictReader(io.StringIO(exported(made, "lifecycles", "csv").decode())))[1]
    assert record["fork_time"] == "2023-11-14T22:13:20.010000000Z"
    assert line["fork_time"] == "2023-11-14T22:13:20.010000Z"
    assert (record["reap_ns"], line["reap_ns"]) == (40_000_000, "40000000")
    assert (record["zombie_ms"], line["zombie_ms"]) == (20.0, "20.0")
    assert (record["term_signal"], line["term_signal"]) == ("SIGTERM", "SIGTERM")
    assert (record["exec_ns"], line["exec_ns"]) == (None, "")
    assert (record["zombie_open"], line["zombie_open"]) == (False, "False")


def test_large_numbers_stay_exact() -> None:
    """Nanoseconds of a machine that is up for years lose nothing."""
    start_ns = 2**61 + 1
    made = recording(target(start_ns), clock_offset_ns=0)
    assert json.loads(exported(made, "lifecycles", "json"))[0]["fork_ns"] == start_ns
    assert f",{start_ns}," in exported(made, "lifecycles", "csv").decode()


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\uff1d1", "\uff0b1", "\uff0d1", "\uff20x"])
def test_no_formulas_in_csv(name: str) -> None:
    """A text that a spreadsheet would run gets an apostrophe; other formats keep it as it is."""
    made = recording(target(comm=name), ev.exec_(MS, 100, ["x"], file="x", comm=name))
    line = next(csv.DictReader(io.StringIO(exported(made, "lifecycles", "csv").decode(), newline="")))
    assert line["comm"] == "'" + name
    assert json.loads(exported(made, "lifecycles", "json"))[0]["comm"] == name


@pytest.mark.parametrize("form", ["csv", "json"])
def test_nothing_steers_a_screen(form: str) -> None:
    """Of a text only what can be seen is written as it is: no control character, no line end, nothing invisible."""
    evil = "\x1b]0;x\x07\x9b\u202e\t\x7f"
    made = recording(target(comm=evil), ev.exec_(MS, 100, [evil, "a\r\nb"], file=evil, comm=evil), *child(500, 10, 20))
    for table in export.TABLES:
        written = exported(made, table, form).decode()
        assert all(line.isprintable() for line in written.split("\n"))
    if form == "csv":
        line = next(csv.DictReader(io.StringIO(exported(made, "lifecycles", "csv").decode(), newline="")))
        assert line["argv"] == r"'\x1b]0;x\x07\x9b\u202e\t\x7f' 'a\r\nb'"
    else:
        assert json.loads(exported(made, "lifecycles", "json"))[0]["comm"] == evil


@pytest.mark.parametrize(("at_once", "parts"), [(1, 11), (2000, 3), (1 << 25, 1)])
def test_tables_are_written_in_parts(monkeypatch: pytest.MonkeyPatch, at_once: int, parts: int) -> None:
    """However many rows there are, and however long their texts, it is one table."""
    made = recording(*consumer(10))
    whole = {form: exported(made, "lifecycles", form) for form in export.FORMATS}
    monkeypatch.setattr(export, "_AT_ONCE", at_once)
    for form in ("csv", "json"):
        assert exported(made, "lifecycles", form) == whole[form]
    written = exported(made, "lifecycles", "parquet")
    assert pq.ParquetFile(io.BytesIO(written)).num_row_groups == parts
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(written)), pd.read_parquet(io.BytesIO(whole["parquet"])))
    assert len(json.loads(whole["json"])) == 11
    assert exported(made, "stolen", "json") == b"[]"


def test_numbers_below_zero_are_no_formulas() -> None:
    """Only texts are changed."""
    made = recording(target(), *child(500, 10, 20))
    assert exported(made, "lifecycles", "csv").decode().count("'") == 0


def test_a_part_is_exported_as_such() -> None:
    """The selection holds here too, and the rows of a part carry no index."""
    made = recording(*consumer(10), closed=False).of(4)
    assert [one["id"] for one in json.loads(exported(made, "lifecycles", "json"))] == [4]
    assert list(pd.read_parquet(io.BytesIO(exported(made, "lifecycles", "parquet"))).index) == [0]


def test_bad_requests() -> None:
    """An unknown table or format, and a sink that is full, are one-line errors."""
    made = recording(target())
    with pytest.raises(UsageError, match="nothing: not one of lifecycles, events"):
        export.write(made, "nothing", "csv", io.BytesIO())
    with pytest.raises(UsageError, match="xls: not one of csv"):
        export.write(made, "lifecycles", "xls", io.BytesIO())
    with pytest.raises(UsageError):
        export.format_of("table.xls")
    for form in export.FORMATS:
        with open("/dev/full", "wb", buffering=0) as full, pytest.raises(ForktraceError, match="No space left"):
            export.write(made, "lifecycles", form, full)
