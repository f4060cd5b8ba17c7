"""A recording as a Perfetto trace: slices for running and zombie time, flows from forks and to reaps, counters of zombies."""

from __future__ import annotations

import gzip
import heapq
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import pandas as pd

from forktrace.analysis.causes.names import Names, printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.zombies import total_zombies
from forktrace.errors import ForktraceError, package_missing
from forktrace.views import explanations, failed
from forktrace.views.bounds import ends
from forktrace.views.words import shorten, title_of
from forktrace.views.zombies import rows

if TYPE_CHECKING:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket

SUFFIXES: Final = (".pftrace", ".pftrace.gz")
MOST_TEXT: Final = 4000  # characters of a stack or a command line
_TOGETHER: Final = 1 << 18  # bytes that are compressed at a time

_REALTIME, _BOOTTIME = 1, 6  # BuiltinClock of perfetto's clock_snapshot.proto
_FIRST_STATE, _NEEDS_STATE = 1, 2  # SequenceFlags of its trace_packet.proto
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4  # TrackEvent.Type
_SEQUENCE: Final = 1
_ROOT, _OUTSIDE, _ALL_ZOMBIES, _FIRST = 1, 2, 3, 16  # tracks; from _FIRST on those of processes and lanes
_NOBODY: Final = -1
_OF_FORK, _OF_REAP, _OF_SIGNAL, _OF_FAILURE = range(4)  # what a flow tells of

Flows = Sequence[int]


def write_perfetto(recording: Recording, sink: BinaryIO, *, compressed: bool = False) -> None:
    """Write `recording` to `sink` as a Perfetto trace, which ui.perfetto.dev opens; `compressed` by gzip.

    Raises:
        MachineLacks: the package perfetto is not installed.
        ForktraceError: the sink takes no more.
    """
    try:
        from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder
    except ImportError:
        raise package_missing("perfetto", "perfetto") from None
    try:
        if compressed:
            packed = gzip.GzipFile(filename="", fileobj=sink, mode="wb", compresslevel=6, mtime=0)
            with io.BufferedWriter(packed, _TOGETHER) as packets:
                _Trace(recording, StreamingTraceProtoBuilder(packets)).write()
        else:
            _Trace(recording, StreamingTraceProtoBuilder(sink)).write()
    except OSError as error:
        raise ForktraceError(f"cannot write the Perfetto trace: {error.strerror or error}") from error


