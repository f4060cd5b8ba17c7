"""A recording as OpenTelemetry spans: one for each process, and below it one for the time that it was a zombie.

Every number that names a span or their trace follows from the recording, so that the same spans come out each time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import pandas as pd
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

from forktrace import __version__
from forktrace.analysis.causes.names import printable
from forktrace.analysis.gate.sites import site_of
from forktrace.analysis.recording import Recording
from forktrace.trace.trace_context import parse_traceparent
from forktrace.views import explanations
from forktrace.views.bounds import bound_of, ends
from forktrace.views.words import how_many, shorten
from forktrace.views.zombies import rows, without_recorder

logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # what it would say on stderr is told as an error

MOST_TEXT: Final = 1000  # characters of a text
_MOST_WORDS: Final = 50  # of a command line
_UNSET, _FAILED = Status(StatusCode.UNSET), Status(StatusCode.ERROR)

# Attribute -> column of lifecycles. The names without `forktrace.` are OpenTelemetry's own (semantic conventions).
_OF_PROCESS: Final[Mapping[str, str]] = {
    "process.pid": "pid",
    "process.vpid": "ns_pid",
    "process.parent_pid": "ppid",
    "process.executable.name": "comm",
    "process.exit.code": "exit_code",
    "process.linux.cgroup": "cgroup",
    "forktrace.origin": "origin",
    "forktrace.created_by": "created_by",
    "forktrace.fork.call": "fork_call",
    "forktrace.exit.path": "exit_path",
    "forktrace.exit.site": "exit_site",
    "forktrace.exit.signal": "term_signal",
    "forktrace.killer.kind": "killer_kind",
    "forktrace.killer.pid": "killer_pid",
    "forktrace.state": "state",
    "forktrace.complete": "complete",
    "forktrace.notes": "notes",
}
_OF_ZOMBIE: Final[Mapping[str, str]] = {
    "process.pid": "pid",
    "process.executable.name": "comm",
    "forktrace.reap.cause": "reap_cause",
    "forktrace.reap.call": "reap_call",
    "forktrace.reap.target": "reap_target",
    "forktrace.reap.options": "reap_options",
    "forktrace.reaper.pid": "reaper_pid",
    "forktrace.reaper.tid": "reaper_tid",
    "forktrace.zombie.awaited": "awaited",
    "forktrace.zombie.empty_waits": "empty_waits",
    "forktrace.complete": "complete",
    "forktrace.notes": "notes",
}


class Spans:
    """The spans of a recording, in fork order, each process before its zombie; with `argv` the command lines and folders too.

    Attributes:
        trace_id: the trace that all of them are in: the one of `traceparent`, where the header has it
        processes, count: of how many processes, and how many spans
    """

    def __init__(self, recording: Recording, *, argv: bool = False) -> None:
        self._recording, self._argv = recording, argv
        self._table = _table(recording)
        self._parent = parse_traceparent(recording.header.get("traceparent", ""))
        self._offset_ns: int = recording.header["clock_offset_ns"]
        self._key = recording.header["boot_id"]
        key = (self._key, recording.header["target_pid"], recording.whole.start_ns)
        self.trace_id: int = self._parent.trace_id if self._parent else _number(128, "trace", *key)
        self.processes = len(self._table)
        self.count = self.processes + int(self._table["zombie_ns"].notna().sum())
        self._resource = _resource(recording)
        self._scope = InstrumentationScope("forktrace", __version__)
        self._contexts = {row.id: self._context("process", row) for row in rows(self._table)}
        self._forkers = _forkers(recording)
        self._lines: dict[str, dict[str, Any]] = {}  # of each site

    def __iter__(self) -> Iterator[ReadableSpan]:
        told = zip(_attributes(self._table, _OF_PROCESS), _attributes(self._table, _OF_ZOMBIE), strict=True)
        for row, (process, zombie) in zip(rows(self._table), told, strict=True):
            yield self._process(row, process)
            if not pd.isna(row.zombie_ns):
                yield self._zombie(row, zombie)

    def _context(self, what: str, row: Any) -> SpanContext:
        return self._named(_number(64, what, self._key, row.pid, row.fork_ns, row.again))

    def _named(self, span_id: int, *, is_remote: bool = False) -> SpanContext:
        return SpanContext(self.trace_id, span_id, is_remote, TraceFlags(TraceFlags.SAMPLED))

    def _process(self, row: Any, told: dict[str, Any]) -> ReadableSpan:
        end_ns, _ = ends(row, self._recording.end_ns)
        told["forktrace.end"] = _end(row)
        told |= self._code(row.fork_site if pd.isna(row.start_site) else row.start_site)
        if pd.isna(row.zombie_ns) and not pd.isna(row.reap_cause):
            told["forktrace.reap.cause"] = visible(row.reap_cause)
        if self._argv and not pd.isna(row.argv):
            told["process.command_args"] = _words(row.argv)
        failed = _failure(told)
        if failed:
            told["error.type"] = failed
        return self._span(
            told.get("process.executable.name", "?"),
            self._contexts[row.id],
            self._forker(row),
            told,
            (row.fork_ns, end_ns),
            status=_FAILED if failed else _UNSET,
        )

    def _zombie(self, row: Any, told: dict[str, Any]) -> ReadableSpan:
        _, gone_ns = ends(row, self._recording.end_ns)
        end, end_ns = ("reaped", gone_ns) if not pd.isna(row.reap_ns) else ("unknown", row.zombie_ns)
        if row.zombie_open:
            end, end_ns = "never", gone_ns
        cause = told.setdefault("forktrace.reap.cause", "unknown")
        told |= {"forktrace.zombie.end": end, "forktrace.zombie.why": _short(cause)} | self._code(row.reap_site)
        if bound := bound_of(row):
            told["forktrace.zombie.bound"] = bound
        reaper = None if pd.isna(row.reaper_id) else self._contexts.get(int(row.reaper_id))
        links = [Link(reaper, {"forktrace.link": "reaper"})] if reaper else []
        times_ns = row.zombie_ns, end_ns
        return self._span(f"zombie: {cause}", self._context("zombie", row), self._contexts[row.id], told, times_ns, links)

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: dict[str, Any],
        times_ns: tuple[int, int],
        links: Sequence[Link] = (),
        status: Status = _UNSET,
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            links=links,
            status=status,
            start_time=int(times_ns[0]) + self._offset_ns,
            end_time=int(times_ns[1]) + self._offset_ns,
            instrumentation_scope=self._scope,
        )

    def _forker(self, row: Any) -> SpanContext | None:
        """The span of whoever forked a process; of the target the span that it was started in."""
        header = self._recording.header
        if self._parent and (row.origin == "target" or (row.origin == "attached" and row.pid == header["target_pid"])):
            return self._named(self._parent.span_id, is_remote=True)
        forker = self._forkers.get(row.id, row.parent_id)
        return None if pd.isna(forker) else self._contexts.get(int(forker))

    def _code(self, site: Any) -> dict[str, Any]:
        if pd.isna(site):
            return {}
        if site not in self._lines:
            self._lines[site] = _code(site, self._recording.file_of if self._argv else lambda shown: None)
        return self._lines[site]


def _table(recording: Recording) -> pd.DataFrame:
    """Lifecycles with `again`: 0, but for rows with the number and start time of another, as only a made-up trace has them."""
    again = recording.whole.lifecycles().groupby(["pid", "fork_ns"], dropna=False).cumcount()
    table = without_recorder(recording.lifecycles())
    return table.assign(again=again, ppid=table["ppid"].replace(0, pd.NA))


def _number(bits: int, *key: object) -> int:
    """The number that a key makes: never 0, and the same each time."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode(errors="backslashreplace")).digest()
    return int.from_bytes(digest[: bits // 8]) or 1


def _resource(recording: Recording) -> Resource:
    """What all spans are about: the program, the host, and what the recording lacks; OTEL_RESOURCE_ATTRIBUTES has its way."""
    header = recording.header
    lost = recording.lost()
    told: dict[str, str | int] = {
        "service.name": visible(_program(header["command"])),
        "service.instance.id": visible(f"{header['boot_id']}-{recording.whole.start_ns}-{header['target_pid']}"),
        "host.name": visible(header["host"]),
        "os.type": "linux",
        "os.version": visible(header["kernel"]),
        "forktrace.recorder.version": visible(header["forktrace"]),
        "forktrace.lost.events": sum(lost.values()),
        "forktrace.lost": visible(how_many(lost)),
        "forktrace.cut": visible(recording.cut or ""),
        "forktrace.clock_step_ns": recording.clock_step_ns,
    }
    always = ("forktrace.lost.events",)
    known = {name: value for name, value in told.items() if value or name in always}
    return Resource(known).merge(OTELResourceDetector().detect())


def _program(command: list[str]) -> str:
    """The file name of a command's script, else of its program: its arguments may be secrets."""
    scripts = [word for word in command if word.endswith(".py")]
    return os.path.basename((scripts or command or [""])[0]) or "?"


def _forkers(recording: Recording) -> dict[int, int]:
    """Who forked each process, which is another than its parent with CLONE_PARENT."""
    events = recording.whole.events()
    forks = events[events["kind"].eq("fork") & events["id"].notna() & events["by_id"].notna()]
    return dict(zip(forks["id"].tolist(), forks["by_id"].tolist(), strict=True))


def _attributes(table: pd.DataFrame, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield for each row the attributes that are known."""
    values = [_values(table[column]) for column in columns.values()]
    for row in zip(*values, strict=True):
        yield {name: value for name, value in zip(columns, row, strict=True) if value is not None}


def _values(column: pd.Series) -> list[Any]:
    """The values of a column, None for `<NA>`."""
    known = column.astype(object).where(column.notna(), None).tolist()
    return [visible(one) if isinstance(one, str) else one for one in known]


def _end(row: Any) -> str:
    """How the end of a process's span is known."""
    if not pd.isna(row.exit_ns):
        return "exit"
    return "unknown" if row.state in ("gone", "zombie") else "alive"


def _failure(told: Mapping[str, Any]) -> str:
    """How a process failed: its signal or its code; nothing when it did not, or is not known to."""
    return str(told.get("forktrace.exit.signal") or told.get("process.exit.code") or "")


@lru_cache(4096)
def _words(argv: str) -> list[str]:
    """The first words of a quoted command line; of one that no recorder writes, the line."""
    lexer = shlex.shlex(argv, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(islice(lexer, _MOST_WORDS + 1))
    except ValueError:
        words = [argv]
    return [visible(word) for word in words[:_MOST_WORDS]] + ["..."] * (len(words) > _MOST_WORDS)


@lru_cache(4096)
def visible(text: str) -> str:
    """Return a text of a trace as it may be shown anywhere."""
    return shorten(printable(text), MOST_TEXT)


@lru_cache(4096)
def _short(cause: str) -> str:
    return explanations.cause(cause).short


def _code(site: str, file_of: Callable[[str], str | None]) -> dict[str, Any]:
    """A line, by the names of the semantic conventions; `file_of` says the whole path of a file."""
    file, line, function = site_of(site)
    told = {"code.file.path": visible(file_of(file) or file), "code.line.number": line, "code.function.name": visible(function)}
    return {name: value for name, value in told.items() if value}
