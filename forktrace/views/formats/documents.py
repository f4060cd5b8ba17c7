"""What JSON documents have in common. docs/json.md describes them, `documents.schema.json` beside this file is their schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from forktrace import __version__
from forktrace.analysis.recording import Recording

VERSION: Final = 1  # counted up when a field changes or goes; new fields may come at any time


def opening(name: str) -> dict[str, Any]:
    """Return how a document begins, whatever it is about."""
    return {"format": f"forktrace-{name}", "version": VERSION, "forktrace": __version__}


def about(recording: Recording, name: str) -> dict[str, Any]:
    """Return how a document about one recording begins."""
    return {**opening(name), "trace": recording.trace.path, "command": recording.header["command"]}


def written(document: Mapping[str, Any]) -> str:
    """Return a document as text in which nothing can steer a terminal."""
    return json.dumps(document, indent=2, allow_nan=False).replace("\x7f", "\\u007f")


def plain(value: Any) -> Any:
    """Return a value of a table as JSON has it: null for what is not known."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
