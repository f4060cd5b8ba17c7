"""The recording as a Perfetto trace: tracks, slices, flows and counters, as its own protocol has them."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace
from trace_processor import query
from traces import MS, child, consumer, recording, target

import forktrace
from forktrace.analysis.recording import Recording
from forktrace.errors import MachineLacks
from forktrace.trace import events as ev
from forktrace.views import failed
from forktrace.views.formats.perfetto import write_perfetto

DATA = Path(__file__).parents[1] / "data"


def written(made: Recording) -> bytes:
    """Return the bytes of the Perfetto trace."""
    sink = io.BytesIO()
    write_perfetto(made, sink)
    return sink.getvalue()


def packets(made: Recording) -> Any:
    """Return its packets."""
    trace = Trace()
    trace.ParseFromString(written(made))
    return trace.packet


def named(made: Recording) -> list[tuple[int, str, int, list[int], list[int]]]:
    """Return its events with a name: when, the name, the track, the flows that leave and that end."""
    names: dict[int, str] = {}
    found = []
    for one in packets(made):
        names |= {entry.iid: entry.name for entry in one.interned_data.event_names}
        event = one.track_event
        if event.name_iid:
            flows = list(event.flow_ids), list(event.terminating_flow_ids)
            found.append((one.timestamp, names[event.name_iid], event.track_uuid, *flows))
    return found


def test_a_child() -> None:
    """A fork leads to the run, the zombie to its reap; the child is on a lane, what the parent does on its own track."""
    made = recording(target(), *child(4711, 10, 20), ev.reap(50 * MS, 4711, by=100), ev.end(60 * MS))
    tracks = {one.track_descriptor.uuid: one.track_descriptor.name for one in packets(made) if one.HasField("track_descriptor")}
    events = [(when // MS, name, tracks[track], *flows) for when, name, track, *flows in named(made)]
    assert events == [
        (0, "fork 100", "outside of the recording", [1], []),
        (0, "run", "100 python", [], [1]),
        (10, "fork 4711", "100 python", [5], []),
        (10, "run", "children, lane 1", [], [5]),
        (20, "zombie: unknown", "children, lane 1", [6], []),
        (50, "reap 4711", "100 python", [], [6]),
    ]


def test_lanes_are_used_again() -> None:
    """Of ten children one after the other each finds the same lane free; two at once need two."""
    rows = [row for number in range(10) for row in child(200 + number, 10 * number + 1, 10 * number + 5)]
    reaps = [ev.reap((10 * number + 9) * MS, 200 + number, by=100) for number in range(10)]
    made = recording(target(), *rows, *reaps, *child(300, 2, 3), ev.end(200 * MS))
    lanes = [one.track_descriptor.name for one in packets(made) if one.track_descriptor.name.startswith("children")]
    assert lanes == ["children, lane 1", "children, lane 2"]


def test_a_signal_leads_to_its_victim() -> None:
    """With a flow where the sender is known."""
    rows = [target(), *child(4711, 10, 90), ev.signal(50 * MS, 4711, 15, by=100)]
    made = recording(*rows, ev.end(200 * MS))
    events = named(made)
    assert [(name, out, into) for _, name, _, out, into in events if "SIGTERM" in name] == [
        ("SIGTERM to 4711", [3], []),
        ("SIGTERM", [], [3]),
    ]


def full(limit: str | None = "pids.max") -> Recording:
    """A recording of two zombies and a child that lives, while two forks of their parent fail."""
    children = [*child(200, 10, 20), *child(201, 11, 22), *child(202, 12, 90)]
    failures = [ev.fork_failed(at * MS, 100, 11, detail=limit, count=4) for at in (21, 30)]
    return recording(target(), *children, *failures, ev.reap(40 * MS, 200, by=100), ev.end(95 * MS))


def test_a_failed_fork_is_met_by_what_filled_the_limit() -> None:
    """A flow leads from each zombie of a parent to its first fork that failed meanwhile; none where no limit is to blame."""
    events = named(full())
    assert [
        (when // MS, into) for when, name, _, _, into in events if name.startswith("fork failed: EAGAIN (pids.max of 4)")
    ] == [
        (21, [8]),
        (30, [12]),
    ]
    assert [(when // MS, out) for when, name, _, out, _ in events if name.startswith("zombie: ")] == [
        (20, [6, 8]),
        (22, [12]),
        (90, []),
    ]
    assert [into for _, name, _, _, into in named(full(limit=None)) if name.startswith("fork failed")] == [[], []]


def test_the_clock() -> None:
    """The snapshot says which wall clock belongs to which CLOCK_BOOTTIME, the clock of the trace."""
    made = recording(*consumer(2))
    first = packets(made)[0].clock_snapshot
    offset = made.header["clock_offset_ns"]
    assert first.primary_trace_clock == 6
    assert {one.clock_id: one.timestamp for one in first.clocks} == {6: made.start_ns, 1: made.start_ns + offset}


def test_compressed() -> None:
    """By gzip it is the same, and the same each time."""
    made = forktrace.read(DATA / "kafka.arrows")
    sink = io.BytesIO()
    write_perfetto(made, sink, compressed=True)
    assert gzip.decompress(sink.getvalue()) == written(made)


def test_texts_are_escaped() -> None:
    """Nothing of a trace steers whoever prints it, and none is endless."""
    made = recording(*consumer(2))
    made.lifecycles()["argv"] = "\x1b[31m\u202e" + "x" * 1_000_000
    data = written(made)
    assert rb"\x1b[31m\u202e" in data
    assert b"\x1b[31m" not in data
    assert "\u202e".encode() not in data
    assert len(data) < 100_000


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with how to get it."""
    monkeypatch.setitem(sys.modules, "perfetto.trace_builder.proto_builder", None)
    with pytest.raises(MachineLacks) as caught:
        written(recording(*consumer(2)))
    assert caught.value.hint == "pip install 'forktrace[perfetto]'"


