"""A recording as spans: which there are, who is whose parent, when they begin and end, and what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv._incubating.attributes import process_attributes
from opentelemetry.semconv.attributes import code_attributes
from traces import BOOT_NS, MS, child, known, recording, target, work

import forktrace
from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.views.formats.otel_spans import MOST_TEXT, Spans

TRACES = sorted((Path(__file__).parents[1] / "data").glob("*.arrows"))
SPAN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LIBRARY_ROWS = [target(), *work(4711, 10, 20, 50), ev.end(60 * MS)]


@dataclasses.dataclass(frozen=True)
class Told:
    """A span as tests look at it; times in ms since boot."""

    name: str
    begin_ms: float
    end_ms: float
    attributes: dict[str, Any]
    parent: str | None
    links: list[str]
    is_error: bool


def spans_of(made: Recording, *, argv: bool = False) -> list[Told]:
    """The spans of a recording; parents and links by their names."""
    spans = list(Spans(made, argv=argv))
    names = {span_id(span): f"{span.name} {span.attributes['process.pid']}" for span in spans}
    return [_told(span, names) for span in spans]


def _told(span: ReadableSpan, names: dict[int, str]) -> Told:
    times = [(time_ns - BOOT_NS) / MS for time_ns in (span.start_time, span.end_time)]
    parent = None if span.parent is None else names.get(span.parent.span_id, f"{span.parent.span_id:x}")
    links = [names[link.context.span_id] for link in span.links]
    return Told(span.name, *times, dict(span.attributes), parent, links, span.status.status_code.name == "ERROR")


def span_id(span: ReadableSpan) -> int:
    """The number of a span."""
    return span.get_span_context().span_id


def one(made: Recording, name: str, pid: int = 4711) -> Told:
    """The span of this name and process."""
    (found,) = [span for span in spans_of(made) if span.name.startswith(name) and span.attributes["process.pid"] == pid]
    return found


def test_a_process_and_its_zombie() -> None:
    """Below its forker's span is that of the process, below this its zombie, with a link to who reaped it."""
    spans = spans_of(recording(*LIBRARY_ROWS))
    assert [(one.name, one.begin_ms, one.end_ms, one.parent, one.links) for one in spans] == [
        ("python", 0, 60, None, []),
        ("python", 10, 20, "python 100", []),
        ("zombie: join", 20, 50, "python 4711", ["python 100"]),
    ]


def test_lines_are_told_by_the_names_of_the_conventions() -> None:
    """Of the fork at the process, of the reap at the zombie; folders only where they are asked for."""
    made = recording(*LIBRARY_ROWS)
    lines = [
        tuple(span.attributes.get(f"code.{one}") for one in ("file.path", "line.number", "function.name"))
        for span in spans_of(made)
    ]
    assert lines == [(None, None, None), ("consumer.py", 33, "consume"), ("consumer.py", 34, "consume")]
    assert [span.attributes.get("code.file.path") for span in spans_of(made, argv=True)] == [None, *["/srv/consumer.py"] * 2]


def test_names_are_those_of_the_conventions() -> None:
    """Whatever is not of forktrace is named in OpenTelemetry's tables, and nothing there is deprecated."""
    known_names = {
        value for module in (process_attributes, code_attributes) for name, value in vars(module).items() if name.isupper()
    }
    used = {name for path in TRACES for span in Spans(forktrace.read(path), argv=True) for name in span.attributes}
    assert {"process.pid", "process.command_args", "code.line.number", "forktrace.reap.cause"} <= used
    assert {name for name in used if not name.startswith("forktrace.")} - known_names == {"error.type"}


def test_a_command_line_is_a_secret() -> None:
    """Neither in a span nor in what all have in common, unless it is asked for."""
    secret = ev.exec_(1 * MS, 100, ["python", "consumer.py", "--password=hush me"])
    made = recording(target(), secret, *child(4711, 10, 20), command=["python", "consumer.py", "--password=hush me"])
    kept, told = (list(Spans(made, argv=argv)) for argv in (False, True))
    assert "hush" not in "".join(span.to_json() for span in kept)
    assert told[0].attributes["process.command_args"] == ["python", "consumer.py", "--password=hush me"]
    assert kept[0].resource.attributes["service.name"] == "consumer.py"


def test_what_never_ended() -> None:
    """A process that runs at the end, and a zombie that nobody reaped: their spans go to the end and say that it is none."""
    made = recording(target(), *child(4711, 10, 20), ev.end(60 * MS))
    target_span, process, zombie = spans_of(made)
    assert (target_span.end_ms, target_span.attributes["forktrace.end"]) == (60, "alive")
    assert (process.end_ms, process.attributes["forktrace.end"]) == (20, "exit")
    assert (zombie.end_ms, zombie.attributes["forktrace.zombie.end"], zombie.name) == (60, "never", "zombie: never")
    assert zombie.links == []


def test_what_was_lost_is_not_made_up() -> None:
    """A release that nobody saw ends no zombie, an exit that was lost no process; what was lost is said of all spans."""
    lost = {"kind": "lost", "time_ns": 50 * MS, "count": 3, "detail": "exit"}
    rows = [
        target(),
        *child(4711, 10, 20),
        ev.fork(30 * MS, 4711, by=100),
        ev.reap(40 * MS, 4711, by=100, start_ns=30 * MS),
        lost,
    ]
    made = recording(*rows, ev.end(60 * MS))
    spans = list(Spans(made))
    assert spans[0].resource.attributes["forktrace.lost.events"] == 3
    assert spans[0].resource.attributes["forktrace.lost"] == "3 exit"
    first, zombie, second, *_ = [span for span in spans_of(made) if span.attributes["process.pid"] == 4711]
    assert (first.attributes["forktrace.end"], first.end_ms) == ("exit", 20)
    assert (zombie.begin_ms, zombie.end_ms, zombie.attributes["forktrace.zombie.end"]) == (20, 20, "unknown")
    assert (second.attributes["forktrace.end"], second.end_ms) == ("unknown", 40)
    assert not any(span.attributes["forktrace.complete"] for span in (first, zombie, second))
    assert "forktrace.notes" in second.attributes


