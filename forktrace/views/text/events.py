"""Every event on a line of its own, as strace writes system calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.recording import Recording

_AT_ONCE: Final = 10_000


def lines(recording: Recording) -> Iterator[str]:
    """Yield one line per event: seconds since the target's start, process, kind, and details.

    `   +1.803412  4711 python  reap         by 4700 python consumer.py:33 consume_task: wait4(4711, WNOHANG)`
    """
    table, names = recording.events(), Names(recording.whole.lifecycles(), marks=False)
    who = {process: names.full(process) for process in table["id"].dropna().unique().tolist()}
    actor = {process: names.full(process) for process in table["by_id"].dropna().unique().tolist()}
    width = max(map(len, who.values()), default=1)
    start_ns = recording.start_ns
    columns = ("time_ns", "kind", "id", "by_id", "by_pid", "by_tid", "call", "site", "detail")
    for time_ns, kind, process, by, by_pid, by_tid, call, site, detail in _cells(table[list(columns)]):
        thread = "" if by_tid in (None, by_pid) else f" thread {by_tid}"
        itself = by is not None and by == process and not thread
        place = f" {printable(site)}" if site else ""
        parts = [f"at{place}"] if place and (by_pid is None or itself) else []
        parts += [] if by_pid is None or itself else [f"by {actor.get(by, by_pid)}{thread}{place}"]
        parts += [call] if call and kind.startswith("fork") else []
        parts += [printable(detail)] if detail else []
        yield f"{_seconds(time_ns - start_ns):>14}  {who.get(process, '-'):<{width}}  {kind:<11}  {': '.join(parts)}".rstrip()


def _cells(table: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    """The rows as tuples, with None where nothing is said; some at a time, since objects take far more memory than columns."""
    for start in range(0, len(table), _AT_ONCE):
        part = table.iloc[start : start + _AT_ONCE]
        yield from part.astype(object).where(part.notna(), None).itertuples(index=False, name=None)


def _seconds(ns: int) -> str:
    """Return ns as seconds with six decimals, exact: `+1.803412`."""
    whole, rest = divmod(abs(ns), 10**9)
    return f"{'-' if ns < 0 else '+'}{whole}.{rest // 1000:06}"