def agree(made: Recording) -> None:
    """SQL: flows are forks, reaps and known senders; zombie slices last as long as the zombies; nothing is wrong or lost.

    And of each zombie while a fork of its parent failed there is one more.
    """
    table, signals = made.lifecycles(), made.signals()
    slices, flows, wrong, counters = query(
        written(made),
        "select name, dur from slice",
        "select count(*) as n from flow",
        "select name from stats where severity in ('error', 'data_loss') and value > 0",
        "select max(value) as most from counter join counter_track t on track_id = t.id where t.name like '%all parents'",
    )
    zombies = [one["dur"] for one in slices if one["name"].startswith("zombie: ")]
    forks, reaps = (
        table["origin"].isin(["forked", "target"]).sum(),
        (table["zombie_ms"].notna() & table["reap_ns"].notna()).sum(),
    )
    met = failed.met_by(made, made.failed_forks(), table).notna().sum()
    assert flows == [{"n": forks + reaps + signals["sender_id"].notna().sum() + met}]
    assert sum(zombies) / 1e6 == pytest.approx(table["zombie_ms"].sum(), abs=1e-3)
    assert Counter(one["name"] for one in slices)["run"] == len(table)
    assert wrong == []
    assert counters[0]["most"] >= made.zombie_count()["zombies"].max()


@pytest.mark.skipif(not (shutil.which("node") or os.environ.get("CI")), reason="asks Perfetto's SQL: needs node (make setup)")
@pytest.mark.parametrize("made", [forktrace.read(DATA / "kafka.arrows"), full()], ids=["kafka", "full"])
def test_trace_processor_agrees(made: Recording) -> None:
    """Of the Kafka consumer, and of a parent that met a limit."""
    agree(made)


@pytest.mark.pages
@pytest.mark.parametrize("path", sorted(DATA.glob("*.arrows")), ids=lambda path: path.stem)
def test_trace_processor_agrees_on_each_trace(path: Path) -> None:
    """Of each committed trace."""
    agree(forktrace.read(path))
