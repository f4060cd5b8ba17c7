"""A dataset of many hosts: `table=lifecycles/date=YYYY-MM-DD/host=H/BOOT-START-PID.parquet`, written and read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from forktrace import __version__
from forktrace.analysis.recording import Recording
from forktrace.errors import UsageError
from forktrace.fleet.columns import ENCODINGS, FORMAT, SCHEMA, TEXTS, rows_for
from forktrace.fleet.store import Store, comes_from_store, explained, store_at
from forktrace.trace.files import replaced

TABLE: Final = "table=lifecycles"
KEY: Final = b"forktrace"  # of the metadata of each file
_ROWS: Final = 1 << 17  # in a group, which has statistics of its own
_ABOUT: Final = ("host", "boot_id", "kernel", "start_ns", "end_ns", "clock_offset_ns", "lost", "cut")
_READERS: Final = 8  # files that are looked at at once
_MOST_NAME: Final = 255  # bytes of a folder's name
_PLACE: Final = re.compile(r"date=([0-9]{4}-[0-9]{2}-[0-9]{2})/(?:host=([^/]+)/)?(?![._])[^/]+\.parquet")
_HIDDEN_BY_HIVE: Final = "__HIVE_DEFAULT_PARTITION__"  # stands for no value


class File(NamedTuple):
    """A file of a dataset: its path, the day on which it begins, its host (None: rows say it), bytes, when it was written."""

    path: str
    day: date
    host: str | None
    size: int
    written: datetime | None


def write(recording: Recording, url: str | os.PathLike[str], drop: str = "argv") -> str:
    """Write the lifecycles of a whole recording as a file of the dataset at `url`, and return the file's name.

    The name follows from the recording: written once more, it replaces the same file. It is there when it is whole.

    Raises:
        UsageError: the recording names no host that could name a folder, or `url` is none.
        PermissionMissing, ForktraceError: nothing can be written there.
    """
    store, name = store_at(url), file_name(recording.header)
    about = {"end_ns": recording.end_ns, "lost": recording.lost(), "cut": recording.cut}
    rows = rows_for(recording.lifecycles(), drop, datetime.now(UTC), continues=recording.continues)
    data = as_parquet(rows, recording.header | about)
    with explained(store, store.show(store.path(name))):
        _put(store, store.path(name), data)
    return store.show(store.path(name))


def has(url: str | os.PathLike[str], header: Mapping[str, Any]) -> bool:
    """Return whether the file of the recording with this header is in the dataset at `url`.

    Raises:
        UsageError, PermissionMissing, ForktraceError: as `write`.
    """
    store, name = store_at(url), file_name(header)
    with explained(store, store.show(store.path(name))):
        return bool(store.files.get_file_info(store.path(name)).is_file)


def file_name(header: Mapping[str, Any]) -> str:
    """Return the place of a recording's file in a dataset; characters that could leave the folder are encoded.

    Raises:
        UsageError: the recording names no host, or one that is too long.
    """
    host, boot = (quote(header[key], safe="") for key in ("host", "boot_id"))
    folder, file = f"host={host}", f"{boot}-{header['start_ns']}-{header['recorder_pid']}.parquet"
    if not host or host == _HIDDEN_BY_HIVE or len(folder) > _MOST_NAME or len(file) > _MOST_NAME:
        raise UsageError(f"the recording's host is {header['host']!r:.60}: it cannot name a folder of the dataset")
    return f"{TABLE}/date={began(header):%Y-%m-%d}/{folder}/{file}"


def began(header: Mapping[str, Any]) -> datetime:
    """Return when a recording began, by its host's wall clock, in UTC; UsageError: in no year that a calendar has."""
    try:
        return datetime.fromtimestamp((header["start_ns"] + header["clock_offset_ns"]) // 10**9, UTC)
    except (ValueError, OverflowError):
        raise UsageError("the recording began in a year that no calendar has: its clock offset is wrong") from None


def as_parquet(rows: pa.Table, about: Mapping[str, Any]) -> pa.Buffer:
    """Return the bytes of a file of the dataset; its metadata are those keys of `about` that docs/scale.md describes."""
    known = {"format": FORMAT, "forktrace": __version__} | {key: about[key] for key in _ABOUT if key in about}
    data = pa.BufferOutputStream()
    schema = rows.schema.with_metadata({KEY: json.dumps(known)})
    with pq.ParquetWriter(data, schema, compression="zstd", use_dictionary=TEXTS, column_encoding=ENCODINGS) as writer:
        writer.write_table(rows, row_group_size=_ROWS)
    return data.getvalue()


def _put(store: Store, path: str, data: pa.Buffer) -> None:
    """Write a file that nobody sees before it is whole; where a directory would show it, it has another name until then."""
    if not store.shows_parts:
        with store.files.open_output_stream(path) as sink:
            sink.write(data)
        return
    store.files.create_dir(os.path.dirname(path))
    with replaced(path, mode=0o666) as file:
        file.write(data)
        file.flush()
        _keep(file.name)


def _keep(path: str) -> None:
    """Write the bytes of a local file to the disk before it gets its name: else a power cut could leave it empty."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def dataset(url: str | os.PathLike[str]) -> ds.Dataset:
    """Return the dataset at `url`, a directory or `s3://BUCKET/FOLDER`: the columns of lifecycles, `helper`, `date`, `host`.

    Files of older formats lack columns, which are null then; a filter on `date` or `host` reads no other files.

    Raises:
        UsageError: it is not a dataset.
        PermissionMissing, ForktraceError: it cannot be reached.
    """
    store = store_at(url)
    return over(store, find(store))


def find(store: Store, since: date | None = None, until: date | None = None) -> list[File]:
    """Return the files of a dataset that begin on these days, both included; None: open. Only their folders are listed.

    Raises:
        UsageError: it is not a dataset.
    """
    top = _listed(store, store.path(TABLE))
    if not top:
        raise UsageError(f"{store.shown}: not a dataset: there is no {TABLE} in it", "forktrace export --hive makes one")
    days = sorted(one.path for one in top if _is_wanted(one.base_name, since, until))
    inside = [one for day in days for one in _listed(store, day, recursive=True)]
    return [file for one in sorted(inside, key=lambda one: one.path) if one.is_file for file in _file_of(one, store)]


def _listed(store: Store, folder: str, *, recursive: bool = False) -> list[fs.FileInfo]:
    """What is in a folder; nothing where there is none."""
    with explained(store):
        try:
            found: list[fs.FileInfo] = store.files.get_file_info(fs.FileSelector(folder, recursive=recursive))
        except FileNotFoundError:
            return []
    return found


def _is_wanted(folder: str, since: date | None, until: date | None) -> bool:
    try:
        day = date.fromisoformat(folder.removeprefix("date="))
    except ValueError:
        return False
    return (since is None or since <= day) and (until is None or day <= until)


def _file_of(info: fs.FileInfo, store: Store) -> Iterator[File]:
    """The file, if its place is one that a file of a dataset has: others may lie there too."""
    place = _PLACE.fullmatch(info.path.removeprefix(store.path(TABLE)).lstrip("/"))
    if place:
        host = None if place[2] is None else unquote(place[2])
        yield File(info.path, date.fromisoformat(place[1]), host, info.size or 0, info.mtime)


def over(store: Store, files: Collection[File]) -> ds.FileSystemDataset:
    """Return the dataset of these files, as `dataset` does; nothing is read yet."""
    form = ds.ParquetFileFormat()
    fragments = [form.make_fragment(one.path, store.files, _partition(one)) for one in files]
    return ds.FileSystemDataset(fragments, SCHEMA, form, store.files)


def _partition(file: File) -> ds.Expression:
    day: ds.Expression = ds.field("date") == pa.scalar(file.day)
    return day if file.host is None else day & (ds.field("host") == file.host)


def damaged(store: Store, files: Sequence[File], columns: Sequence[str]) -> set[File]:
    """Return the files of which these columns cannot be read; reads all of them.

    Raises:
        PermissionMissing, ForktraceError: the store itself does not answer.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda one: _is_damaged(store, one, columns), files)
        return {one for one, bad in zip(files, found, strict=True) if bad}


def _is_damaged(store: Store, file: File, columns: Sequence[str]) -> bool:
    with explained(store, store.show(file.path)):
        try:
            for _ in over(store, [file]).to_batches(columns=list(columns)):
                pass
        except (OSError, pa.ArrowException) as error:
            if comes_from_store(error):
                raise
            return True
    return False
