"""Tables for other tools: CSV, JSON, Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, BinaryIO, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from forktrace.analysis.causes.names import printable
from forktrace.analysis.recording import Recording
from forktrace.errors import ForktraceError, UsageError

FORMATS: Final = ("csv", "json", "parquet")
TABLES: Final[Mapping[str, Callable[[Recording], pd.DataFrame]]] = {
    "lifecycles": Recording.lifecycles,
    "events": Recording.events,
    "starts": Recording.starts,
    "waits": Recording.waits,
    "zombie_count": Recording.zombie_count,
    "branches": Recording.branches,
    "signals": Recording.signals,
    "failed_forks": Recording.failed_forks,
    "late_waits": Recording.late_waits,
    "open_waits": Recording.open_waits,
    "stolen": Recording.stolen,
    "orphans": Recording.orphans,
}

# A spreadsheet runs what begins so, a full-width sign too (OWASP, CSV injection). What cannot be seen, a tab too, is escaped.
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_AT_ONCE: Final = 1 << 25  # characters of a table that are written at a time; one row of a hostile trace may have millions
_ROW: Final = 500  # of these for all of a row but its texts


def format_of(path: str) -> str:
    """Return the format that a file's name asks for.

    Raises:
        UsageError: it ends in none of `.csv`, `.json`, `.parquet`.
    """
    form = os.path.splitext(path)[1].removeprefix(".").lower()
    if form not in FORMATS:
        raise UsageError(
            f"{path}: cannot tell the format from the name", "end it in .csv, .json or .parquet, or say --to FORMAT"
        )
    return form


def write(recording: Recording, table: str, form: str, sink: BinaryIO) -> None:
    """Write the table named `table` to `sink` as `csv`, `json` (a list of records, times in ISO 8601) or `parquet`.

    In CSV a text that a spreadsheet would take for a formula gets an apostrophe in front, and what is not a visible character
    becomes an escape: `\\n`, `\\x1b`, `\\u202e`; `<NA>` is an empty field. In JSON it is null, and all but ASCII is
    escaped as JSON does. Parquet keeps every dtype and every text.

    Raises:
        UsageError: there is no such table or format.
        ForktraceError: the sink takes no more.
    """
    if table not in TABLES or form not in FORMATS:
        wrong, known = (table, TABLES) if table not in TABLES else (form, FORMATS)
        raise UsageError(f"{wrong}: not one of {', '.join(known)}")
    rows = TABLES[table](recording)
    try:
        _WRITERS[form](rows, sink)
    except OSError as error:
        raise ForktraceError(f"cannot write the table: {error.strerror or error}") from error


def _parts(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows in parts, whose texts fit into memory several times; of a table without rows an empty one."""
    sizes = np.full(len(rows), _ROW)
    for name in _texts(rows):
        sizes += rows[name].str.len().to_numpy(np.int64, na_value=0)
    part = np.cumsum(sizes) // _AT_ONCE
    edges = [0, *(np.flatnonzero(np.diff(part)) + 1).tolist(), len(rows)]
    return (rows.iloc[start:stop] for start, stop in pairwise(edges))


def _texts(rows: pd.DataFrame) -> list[str]:
    return [name for name in rows.columns if pd.api.types.is_string_dtype(rows[name].dtype)]


def _write_csv(rows: pd.DataFrame, sink: BinaryIO) -> None:
    texts = _texts(rows)
    for number, part in enumerate(_parts(rows)):
        safe = part.assign(**{name: _harmless(part[name]) for name in texts})
        safe.to_csv(sink, index=False, header=number == 0, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%S.%fZ")


def _harmless(texts: pd.Series) -> pd.Series:
    visible = {text: printable(text) for text in texts.dropna().unique()}
    return texts.map({text: f"'{one}" if one.startswith(_FORMULA) else one for text, one in visible.items()}).astype("string")


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as they are in JSON."""
    found: list[dict[str, Any]] = json.loads(_json(rows))
    return found


def _json(rows: pd.DataFrame) -> str:
    text: str = rows.to_json(orient="records", date_format="iso", date_unit="ns", double_precision=15)
    return text.replace("\x7f", "\\u007f")  # the one that JSON leaves as it is


def _write_json(rows: pd.DataFrame, sink: BinaryIO) -> None:
    """A list of records."""
    for number, part in enumerate(_parts(rows)):
        text = _json(part).removesuffix("]")
        sink.write((text if number == 0 else text.replace("[", ",", 1)).encode())
    sink.write(b"]")


def _write_parquet(rows: pd.DataFrame, sink: BinaryIO) -> None:
    with pq.ParquetWriter(sink, pa.Schema.from_pandas(rows, preserve_index=False)) as writer:
        for part in _parts(rows):
            writer.write_table(pa.Table.from_pandas(part, writer.schema, preserve_index=False))


_WRITERS: Final[Mapping[str, Callable[[pd.DataFrame, BinaryIO], None]]] = {
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}
