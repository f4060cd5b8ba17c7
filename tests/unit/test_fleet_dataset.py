"""The dataset of many hosts: what its files hold, how they are named, and that nothing else is read."""

from __future__ import annotations

import errno
import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fleets import DAY_NS, FIRST_DAY, Counting, Leak, host_recording, write_fleet
from pyarrow import fs
from traces import BOOT_NS, MS, child, recording, target

import forktrace
from forktrace.errors import ForktraceError, PermissionMissing, UsageError
from forktrace.fleet import columns, dataset, store
from forktrace.trace import events as ev
from forktrace.views import clocks

DATA = Path(__file__).parents[1] / "data"
NOW = datetime(2026, 11, 29, tzinfo=UTC)


def files_in(folder: Path) -> list[str]:
    """Return the places of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_recording_is_a_file_of_its_day_and_host(tmp_path: Path) -> None:
    """It is named for the UTC day on which it begins, its host, boot, start and recorder, and holds a row a process."""
    made = host_recording("web", 3, [Leak(33, 2, 100)], start_ns=7)
    place = "table=lifecycles/date=2023-11-17/host=web/boot-of-web-7-50.parquet"
    assert dataset.write(made, tmp_path) == f"{tmp_path}/{place}"
    assert files_in(tmp_path) == [place]
    read = forktrace.dataset(tmp_path).to_table().to_pandas()
    assert read["host"].unique().tolist() == ["web"]
    assert read["date"].unique().tolist() == [FIRST_DAY + timedelta(days=3)]
    assert read["zombie_ms"].tolist()[1:] == [100, 100]


def test_every_value_comes_back(tmp_path: Path) -> None:
    """But for what is left out: with --drop none all values of lifecycles of a real recording are there as they were."""
    made = forktrace.read(DATA / "kafka.arrows")
    dataset.write(made, tmp_path, "none")
    table = made.lifecycles()
    kinds = {name: "string" for name in table.columns if isinstance(columns.COLUMNS[name], tuple)}
    expected = table.astype(kinds).reset_index(drop=True)
    read = forktrace.dataset(tmp_path).to_table(columns=list(table.columns)).to_pandas()
    pd.testing.assert_frame_equal(read.astype(expected.dtypes.to_dict()), expected)


def test_the_day_is_that_in_utc_on_which_it_begins() -> None:
    """A nanosecond decides; a process that starts later is in the same file."""
    midnight_ns = 20_000 * DAY_NS
    for start_ns, day in ((midnight_ns - 1, "2024-10-03"), (midnight_ns, "2024-10-04")):
        name = dataset.file_name(
            {"host": "h", "boot_id": "b", "start_ns": 5, "clock_offset_ns": start_ns - 5, "recorder_pid": 1}
        )
        assert name == f"table=lifecycles/date={day}/host=h/b-5-1.parquet"


def test_rows_are_sorted_and_have_statistics(tmp_path: Path) -> None:
    """By fork_ns, with its least and greatest in the file; zstd, and dictionaries of texts."""
    path = dataset.write(host_recording("web", 0, [Leak(33, 9, 1)]), tmp_path)
    group = pq.ParquetFile(path).metadata.row_group(0)
    at = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
    assert {one.compression for one in at.values()} == {"ZSTD"}
    assert (at["fork_ns"].statistics.min, at["fork_ns"].statistics.max) == (0, 508 * MS)
    assert "RLE_DICTIONARY" in at["start_site"].encodings
    assert pq.read_table(path)["fork_ns"].to_pylist() == sorted(pq.read_table(path)["fork_ns"].to_pylist())


def test_a_process_that_was_attached_to_is_sorted_in() -> None:
    """Rows follow the start, whatever the order of lifecycles."""
    table = recording(target(9 * MS), ev.fork(10 * MS, 500, by=100)).lifecycles()
    table["fork_ns"] = table["fork_ns"].iloc[::-1].to_numpy()
    assert columns.rows_for(table, "argv", NOW, continues=False)["pid"].to_pylist() == [500, 100]


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    """Format, host, clock and losses stand in its metadata; no command, no user, no directory."""
    made = host_recording("web", 0, [Leak(33, 1, 1)], command=["secret"], user="secret", cwd="/secret")
    data = Path(dataset.write(made, tmp_path)).read_bytes()
    known = json.loads(pq.ParquetFile(pa.BufferReader(data)).schema_arrow.metadata[dataset.KEY])
    assert known["format"] == columns.FORMAT
    assert (known["host"], known["start_ns"], known["lost"]) == ("web", 0, {})
    assert b"secret" not in data


def secret_recording() -> forktrace.Recording:
    """A recording that names a secret wherever one may stand."""
    rows = [target(), ev.exec_(1 * MS, 100, ["python", "secret-a/app.py", "--password=secret"], file="/usr/bin/python")]
    for number, folder in enumerate(("secret-a", "secret-b")):
        stack = {"stack": f"/srv/{folder}/app.py:9 main;/srv/{folder}/work.py:1{number} <module>", "stack_status": "ok"}
        rows += [
            ev.fork((10 + number) * MS, 500 + number, by=100, **stack),
            ev.exit_(40 * MS, 500 + number, parent=100, **stack),
        ]
        rows += [ev.zombie(40 * MS, 500 + number, parent=100), ev.reap(60 * MS, 500 + number, by=100, **stack)]
    return recording(*rows)


def test_secrets_stay_behind(tmp_path: Path) -> None:
    """Neither arguments nor directories of a stack's files are in the file, in sites neither; --drop none keeps them."""
    made = secret_recording()
    assert b"secret" not in Path(dataset.write(made, tmp_path / "cut")).read_bytes()
    cut = forktrace.dataset(tmp_path / "cut").to_table().to_pandas()
    assert cut["fork_stack"].dropna().tolist() == ["app.py:9 main;work.py:10 <module>", "app.py:9 main;work.py:11 <module>"]
    assert cut["start_site"].dropna().tolist() == ["work.py:10 <module>", "work.py:11 <module>"]
    assert cut["argv"].isna().all()
    dataset.write(made, tmp_path / "whole", "none")
    whole = forktrace.dataset(tmp_path / "whole").to_table().to_pandas()
    assert whole["argv"].iloc[0] == "python secret-a/app.py --password=secret"
    assert whole["fork_stack"].dropna().iloc[0] == "/srv/secret-a/app.py:9 main;/srv/secret-a/work.py:10 <module>"