class _Trace:
    """Writes packet after packet: tracks, then slices and instants by process, then counters."""

    def __init__(self, recording: Recording, builder: Any) -> None:
        self.recording = recording
        self.table = recording.lifecycles()
        self.names = Names(recording.whole.lifecycles(), recording.header["recorder_pid"])
        self._builder = builder
        self._texts: dict[tuple[str, str], int] = {}
        self._tracks = _tracks(recording, self.table)
        self._there = set(self.table["id"].tolist())
        met = failed.met_by(recording, recording.failed_forks(), self.table)
        self._failing: dict[int, int] = dict(zip(self.table["id"][met.notna()].tolist(), met.dropna().tolist(), strict=True))
        self._flows_to: dict[int, list[int]] = defaultdict(list)
        for process, failure in self._failing.items():
            self._flows_to[failure].append(_flow(_OF_FAILURE, process))

    def write(self) -> None:
        self._clocks()
        self._describe()
        for row in rows(self.table):
            self._process(row)
        for signal in rows(self.recording.signals()):
            self._signal(signal)
        for failure in rows(self.recording.failed_forks()):
            self._failure(failure)
        self._counters()

    def _packet(self) -> TracePacket:
        packet: TracePacket = self._builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.sequence_flags = _NEEDS_STATE
        return packet

    def _clocks(self) -> None:
        """CLOCK_BOOTTIME is the clock of the trace; the snapshot ties it to the wall clock, as a system trace does."""
        packet = self._packet()
        packet.sequence_flags = _FIRST_STATE
        start_ns = self.recording.start_ns
        packet.timestamp = max(start_ns, 0)
        packet.clock_snapshot.primary_trace_clock = _BOOTTIME
        for clock, time_ns in ((_BOOTTIME, start_ns), (_REALTIME, start_ns + self.recording.header["clock_offset_ns"])):
            packet.clock_snapshot.clocks.add(clock_id=clock, timestamp=max(time_ns, 0))
        packet.trace_packet_defaults.timestamp_clock_id = _BOOTTIME
        self._builder.write_packet(packet)

    def _describe(self) -> None:
        title = title_of(self.recording.header["command"]) or "a recording"
        self._track(_ROOT, f"forktrace: {title}")
        self._track(_ALL_ZOMBIES, "zombies, all parents", parent=_ROOT, counter=True)
        self._track(_OUTSIDE, "outside of the recording", parent=_ROOT)
        for process, uuid in self._tracks.own.items():
            above = self._tracks.parent_of.get(process, _NOBODY)
            self._track(uuid, self.names.full(process), parent=self._tracks.own.get(above, _ROOT))
        for (parent, lane), uuid in self._tracks.lanes.items():
            self._track(uuid, f"children, lane {lane + 1}", parent=self._tracks.own.get(parent, _ROOT), order=lane + 1)

    def _track(self, uuid: int, name: str, *, parent: int = 0, counter: bool = False, order: int = 0) -> None:
        packet = self._packet()
        track = packet.track_descriptor
        track.uuid, track.name = uuid, name
        track.child_ordering = 3  # EXPLICIT
        track.sibling_order_rank = order
        if parent:
            track.parent_uuid = parent
        if counter:
            track.counter.unit_name = "zombies"
        self._builder.write_packet(packet)

    def _process(self, row: Any) -> None:
        """The slices of a process, and the flows from its fork and to its reap."""
        number, track = self.names.pid(row.id), self._tracks.of[row.id]
        flow = [_flow(_OF_FORK, row.id)] if row.origin in ("forked", "target") else []
        run_end_ns, gone_ns = ends(row, self.recording.end_ns)
        if flow:
            self._event(_INSTANT, row.fork_ns, self._own(row.parent_id), f"fork {number}", out=flow, line=row.fork_site)
        self._event(_BEGIN, row.fork_ns, track, "run", into=flow, **self._about_run(row))
        self._event(_END, run_end_ns, track)
        if pd.isna(row.zombie_ms):
            return
        cause = "unknown" if pd.isna(row.reap_cause) else row.reap_cause
        flow = [] if pd.isna(row.reap_ns) else [_flow(_OF_REAP, row.id)]
        failing = [_flow(_OF_FAILURE, row.id)] if row.id in self._failing else []
        self._event(_BEGIN, row.zombie_ns, track, f"zombie: {cause}", out=flow + failing, **self._about_zombie(row, cause))
        self._event(_END, gone_ns, track)
        if flow:
            self._event(_INSTANT, gone_ns, self._own(row.reaper_id), f"reap {number}", into=flow, line=row.reap_site)

    def _about_run(self, row: Any) -> dict[str, Any]:
        ended = row.term_signal if pd.isna(row.exit_code) else f"exited {row.exit_code}"
        return {
            "process": self.names.full(row.id),
            "command": row.argv,
            "started at": row.fork_site,
            "made by": row.created_by,
            "ended": ended,
            "left at": row.exit_site,
            "stack of the fork": row.fork_stack,
            "notes": row.notes,
        }

    def _about_zombie(self, row: Any, cause: str) -> dict[str, Any]:
        return {
            "process": self.names.full(row.id),
            "why": explanations.cause(cause).short,
            "reaped by": self.names.of(row.reaper_id, row.reaper_pid, full=True),
            "reaped at": row.reap_site,
            "stack of the reap": row.reap_stack,
            "cleared by the start of": pd.NA if pd.isna(row.cleared_by_id) else self.names.pid(int(row.cleared_by_id)),
        }

    def _signal(self, row: Any) -> None:
        """An instant at the victim, and where the sender is known one there, with a flow between them."""
        if pd.isna(row.id) or row.id not in self._there:
            return
        sent = not pd.isna(row.sender_id) and row.sender_id in self._there
        flow = [_flow(_OF_SIGNAL, row.Index)] if sent else []
        if sent:
            whom = self.names.pid(int(row.id))
            self._event(
                _INSTANT, row.time_ns, self._own(row.sender_id), f"{row.signal} to {whom}", out=flow, line=row.sender_site
            )
        self._event(_INSTANT, row.time_ns, self._tracks.of[row.id], str(row.signal), into=flow, **{"sent by": row.kind})

    def _failure(self, row: Any) -> None:
        """An instant at the process that could not fork; flows come from its zombies, which counted against the limit."""
        name, into = f"fork failed: {failed.reason(row.errno, row.limit, row.allowed)}", self._flows_to.get(row.Index, ())
        self._event(_INSTANT, row.time_ns, self._own(row.id), name, into=into, line=row.site)

    def _own(self, process: Any) -> int:
        """The track of what a process does."""
        return _OUTSIDE if pd.isna(process) else self._tracks.own.get(int(process), _OUTSIDE)

    def _event(
        self, kind: int, time_ns: int, track: int, name: str = "", *, out: Flows = (), into: Flows = (), **more: Any
    ) -> None:
        packet = self._packet()
        packet.timestamp = int(time_ns)
        event = packet.track_event
        event.type, event.track_uuid = kind, track
        if name:
            event.name_iid = self._interned(packet, "event_names", name)
        event.flow_ids.extend(out)
        event.terminating_flow_ids.extend(into)
        for key, value in more.items():
            if not _missing(value):
                note = event.debug_annotations.add()
                note.name_iid = self._interned(packet, "debug_annotation_names", key)
                note.string_value_iid = self._interned(packet, "debug_annotation_string_values", value)
        self._builder.write_packet(packet)

    def _interned(self, packet: TracePacket, table: str, text: str) -> int:
        """The number of a text, which is written the first time that it is needed."""
        iid = self._texts.get((table, text))
        if iid is None:
            iid = self._texts[table, text] = len(self._texts) + 1
            entry = getattr(packet.interned_data, table).add()
            entry.iid = iid
            visible = shorten(printable(text), MOST_TEXT)
            if table == "debug_annotation_string_values":
                entry.str = visible.encode()
            else:
                entry.name = visible
        return iid

    def _counters(self) -> None:
        counts = self.recording.zombie_count()
        for parent, uuid in self._tracks.counters.items():
            who = "parents outside" if parent == _NOBODY else self.names.full(parent)
            self._track(uuid, f"zombies of {who}", parent=self._tracks.own.get(parent, _ROOT), counter=True)
        parents = counts["parent_id"].to_numpy(np.int64, na_value=_NOBODY).tolist()
        for time_ns, parent, number in zip(counts["time_ns"].tolist(), parents, counts["zombies"].tolist(), strict=True):
            self._count(time_ns, self._tracks.counters[parent], number)
        total = total_zombies(counts)
        for time_ns, number in zip(total["time_ns"].tolist(), total["zombies"].tolist(), strict=True):
            self._count(time_ns, _ALL_ZOMBIES, number)

    def _count(self, time_ns: int, track: int, number: int) -> None:
        packet = self._packet()
        packet.timestamp = time_ns
        packet.track_event.type, packet.track_event.track_uuid = _COUNTER, track
        packet.track_event.counter_value = number
        self._builder.write_packet(packet)


