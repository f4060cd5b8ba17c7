"""forktrace shows every zombie process of a program: who forked it, how long it stayed, who reaped it, and why.

`forktrace.read(path)` returns a `Recording` with its tables; `recording.report()` and `recording.why(4711)` print what the
commands do; `forktrace.timeline(recording)` draws it, and in a notebook `forktrace.page(recording)` shows all of it. None of it
needs root. `forktrace.dataset(url)` is what many hosts have written, for pyarrow, DuckDB and others. For pictures of your own
there are `key` (the colours), `set_scales` and `total_zombies`; for sentences `count`, `duration`, `some` and `short_site`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from forktrace.analysis.tables.zombies import total_zombies
    from forktrace.errors import ForktraceError, TraceError
    from forktrace.fleet.dataset import dataset
    from forktrace.trace.words import count, duration
    from forktrace.views.pictures import key
    from forktrace.views.pictures.page import page
    from forktrace.views.pictures.scales import set_scales
    from forktrace.views.pictures.timeline import timeline
    from forktrace.views.recording import Recording, read
    from forktrace.views.words import short_site, some

__version__ = "0.1.0"
__all__ = [
    "ForktraceError",
    "Recording",
    "TraceError",
    "__version__",
    "count",
    "dataset",
    "duration",
    "key",
    "page",
    "read",
    "set_scales",
    "short_site",
    "some",
    "timeline",
    "total_zombies",
]

_HOMES: Final = {
    "Recording": "forktrace.views.recording",
    "read": "forktrace.views.recording",
    "count": "forktrace.trace.words",
    "dataset": "forktrace.fleet.dataset",
    "duration": "forktrace.trace.words",
    "key": "forktrace.views.pictures.key",
    "page": "forktrace.views.pictures.page",
    "set_scales": "forktrace.views.pictures.scales",
    "short_site": "forktrace.views.words",
    "some": "forktrace.views.words",
    "total_zombies": "forktrace.analysis.tables.zombies",
    "timeline": "forktrace.views.pictures.timeline",
    "ForktraceError": "forktrace.errors",
    "TraceError": "forktrace.errors",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `forktrace --help` needs none of pyarrow, pandas and matplotlib."""
    if name not in _HOMES:
        raise AttributeError(f"module 'forktrace' has no attribute {name!r}")
    home = importlib.import_module(_HOMES[name])
    return getattr(home, name, home)  # `key` is a module itself


def __dir__() -> list[str]:
    return sorted(__all__)