def test_what_is_not_gone_at_a_turn_is_in_the_file_that_sees_its_end(tmp_path: Path) -> None:
    """Of a rotation neither what runs nor a zombie is written twice; at the very end both stay."""
    rows = (target(), *child(500, 10, 20), ev.fork(30 * MS, 501, by=100), *child(502, 40, 50), ev.reap(60 * MS, 502, by=100))
    for name, totals, pids in (("turn", '{"continues": true}', [502]), ("end", "{}", [100, 500, 501, 502])):
        dataset.write(recording(*rows, ev.end(99 * MS, totals), closed=False), tmp_path / name)
        assert forktrace.dataset(tmp_path / name).to_table()["pid"].to_pylist() == pids


def test_helpers_are_known_without_their_arguments(tmp_path: Path) -> None:
    """The resource tracker's process is marked as such, as `report` leaves it aside."""
    tracker = "from multiprocessing.resource_tracker import main;main(7)"
    made = recording(target(), ev.fork(MS, 500, by=100), ev.exec_(2 * MS, 500, ["python", "-c", tracker], file="python"))
    dataset.write(made, tmp_path)
    assert forktrace.dataset(tmp_path).to_table()["helper"].to_pylist() == [None, "the resource tracker"]


@pytest.mark.parametrize("host", ["web/1", "a=b", "..", "0042", "a b%2F", "host\n", "ü", "None"])
def test_any_host_has_a_folder_of_its_own(tmp_path: Path, host: str) -> None:
    """Whatever its name is, it comes back, and the file is nowhere else."""
    dataset.write(host_recording(host), tmp_path)
    assert [name.count("/") for name in files_in(tmp_path)] == [3]
    assert forktrace.dataset(tmp_path).to_table()["host"].to_pylist() == [host]