def test_how_exactly_a_zombie_is_known() -> None:
    """A reaper whose waits raise no event leaves an upper bound."""
    made = recording(target(), *child(4711, 10, 20), ev.reap(50 * MS, 4711, by=None, call="unseen"))
    assert one(made, "zombie").attributes["forktrace.zombie.bound"] == "at most"
    assert "forktrace.zombie.bound" not in one(recording(*LIBRARY_ROWS), "zombie").attributes


@pytest.mark.parametrize(("status", "failed"), [(0, None), (256 * 3, "3"), (15, "SIGTERM")])
def test_how_a_process_ended(status: int, failed: str | None) -> None:
    """A code other than 0 and a signal are errors, as the conventions for programs have it."""
    process = one(recording(target(), *child(4711, 10, 20, status=status)), "child")
    assert (process.is_error, process.attributes.get("error.type")) == (failed is not None, failed)
    assert process.attributes.get("process.exit.code") == (None if status == 15 else status >> 8)


def test_the_recorders_own_wait_is_no_zombie() -> None:
    """The command itself, which forktrace reaps, has no zombie."""
    made = recording(
        target(), ev.exit_(10 * MS, 100, parent=50), ev.zombie(10 * MS, 100, parent=50), ev.reap(20 * MS, 100, by=50)
    )
    assert [span.name for span in spans_of(made)] == ["python"]


def test_the_parent_is_who_forked() -> None:
    """With CLONE_PARENT the parent of a process is another."""
    sibling = ev.fork(30 * MS, 4712, by=4711, parent=100, comm="sibling")
    spans = spans_of(recording(target(), ev.fork(10 * MS, 4711, by=100, comm="child"), sibling))
    assert [(span.name, span.parent) for span in spans] == [
        ("python", None),
        ("child", "python 100"),
        ("sibling", "child 4711"),
    ]


def test_the_span_that_started_the_target() -> None:
    """It is the parent of the target's span, all are in its trace, and nothing else changes."""
    started, alone = (list(Spans(recording(*LIBRARY_ROWS, **header))) for header in ({"traceparent": SPAN}, {}))
    assert {span.get_span_context().trace_id for span in started} == {0x4BF92F3577B34DA6A3CE929D0E0E4736}
    assert [span.parent and span.parent.span_id for span in started] == [
        0xF067AA0BA902B7,
        *(p.parent.span_id for p in alone[1:]),
    ]
    assert (started[0].parent.is_remote, started[1].parent.is_remote) == (True, False)
    assert [span_id(span) for span in started] == [span_id(span) for span in alone]


def test_of_attached_processes_the_main_one_was_started_so() -> None:
    """The header's TRACEPARENT is that of the first process that -p names."""
    rows = [ev.fork(0, pid, by=1, origin="attached", comm="python") for pid in (100, 101)]
    assert [span.parent for span in spans_of(recording(*rows, traceparent=SPAN))] == ["f067aa0ba902b7", None]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_numbers_follow_from_the_trace(path: Path) -> None:
    """They are the same each time, each span's its own, and of a part those of the whole; every parent is there."""
    whole = forktrace.read(path)
    spans = list(Spans(whole))
    numbers = [span_id(span) for span in spans]
    assert numbers == [span_id(span) for span in Spans(forktrace.read(path))]
    assert len(set(numbers)) == len(numbers) == Spans(whole).count
    assert all(0 < number < 1 << 64 for number in numbers)
    assert {span.parent.span_id for span in spans if span.parent} <= set(numbers)
    part = Spans(whole.of(int(whole.lifecycles()["parent_id"].dropna().iloc[0])))
    assert {span_id(span) for span in part} < set(numbers) or part.count == len(numbers)
    assert part.trace_id == Spans(whole).trace_id


def test_another_recording_is_another_trace() -> None:
    """The numbers come from boot, process and start."""
    made = [Spans(recording(*LIBRARY_ROWS, **header)) for header in ({}, {"boot_id": "c"}, {"host": "elsewhere"})]
    first, second, third = ({span_id(span) for span in spans} | {spans.trace_id} for spans in made)
    assert not first & second
    assert first == third


def test_hostile_texts_are_harmless() -> None:
    """Nothing in them steers a terminal, all are bounded, and what stands for two processes makes two spans."""
    evil = "\x1b[2J" + "x" * 5000
    made = known(
        recording(target(), *child(4711, 10, 20), host="\ud800\x1b", boot_id=evil), notes={1: evil}, argv={1: "'" + evil}
    )
    made.lifecycles()["argv"] = made.lifecycles()["argv"].fillna(evil + " y" * 500)
    spans = list(Spans(made, argv=True))
    texts = [text for span in spans for text in (*span.attributes.values(), *span.resource.attributes.values())]
    flat = [word for text in texts for word in (text if isinstance(text, list) else [text]) if isinstance(word, str)]
    assert all(word.isprintable() and len(word) <= MOST_TEXT for word in flat)
    assert max(len(text) for text in texts if isinstance(text, list)) == 51


def test_the_users_words_for_the_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say what a backend calls the program."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "billing")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    attributes = next(iter(Spans(recording(*LIBRARY_ROWS)))).resource.attributes
    assert (attributes["service.name"], attributes["deployment.environment.name"]) == ("billing", "test")
    assert attributes["host.name"] == "box"
