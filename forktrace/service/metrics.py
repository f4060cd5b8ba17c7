"""The process that makes metrics of a recording: it reads the trace as it grows, and ends when the recording does."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pyarrow.compute as pc

from forktrace.analysis.log import NEVER
from forktrace.errors import ForktraceError
from forktrace.launcher.companion import explained, say
from forktrace.launcher.session import program_name
from forktrace.now.limits import limits_of
from forktrace.service.exposition import Exposition, State, TextFile
from forktrace.service.tally import Tally
from forktrace.service.trail import Trail
from forktrace.system.procfs import Proc, kernel_boottime_ns
from forktrace.trace.words import printable

EVERY_S: Final = 15.0
SETTLED_NS: Final = 5 * 10**9  # so long after its release nothing more comes about a process
_BEGINNING_S: Final = 0.05  # until the header is written
_MOST_TARGET: Final = 200  # characters


@dataclass(frozen=True)
class Options:
    """Where metrics go.

    Attributes:
        file: for the textfile collector; None: none is written
        address: the host and the port to be scraped at; None: none
        target: what is recorded; None: the name of the program
    """

    file: str | None = None
    address: tuple[str, int] | None = None
    target: str | None = None


def follow(options: Options, tally: Tally, path: str, until: int) -> None:
    """Make metrics of the trace `path` until the descriptor `until` is at its end; what fails is said in one line each.

    `tally` is made while the package's own files can be read.

    Raises:
        ForktraceError: the trace cannot be read any further.
    """
    trace = Trail(path)
    batches = trace.read()
    while not trace.header and not _is_over(until, _BEGINNING_S):
        batches = trace.read()
    if trace.header:
        _Follower(options, tally, trace, batches).run(until)


def _is_over(until: int, seconds: float) -> bool:
    """Wait at most so long, and return whether the recording is over."""
    return bool(select.select([until], [], [], seconds)[0])


class _Follower:
    """Counts what the trace says, and exposes it; `batches` are those that were read with its header."""

    def __init__(self, options: Options, tally: Tally, trace: Trail, batches: list[Any]) -> None:
        self._trace, self._batches = trace, batches
        self._tally, self._proc = tally, Proc()
        self._complaints: dict[object, str] = {}
        target = options.target or program_name(trace.header["command"])
        self._metrics = Exposition(printable(target)[:_MOST_TARGET])
        self._file = TextFile(options.file) if options.file else None
        if options.address:
            self._attempt(self._metrics.serve, options.address)

    def run(self, until: int) -> None:
        """Count and expose every 15 s, and at the end."""
        is_over, next_s = False, time.monotonic()
        while True:
            self._count(is_over)
            self._metrics.state = self._state(is_over)
            if self._file:
                self._attempt(self._file.write, self._metrics)
            if is_over:
                return
            next_s = max(next_s + EVERY_S, time.monotonic())
            is_over = _is_over(until, max(0.0, next_s - time.monotonic()))

    def _attempt(self, do: Callable[[Any], None], what: object) -> None:
        """Try it; say why it failed, each reason once."""
        try:
            do(what)
        except ForktraceError as error:
            if self._complaints.get(do.__name__) != str(error):
                say(explained(error))
            self._complaints[do.__name__] = str(error)
        else:
            self._complaints.pop(do.__name__, None)

    def _count(self, is_over: bool) -> None:
        """Take in all that has come; if it is over, no more will."""
        trace, is_behind = self._trace, True
        while is_behind:
            now_ns = kernel_boottime_ns()
            batches, is_behind = self._batches or trace.read(), bool(self._batches) or trace.is_behind
            self._batches = []
            is_last = trace.begins_anew or (is_over and not is_behind)
            settled_ns = NEVER if is_last else (_end_ns(batches) if is_behind else now_ns) - SETTLED_NS
            if batches or is_last or not self._tally.is_settled:
                self._tally.add(trace.path, trace.header, batches, settled_ns)
            if trace.begins_anew:
                self._tally.begin_anew()

    def _state(self, is_over: bool) -> State:
        figures = self._tally.figures()
        until_ns = self._tally.end_ns if is_over else kernel_boottime_ns()
        oldest_s = 0.0 if figures.oldest_ns is None else max(until_ns - figures.oldest_ns, 0) / 1e9
        return State(figures, not is_over, oldest_s, {} if is_over else self._headroom())

    def _headroom(self) -> dict[str, int]:
        """By the name of each limit how many more processes and threads it allows the recorded ones."""
        left: dict[str, int] = {}
        if self._tally.eldest:
            for limit in limits_of(self._tally.eldest[0], self._proc):
                left.setdefault(limit.name, limit.left)  # the tightest comes first
        return left


def _end_ns(batches: list[Any]) -> int:
    return max((int(pc.max(batch["time_ns"]).as_py()) for batch in batches if batch.num_rows), default=0)
