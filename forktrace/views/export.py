"""Tables for other tools: CSV, JSON, Parquet."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import BinaryIO, Final

import pandas as pd

from forktrace.analysis.names import printable
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
    "stolen": Recording.stolen,
    "orphans": Recording.orphans,
}

# A spreadsheet runs what begins so, a full-width sign too (OWASP, CSV injection). What cannot be seen, a tab too, is escaped.
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_AT_ONCE: Final = 50_000  # rows


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


def _write_csv(rows: pd.DataFrame, sink: BinaryIO) -> None:
    texts = [name for name in rows.columns if pd.api.types.is_string_dtype(rows[name].dtype)]
    rows = rows.assign(**{name: _harmless(rows[name]) for name in texts})
    rows.to_csv(sink, index=False, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%S.%fZ")


def _harmless(texts: pd.Series) -> pd.Series:
    texts = texts.map({text: printable(text) for text in texts.dropna().unique()}).astype("string")
    return texts.where(~texts.str.startswith(_FORMULA, na=False), "'" + texts)


def _write_json(rows: pd.DataFrame, sink: BinaryIO) -> None:
    """A list of records, some at a time: pandas makes one text of what it is given, which may have 2 GiB at most."""
    for start in range(0, max(len(rows), 1), _AT_ONCE):
        part = rows.iloc[start : start + _AT_ONCE]
        text = part.to_json(orient="records", date_format="iso", date_unit="ns", double_precision=15).removesuffix("]")
        text = text.replace("\x7f", "\\u007f")  # the one that JSON leaves as it is
        sink.write((text if start == 0 else text.replace("[", ",", 1)).encode())
    sink.write(b"]")


def _write_parquet(rows: pd.DataFrame, sink: BinaryIO) -> None:
    rows.to_parquet(sink, index=False)


_WRITERS: Final[Mapping[str, Callable[[pd.DataFrame, BinaryIO], None]]] = {
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}
