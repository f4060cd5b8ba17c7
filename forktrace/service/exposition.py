"""Figures as Prometheus reads them: in a file for node_exporter's textfile collector, and over HTTP."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from forktrace.errors import ForktraceError
from forktrace.service.tally import BUCKETS_S, Figures
from forktrace.trace.files import replaced

MODE: Final = 0o644  # node_exporter has a user of its own
_MOST_BYTES: Final = 1 << 24  # of another file in the directory that is looked into
_TARGET: Final = re.compile(rb'^forktrace_\w+\{(?:[^}\n]*,)?target="((?:[^"\\\n]|\\.)*)"', re.MULTILINE)


_Labels = TypeVar("_Labels", bound=tuple[str, ...])


@dataclass(frozen=True)
class State:
    """What is exposed at one moment.

    Attributes:
        figures: what the recording has come to
        is_recorded: it goes on
        oldest_s: for how long the oldest zombie of now has been one; 0: there is none
        headroom: how many more processes and threads each limit allows the recorded processes
    """

    figures: Figures
    is_recorded: bool = True
    oldest_s: float = 0.0
    headroom: Mapping[str, int] | None = None


class Exposition(Collector):
    """The metrics of `target`, whose name every series bears. `state` is replaced as a whole."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.state = State(Figures())
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics (prometheus_client.registry.Collector)."""
        state, figures = self.state, self.state.figures
        yield self._gauge("recording", "1 while the recording goes on, 0 once it has ended.", int(state.is_recorded))
        yield self._gauge("zombies", "Zombies now.", figures.zombies.total())
        yield self._by_line(figures.zombies)
        yield self._gauge(
            "oldest_zombie_seconds", "For for how long the oldest zombie of now has been one; 0: there is none.", state.oldest_s
        )
        yield self._durations(figures)
        words = "Children that were released, by cause and by what made them."
        yield self._counter("reaps", words, ("cause", "created_by"), figures.reaps)
        yield self._counter("forks", "Processes that were forked; the command itself is none.", (), {(): figures.forks})
        words = "Forks that failed, by error and by the limit that was met."
        yield self._counter("failed_forks", words, ("errno", "limit"), figures.failed_forks)
        yield self._counter("stolen", "Children whose exit status another part of the program took.", (), {(): figures.stolen})
        words = "Events that could not be delivered: the other figures may be too low by these."
        yield self._counter("lost_events", words, (), {(): figures.lost.total()})
        yield self._headroom(state.headroom or {})

    def text(self) -> bytes:
        """Return what a scrape gets."""
        return generate_latest(self.registry)

    def serve(self, address: tuple[str, int]) -> None:
        """Answer scrapes from now on, in a thread of its own.

        Raises:
            ForktraceError: it cannot listen at that address.
        """
        host, port = address
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ForktraceError(f"no metrics on {host}:{port}: {reason}", "name another with --metrics-port") from None

    def _gauge(self, name: str, words: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"forktrace_{name}", words, labels=["target"])
        family.add_metric([self.target], value)
        return family

    def _counter(self, name: str, words: str, labels: Iterable[str], values: Mapping[_Labels, int]) -> Metric:
        family = CounterMetricFamily(f"forktrace_{name}", words, labels=["target", *labels])
        for key, value in sorted(values.items()):
            family.add_metric([self.target, *key], value)
        return family

    def _by_line(self, zombies: Counter[str]) -> Metric:
        words = "Zombies now, by the line that started them: the first 100 lines by name."
        family = GaugeMetricFamily("forktrace_zombies_by_line", words, labels=["target", "line"])
        for line, number in sorted(zombies.items()):
            family.add_metric([self.target, line], number)
        return family

    def _durations(self, figures: Figures) -> Metric:
        words = "How long the zombies that were released had been there."
        family = HistogramMetricFamily("forktrace_zombie_seconds", words, labels=["target"])
        bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
        family.add_metric(
            [self.target], list(zip(bounds, itertools.accumulate(figures.durations), strict=True)), figures.seconds
        )
        return family

    def _headroom(self, left: Mapping[str, int]) -> Metric:
        words = "How many more processes and threads a limit allows; at 0 forks fail."
        family = GaugeMetricFamily("forktrace_headroom", words, labels=["target", "limit"])
        for limit, number in sorted(left.items()):
            family.add_metric([self.target, limit], number)
        return family


class TextFile:
    """A file for the textfile collector, which is replaced as a whole."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._is_begun = False

    def write(self, metrics: Exposition) -> None:
        """Replace the file. The first time, the target gets a number if another file of the directory names it: `web #2`.

        node_exporter drops all that it read where two files have a series in common.

        Raises:
            ForktraceError: it cannot be written.
        """
        try:
            with contextlib.nullcontext() if self._is_begun else self._alone():
                if not self._is_begun:
                    metrics.target = self._free(metrics.target)
                with replaced(os.fspath(self._path)) as file:
                    os.fchmod(file.fileno(), MODE)
                    file.write(metrics.text())
        except OSError as error:
            hint = "metrics are written with your rights, not with root's"
            raise ForktraceError(f"{self._path}: {error.strerror}: no metrics are written there", hint) from None
        self._is_begun = True

    def _free(self, target: str) -> str:
        """The target, with a number where another file of the directory names it."""
        others = (path for path in self._path.parent.glob("*.prom") if path != self._path)
        taken = {name for path in others for name in _targets(path)}
        names = itertools.chain([target], (f"{target} #{number}" for number in itertools.count(2)))
        return next(name for name in names if _escaped(name) not in taken)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep out others that choose a name in this directory at the same time."""
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _targets(path: Path) -> set[bytes]:
    """The targets that another file names, as they are written there."""
    try:
        with path.open("rb") as file:
            found: set[bytes] = set(_TARGET.findall(file.read(_MOST_BYTES)))
            return found
    except OSError:
        return set()


def _escaped(text: str) -> bytes:
    """A label's value as the text format has it."""
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"").encode()
