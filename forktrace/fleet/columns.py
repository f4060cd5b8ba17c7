"""The columns of a dataset: those of lifecycles without what is secret, helpers, when a file was written, its day and host."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import pandas as pd
import pyarrow as pa

from forktrace.analysis.tables.lifecycles import COLUMNS
from forktrace.views.zombies import helpers

FORMAT: Final = 1  # columns are only added: each reader takes files of each format

_TYPES: Final[Mapping[str, pa.DataType]] = {
    "int64": pa.int64(),
    "Int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "boolean": pa.bool_(),
    "string": pa.string(),
    "datetime64[ns, UTC]": pa.timestamp("ns", "UTC"),
}
_IN_FILES: Final = pa.schema(
    [
        *((name, _TYPES[kind] if isinstance(kind, str) else pa.string()) for name, kind in COLUMNS.items()),
        ("helper", pa.string()),
        ("written_time", _TYPES["datetime64[ns, UTC]"]),
    ]
)
PARTITIONS: Final = pa.schema([("date", pa.date32()), ("host", pa.string())])  # what the folders say
SCHEMA: Final = pa.schema([*_IN_FILES, *PARTITIONS])
TEXTS: Final = [field.name for field in _IN_FILES if pa.types.is_string(field.type)]  # have dictionaries
# Numbers that hardly repeat: these encodings take three fifths of the room of a dictionary.
ENCODINGS: Final = {
    **{field.name: "DELTA_BINARY_PACKED" for field in _IN_FILES if field.type in (pa.int64(), _TYPES["datetime64[ns, UTC]"])},
    **{field.name: "BYTE_STREAM_SPLIT" for field in _IN_FILES if field.type == pa.float64()},
}
_WITH_PATHS: Final = tuple(name for name in COLUMNS if name.endswith(("_site", "_stack")))


def rows_for(lifecycles: pd.DataFrame, drop: str, written: datetime, *, continues: bool) -> pa.Table:
    """Return the rows that a file of the dataset holds, in the order of `fork_ns`.

    Where the recording `continues` in the next file of a rotation, that has the processes that are not gone. `drop`
    `argv` leaves out the arguments, and the directories of the files that stacks and sites name; `none` nothing.
    """
    rows = lifecycles.assign(helper=helpers(lifecycles), written_time=pd.Timestamp(written))
    rows = (rows[rows["state"].astype("string") == "gone"] if continues else rows).sort_values("fork_ns", kind="stable")
    if drop == "argv":
        rows = rows.assign(
            argv=pd.Series(pd.NA, rows.index, "string"), **{name: _without_folders(rows[name]) for name in _WITH_PATHS}
        )
    return pa.Table.from_pandas(rows, _IN_FILES, preserve_index=False)


def _without_folders(texts: pd.Series) -> pd.Series:
    """Stacks or sites whose files are named without their directories; each distinct text is looked at once."""
    short = {text: ";".join(frame.rpartition("/")[2] for frame in text.split(";")) for text in texts.dropna().unique()}
    return texts.map(short).astype("string")
