"""A sentence of the report, and the facts that it is made of, so that people and programs are told the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import pandas as pd
from rich.text import Text

from forktrace.analysis.requests import start_sites

Facts = Mapping[str, Any]
_NONE: Final[Facts] = MappingProxyType({})


class Finding(NamedTuple):
    """A sentence; `facts` go by the names that docs/json.md lists, and are empty where it says nothing of processes."""

    text: Text
    facts: Facts = _NONE


def of_processes(ids: Iterable[int], **facts: Any) -> Facts:
    """Return the facts of a finding about these processes, those to look at first in front."""
    ids = list(ids)
    return {"processes": len(ids), "id": ids[0] if ids else None, "ids": ids, **facts}


def of_rows(table: pd.DataFrame, **facts: Any) -> Facts:
    """Return the facts of a finding about rows of lifecycles."""
    alike = {"cause": common(table["reap_cause"]), "site": common(start_sites(table))}
    return of_processes(table["id"].tolist(), max_ms=table["zombie_ms"].max(), **alike, **facts)


def common(column: pd.Series) -> Any:
    """Return the value that all of a column have in common; None: they differ."""
    values = column.unique()
    return values[0] if len(values) == 1 else None