@pytest.mark.parametrize("host", ["", "__HIVE_DEFAULT_PARTITION__", "/" * 90])
def test_a_host_that_can_name_no_folder_is_refused(tmp_path: Path, host: str) -> None:
    """In one line, and nothing is written."""
    with pytest.raises(UsageError, match="it cannot name a folder of the dataset") as refused:
        dataset.write(host_recording(host), tmp_path)
    assert "\n" not in str(refused.value)
    assert not files_in(tmp_path)


@pytest.mark.parametrize("boot", ["../../../x", "a/b", "\0", "x" * 300])
def test_the_boot_leaves_no_folder(tmp_path: Path, boot: str) -> None:
    """What a trace says of its boot becomes no path; what is too long is refused."""
    made = host_recording("web", boot_id=boot)
    if len(boot) > 200:
        with pytest.raises(UsageError):
            dataset.write(made, tmp_path)
    else:
        dataset.write(made, tmp_path)
        assert [Path(name).parent.name for name in files_in(tmp_path)] == ["host=web"]


def test_a_year_that_there_is_not() -> None:
    """A clock offset beyond all calendars is one line."""
    with pytest.raises(UsageError, match="its clock offset is wrong"):
        dataset.file_name({"host": "h", "boot_id": "b", "start_ns": 0, "clock_offset_ns": 2**62 * 100, "recorder_pid": 1})


def test_written_again_it_is_the_same_file(tmp_path: Path) -> None:
    """A service that tries again leaves one file, not two."""
    made = host_recording("web")
    assert dataset.write(made, tmp_path) == dataset.write(made, tmp_path)
    assert len(files_in(tmp_path)) == 1


def test_nobody_sees_a_half_written_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has its name when it is whole; what could not be written leaves nothing behind."""
    seen: list[list[str]] = []
    kept = dataset._keep

    def looked_at(path: str) -> None:
        seen.append(files_in(tmp_path))
        assert not dataset.find(store.store_at(tmp_path))
        kept(path)

    monkeypatch.setattr(dataset, "_keep", looked_at)
    dataset.write(host_recording("web"), tmp_path)
    assert [Path(name).name[0] for names in seen for name in names] == ["."]
    monkeypatch.setattr(dataset, "_keep", lambda path: os.stat(f"{path}.gone"))
    with pytest.raises(ForktraceError, match="No such file"):
        dataset.write(host_recording("other"), tmp_path)
    assert len(files_in(tmp_path)) == 1


def test_where_nothing_may_be_written(tmp_path: Path) -> None:
    """A file in the way, and a place that is no directory, are one line."""
    (tmp_path / "table=lifecycles").write_text("")
    with pytest.raises(ForktraceError, match="host=web"):
        dataset.write(host_recording("web"), tmp_path)


def test_older_and_newer_files_have_one_schema(tmp_path: Path) -> None:
    """A column that a file lacks is null, one that this forktrace does not know is left out."""
    first = Path(dataset.write(host_recording("new"), tmp_path))
    table = pq.ParquetFile(first).read()
    older = first.parent.parent / "host=old" / first.name
    older.parent.mkdir()
    pq.write_table(table.drop_columns(["helper", "written_time", "start_site"]), older)
    newer = first.parent.parent / "host=newer" / first.name
    newer.parent.mkdir()
    pq.write_table(table.append_column("mood", pa.array(["good"])), newer)
    read = forktrace.dataset(tmp_path)
    assert read.schema == columns.SCHEMA
    rows = read.to_table().to_pandas().set_index("host")
    assert len(rows) == 3
    assert rows.loc["old", ["helper", "written_time", "start_site"]].isna().all()


def test_the_columns_are_those_of_lifecycles() -> None:
    """And after them what a file adds; each has one type, whatever the recording."""
    names = columns.SCHEMA.names
    assert names == [*columns.COLUMNS, "helper", "written_time", "date", "host"]
    for one in sorted(DATA.glob("*.arrows")):
        rows = columns.rows_for(forktrace.read(one).lifecycles(), "argv", NOW, continues=False)
        assert rows.schema.names == names[:-2]
        assert rows.schema.types == columns.SCHEMA.types[:-2]


def test_a_day_reads_only_its_own_bytes(tmp_path: Path) -> None:
    """Of a filter on the date no byte of another day's files is read; of a question about days not even their folders."""
    write_fleet(tmp_path, {host: {day: [Leak(33, 3, 50)] for day in range(3)} for host in ("web", "db")})
    counting = Counting()
    place = store.Store(fs.PyFileSystem(counting), str(tmp_path), str(tmp_path))
    day = FIRST_DAY + timedelta(days=1)
    files = dataset.find(place)
    assert len(dataset.over(place, files).to_table(filter=ds.field("date") == day)) == 8
    own = {one.path for one in files if one.day == day}
    assert set(counting.read) == own
    assert sum(counting.read.values()) < 1.5 * sum(map(os.path.getsize, own))  # a small file's description counts
    counting.listed.clear()
    assert [one.day for one in dataset.find(place, day, day)] == [day, day]
    assert {path.partition("date=")[2] for path in counting.listed} == {"", "2023-11-15"}


