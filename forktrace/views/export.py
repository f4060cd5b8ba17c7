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

_FORMULA: Final = ("=", "+", "-", "@", "\t")  # a spreadsheet runs what begins so (OWASP, CSV injection)


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


def write(recording: Recording, table: str, form: str, sink: BinaryIO, on_screen: bool = False) -> None:
    """Write the table named `table` to `sink` as `csv`, `json` (a list of records, times in ISO 8601) or `parquet`.

    In CSV a text that a spreadsheet would take for a formula gets an apostrophe in front, and a carriage return becomes `\\r`;
    `<NA>` is an empty field, in JSON null. Parquet keeps every dtype. With `on_screen` nothing in a text can steer a terminal.

    Raises:
        UsageError: there is no such table or format.
        ForktraceError: the sink takes no more.
    """
    if table not in TABLES or form not in FORMATS:
        wrong, known = (table, TABLES) if table not in TABLES else (form, FORMATS)
        raise UsageError(f"{wrong}: not one of {', '.join(known)}")
    rows = TABLES[table](recording)
    if on_screen:
        rows = _in_texts(rows, _visible)
    try:
        _WRITERS[form](rows, sink)
    except OSError as error:
        raise ForktraceError(f"cannot write the table: {error.strerror or error}") from error


def _write_csv(rows: pd.DataFrame, sink: BinaryIO) -> None:
    rows = _in_texts(rows, _harmless)
    rows.to_csv(sink, index=False, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%S.%fZ")


def _in_texts(rows: pd.DataFrame, change: Callable[[pd.Series], pd.Series]) -> pd.DataFrame:
    """The table with each column of texts changed."""
    texts = [name for name in rows.columns if pd.api.types.is_string_dtype(rows[name].dtype)]
    return rows.assign(**{name: change(rows[name]) for name in texts})


def _visible(texts: pd.Series) -> pd.Series:
    return texts.map({text: printable(text) for text in texts.dropna().unique()}).astype("string")


def _harmless(texts: pd.Series) -> pd.Series:
    texts = texts.str.replace("\r", "\\r", regex=False)  # which csv does not quote, and readers take for the end of a line
    return texts.where(~texts.str.startswith(_FORMULA, na=False), "'" + texts)


def _write_json(rows: pd.DataFrame, sink: BinaryIO) -> None:
    rows.to_json(sink, orient="records", date_format="iso", date_unit="ns", double_precision=15)


def _write_parquet(rows: pd.DataFrame, sink: BinaryIO) -> None:
    rows.to_parquet(sink, index=False)


_WRITERS: Final[Mapping[str, Callable[[pd.DataFrame, BinaryIO], None]]] = {
    "csv": _write_csv,
    "json": _write_json,
    "parquet": _write_parquet,
}
