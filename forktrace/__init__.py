"""forktrace shows every zombie process of a program: who forked it, how long it stayed, who reaped it, and why.

`forktrace.read(path)` returns a `Recording` with its tables; `forktrace.timeline(recording)` draws it, and in a notebook
`forktrace.page(recording)` shows all of it. None of them needs root.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from forktrace.analysis.recording import Recording, read
    from forktrace.errors import ForktraceError, TraceError
    from forktrace.views.pictures.page import page
    from forktrace.views.pictures.timeline import timeline

__version__ = "0.1.0"
__all__ = ["ForktraceError", "Recording", "TraceError", "__version__", "page", "read", "timeline"]

_HOMES: Final = {
    "Recording": "forktrace.analysis.recording",
    "read": "forktrace.analysis.recording",
    "page": "forktrace.views.pictures.page",
    "timeline": "forktrace.views.pictures.timeline",
    "ForktraceError": "forktrace.errors",
    "TraceError": "forktrace.errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `forktrace --help` needs none of pyarrow, pandas and matplotlib."""
    if name not in _HOMES:
        raise AttributeError(f"module 'forktrace' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