def _flow(kind: int, number: int) -> int:
    """The number of the flow of a process, or of a signal."""
    return 4 * number + kind + 1


def _missing(value: Any) -> bool:
    """Whether a value is `<NA>`; some ten times as fast as pandas asks."""
    return value is pd.NA or value is None or value != value


class _Tracks:
    """Which track has what: `own` of processes that do something, `lanes` for the other children, `of` each process."""

    def __init__(self) -> None:
        self.own: dict[int, int] = {}
        self.lanes: dict[tuple[int, int], int] = {}
        self.counters: dict[int, int] = {}
        self.of: dict[int, int] = {}
        self.parent_of: dict[int, int] = {}
        self._next = _FIRST

    def new(self) -> int:
        """Return the number of a new track."""
        self._next += 1
        return self._next


def _tracks(recording: Recording, table: pd.DataFrame) -> _Tracks:
    """Give a track to each process that forks, reaps, signals or has no parent here, and put the others into lanes."""
    tracks, there = _Tracks(), set(table["id"].tolist())
    tracks.parent_of = dict(
        zip(table["id"].tolist(), table["parent_id"].to_numpy(np.int64, na_value=_NOBODY).tolist(), strict=True)
    )
    doing = (table["parent_id"], table["reaper_id"], recording.signals()["sender_id"], recording.failed_forks()["id"])
    active = {int(one) for column in doing for one in column.dropna().unique()} & there
    active |= {one for one, parent in tracks.parent_of.items() if parent not in there}
    for process in sorted(active, key=lambda one: (tracks.parent_of[one], one)):
        tracks.own[process] = tracks.of[process] = tracks.new()
    for parent in recording.zombie_count()["parent_id"].to_numpy(np.int64, na_value=_NOBODY).tolist():
        tracks.counters.setdefault(parent, 0)
    tracks.counters = {parent: tracks.new() for parent in tracks.counters}
    for process, parent, lane in _lanes(recording, table, active):
        tracks.of[process] = tracks.lanes.setdefault((parent, lane), 0) or tracks.new()
        tracks.lanes[parent, lane] = tracks.of[process]
    return tracks


def _lanes(recording: Recording, table: pd.DataFrame, active: set[int]) -> Iterator[tuple[int, int, int]]:
    """Yield each other process, its parent, and the lane among its siblings': the one that has been free for longest."""
    busy: dict[int, list[tuple[int, int]]] = defaultdict(list)  # (free from, lane), the first to be free on top
    for row in rows(table):
        if row.id in active:
            continue
        parent = int(row.parent_id)
        lanes = busy[parent]
        run_end_ns, gone_ns = ends(row, recording.end_ns)
        end_ns = run_end_ns if pd.isna(row.zombie_ms) else gone_ns
        if lanes and lanes[0][0] <= row.fork_ns:
            lane = heapq.heapreplace(lanes, (end_ns, lanes[0][1]))[1]
        else:
            lane = len(lanes)
            heapq.heappush(lanes, (end_ns, lane))
        yield row.id, parent, lane