def test_what_else_lies_there_is_left_alone(tmp_path: Path) -> None:
    """Files of other names, hidden ones, folders that are no day, another table."""
    place = Path(dataset.write(host_recording("web"), tmp_path))
    for name in (".x.parquet", "_x.parquet", "notes.txt", "sub/x.parquet", "../x", "../../date=never/host=h/x.parquet"):
        other = place.parent / name
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(b"x")
    assert len(forktrace.dataset(tmp_path).to_table()) == 1


@pytest.mark.parametrize("url", ["http://x/y", "s3://", "s3://bucket/x?nonsense=1", "gs://bucket/x"])
def test_what_is_no_place(url: str) -> None:
    """One line, which names what was typed."""
    with pytest.raises(UsageError) as refused:
        store.store_at(url)
    assert "\n" not in str(refused.value)


def test_passwords_are_not_shown() -> None:
    """Neither the key in a URL nor its options stand in a message."""
    assert store.store_at("s3://key:secret@bucket/fleet/?region=eu-central-1").shown == "s3://bucket/fleet"


def test_no_dataset(tmp_path: Path) -> None:
    """A directory that is none, or is not there, is one line with what makes one."""
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(UsageError, match="there is no table=lifecycles in it") as refused:
            forktrace.dataset(folder)
        assert "export --hive" in refused.value.hint


def test_a_clock_that_is_ahead_is_told_when_it_is_written() -> None:
    """A recording that ends tomorrow: by the clock of its host, or by ours."""
    made, ends_ns = host_recording("web"), BOOT_NS + 20 * 10**9
    assert list(clocks.ahead(made, ends_ns)) == []
    assert list(clocks.ahead(made, ends_ns - 59 * 10**9)) == []
    assert list(clocks.ahead(made, ends_ns - 24 * 3600 * 10**9)) == [
        "the recording ends 24 h 00 min from now: the clock of web is ahead, or this machine's is behind"
    ]


def test_a_folder_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends with the status of missing rights."""

    def refused(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(dataset, "_keep", refused)
    with pytest.raises(PermissionMissing, match="access is refused"):
        dataset.write(host_recording("web"), tmp_path)


def test_dates_are_dates(tmp_path: Path) -> None:
    """`date` and `host` come from the folders, with their types."""
    write_fleet(tmp_path, {"0042": {0: []}})
    read = forktrace.dataset(tmp_path)
    assert read.schema.field("date").type == pa.date32()
    assert read.to_table()["date"].to_pylist() == [date(2023, 11, 14)]
