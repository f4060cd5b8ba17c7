"""Reads the layout of the probes' structs from their headers, so that it stands in one place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

HEADERS: Final = ("events.h", "process_table.bpf.h")
_FIELD: Final = re.compile(r"(?:struct )?(\w+) (\w+)(?:\[(\w+)\])?;")
_BASE: Final = {"u8": "u1", "u32": "<u4", "u64": "<u8", "s32": "<i4", "s64": "<i8"}


def probe_directory() -> Path:
    """Return where the probes are: beside the package in a checkout, inside it when installed."""
    checkout = Path(__file__).parents[2] / "probes"
    return checkout if (checkout / HEADERS[0]).is_file() else Path(__file__).parents[1] / "probes"


@cache
def layouts() -> Mapping[str, np.dtype[Any]]:
    """Return the numpy type of every struct of the probes' headers."""
    return structs("".join((probe_directory() / name).read_text() for name in HEADERS))


def structs(header: str) -> dict[str, np.dtype[Any]]:
    """Return the numpy type of every struct in the text of a C header, laid out as C lays it out.

    Raises:
        ValueError: a line is no field of a known type.
    """
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    sizes = {name: int(value) for name, value in re.findall(r"#define (\w+) (\d+)$", text, flags=re.MULTILINE)}
    found: dict[str, np.dtype[Any]] = {}
    for name, body in re.findall(r"^struct (\w+) \{(.*?)\n\};", text, flags=re.DOTALL | re.MULTILINE):
        fields: list[Any] = []
        for line in filter(None, map(str.strip, body.splitlines())):
            if not (read := _FIELD.fullmatch(line)):
                raise ValueError(f"struct {name}: {line!r} is not understood")
            kind, field, length = read.groups()
            count = int(sizes.get(length, length or 0))
            if kind == "char":
                fields.append((field, f"S{count}"))
            else:
                base = found.get(kind) or np.dtype(_BASE[kind])
                fields.append((field, base, (count,)) if length else (field, base))
        found[name] = np.dtype(fields, align=True)
    return found
