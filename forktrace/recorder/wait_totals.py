"""The totals of wait calls that returned no child, counted by the probes, as rows of the trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

from forktrace.kernel.bpf_maps import Records
from forktrace.recorder.rows import NONE
from forktrace.recorder.stack_table import LOST, StackTable
from forktrace.trace import events

_Key = tuple[Any, ...]


class WaitTotals:
    """Which process waited in vain with which call at which place, and how often."""

    def __init__(self) -> None:
        self._written: dict[_Key, int] = {}

    def changed(self, now_ns: int, places: Records, counts: Any, stacks: StackTable, *, last: bool) -> list[events.Row]:
        """Return a row for each total that has changed, of `counts` at `places` (`struct wait_place`).

        The probes can have several places for one line of the program. A place can be newer than the records that were read:
        then its stack is still in the ring, and the row waits for it, at most until the `last` call.
        """
        texts, statuses = stacks.texts(places["stack"], places["stack_status"])
        totals: Counter[_Key] = Counter()
        fields = (places[name].tolist() for name in ("pid", "start_ns", "error", "call", "target", "options"))
        for *place, stack, status, count in zip(*fields, texts, statuses.tolist(), counts.tolist(), strict=True):
            if status != LOST or last:
                totals[(*place, stack, status)] += count
        changed = {key: total for key, total in totals.items() if self._written.get(key) != total}
        self._written.update(changed)
        return [_row(now_ns, total, *key) for key, total in changed.items()]

    def forget(self, gone: set[tuple[int, int]]) -> None:
        """Forget processes, by number and start."""
        self._written = {key: total for key, total in self._written.items() if key[:2] not in gone}


def _row(
    now_ns: int, total: int, pid: int, start_ns: int, error: int, call: int, target: int, options: int, stack: str, status: int
) -> events.Row:
    return events.waits(
        now_ns,
        total,
        by=pid,
        by_start_ns=start_ns,
        result=error,
        call=events.CALLS[call],
        target=None if target == NONE else events.TARGETS[target],
        flags=options,
        stack=stack,
        stack_status=None if status == NONE else events.STACK_STATUSES[status],
    )
