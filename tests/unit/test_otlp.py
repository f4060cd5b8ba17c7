"""Spans in a file of JSON lines and at a collector, and what is said of a collector that does not do its part."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from collectors import Answer, collector, dies, drips, is_silent, refuses, rejects
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from spans import merged, read_line
from traces import HEADER, MS, child, consumer, known, recording, target, work

import forktrace
from forktrace.analysis.recording import Recording
from forktrace.cli import cli
from forktrace.errors import ForktraceError, UsageError
from forktrace.trace import events as ev
from forktrace.trace import stream
from forktrace.views.formats import otlp
from forktrace.views.formats.otel_spans import Spans

DATA = Path(__file__).parents[1] / "data"
TRACES = sorted(DATA.glob("*.arrows"))
DAY_NS = 86_400_000_000_000
SOON_NS = 30_000_000_000  # longer than the command takes
LONGEST_LINE = 1 << 20  # of the collector's file receiver


def written(made: Recording, *, argv: bool = False) -> list[bytes]:
    """The lines of the file."""
    sink = io.BytesIO()
    otlp.write(Spans(made, argv=argv), sink)
    return sink.getvalue().splitlines()


@pytest.mark.parametrize("argv", [False, True])
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_lines_are_what_the_sdk_would_send(path: Path, argv: bool) -> None:
    """Each line, read by the protocol's own class, is what OpenTelemetry's encoder makes of the same spans."""
    made = forktrace.read(path)
    requests = [read_line(line) for line in written(made, argv=argv)]
    expected = encode_spans(list(Spans(made, argv=argv)))
    assert merged(requests) == merged([expected])
    assert requests[0].resource_spans[0].resource == expected.resource_spans[0].resource
    assert requests[0].resource_spans[0].scope_spans[0].scope == expected.resource_spans[0].scope_spans[0].scope


def test_a_line_says_that_its_parent_is_elsewhere() -> None:
    """The span in which a command was started is not of this file."""
    made = recording(target(), *child(4711, 10, 20), traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert merged(map(read_line, written(made))) == merged([encode_spans(list(Spans(made)))])


def test_no_line_is_too_long() -> None:
    """The collector's file receiver reads 1 MiB of a line, also where each text is as long as it can be."""
    made = recording(*consumer(150))
    made = known(made, notes=dict.fromkeys(range(150), "\U0001f40d" * 5000), argv=dict.fromkeys(range(150), '"y\\" ' * 20_000))
    lines = written(made, argv=True)
    assert max(map(len, lines)) < LONGEST_LINE
    assert len(merged([read_line(line) for line in lines])) == Spans(made).count


def test_a_collector_has_all() -> None:
    """What it got is what the SDK's encoder makes of the recording, in several requests to the path of OTLP."""
    made = recording(*consumer(300))
    with collector() as there:
        assert otlp.send(Spans(made), there.url) == []
    assert merged([there.spans]) == merged([encode_spans(list(Spans(made)))])
    assert there.requests > 2
    assert there.paths == {"/v1/traces"}


@pytest.mark.parametrize(
    ("given", "path"),
    [("", "/v1/traces"), ("/", "/v1/traces"), ("/v1/traces", "/v1/traces"), ("/otlp/", "/otlp/v1/traces")],
)
def test_the_path_may_be_left_out(given: str, path: str) -> None:
    """The address of a collector is that of its host and port, or of a folder that it has."""
    with collector() as there:
        otlp.send(Spans(recording(target())), there.url + given)
    assert there.paths == {path}


@pytest.mark.parametrize(
    "url", ["http://", "grpc://localhost:4317", "http://host:port", "http://[::1", "ftp://x", "http://h:0x"]
)
def test_no_address(url: str) -> None:
    """Only http:// or https:// and a host."""
    with pytest.raises(UsageError, match="is no address of a collector"):
        otlp.send(Spans(recording(target())), url)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 10 s were one."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refuses(401), "refuses: 401 Unauthorized"),
        (refuses(404), "refuses: 404 Not Found"),
        (refuses(302, Location="http://elsewhere/"), "refuses: 302 Found"),
        (refuses(500), "refuses: 500 Internal Server Error"),
        (refuses(503), "refuses: 503 Service Unavailable"),
        (refuses(429, **{"Retry-After": "3600"}), "refuses: 429 Too Many Requests"),
        (refuses(200, **{"Content-Type": "text/html; charset=utf-8"}), "is none: it answers with a page"),
        (refuses(400, after=1), r"refuses: 400 Bad Request, after it took 200 of 301 spans; they keep their ids"),
        (is_silent, "does not answer in time"),
        (drips, "does not answer in time"),
        (dies, r"cannot be reached: .*, after it took 200 of 301 spans; they keep their ids"),
    ],
)
def test_a_collector_that_does_not_take_them(answer: Answer, words: str, capfd: pytest.CaptureFixture[str]) -> None:
    """It is said in one line, after no longer than a request may take, and nothing else is said."""
    begin_s = time.monotonic()
    with collector(answer) as there, pytest.raises(ForktraceError, match=words) as caught:
        otlp.send(Spans(recording(*consumer(150))), there.url)
    assert time.monotonic() - begin_s < 5
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_no_collector() -> None:
    """Where nobody listens it is said at once."""
    with collector() as there:
        pass
    begin_s = time.monotonic()
    with pytest.raises(ForktraceError, match=r"^the collector at 127.0.0.1:\d+ cannot be reached: connection refused$"):
        otlp.send(Spans(recording(target())), there.url)
    assert time.monotonic() - begin_s < 1


def test_a_password_is_not_shown() -> None:
    """An address may hold one."""
    with collector(refuses(403)) as there, pytest.raises(ForktraceError, match="403") as caught:
        otlp.send(Spans(recording(target())), there.url.replace("//", "//alice:hush@"))
    assert "hush" not in str(caught.value)
    with pytest.raises(UsageError, match=r"^host:x is no address"):
        otlp.send(Spans(recording(target())), "http://alice:hush@host:x")


def test_spans_that_a_collector_rejects() -> None:
    """It may take a request and leave out spans: that is no success."""
    with collector(rejects(2, "too \x1b[2Jold")) as there:
        with pytest.raises(ForktraceError, match=r"rejected 4 of 301 spans: too \\x1b\[2Jold"):
            otlp.send(Spans(recording(*consumer(150))), there.url)
    with collector(rejects(0, "mind the limit")) as there:
        assert otlp.send(Spans(recording(target())), there.url) == ["the collector says: mind the limit"]


@pytest.mark.parametrize(
    ("date", "words"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", r"this machine's clock is [\d,]+ h \d\d min ahead of the collector's: .*"),
        ("Sun, 06 Nov 2094 08:49:37 GMT", r"this machine's clock is [\d,]+ h \d\d min behind the collector's: .*"),
        ("not a date", None),
        ("", None),
    ],
)
def test_a_clock_that_is_wrong(date: str, words: str | None) -> None:
    """What a collector says is the time is compared with this machine's clock."""
    with collector(refuses(200, Date=date)) as there:
        said = otlp.send(Spans(recording(target())), there.url)
    assert len(said) == (words is not None)
    if words:
        assert re.fullmatch(words, said[0])


def export(*words: str) -> Result:
    """Run `forktrace export`."""
    return CliRunner().invoke(cli, ["export", *words])


def test_the_command(tmp_path: Path) -> None:
    """It writes a new file or sends, and says how many spans, and of which trace."""
    path = tmp_path / "run.jsonl"
    done = export(str(DATA / "kafka.arrows"), "--otlp", str(path))
    made = forktrace.read(DATA / "kafka.arrows")
    what = f"{Spans(made).count} spans of 10 processes, trace {Spans(made).trace_id:032x}\n"
    assert (done.exit_code, done.stderr) == (0, f"wrote {path}: {what}")
    assert path.read_bytes().splitlines() == written(made)
    assert export(str(DATA / "kafka.arrows"), "--otlp", "-").stdout_bytes == path.read_bytes()
    with collector() as there:
        assert export(str(DATA / "kafka.arrows"), "--otlp", there.url).stderr == f"sent {what}"
    export(str(DATA / "kafka.arrows"), "--otlp", str(path), "--force", "--drop", "none")
    assert path.read_bytes().splitlines() == written(made, argv=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--otlp", "{there}"], "exists"),
        (["--otlp", "localhost:4318"], "no .jsonl file and no address"),
        (["--otlp", "gopher://x"], "no address of a collector"),
        (["--otlp", "x.jsonl", "-o", "y.csv"], "no table"),
        (["--otlp", "x.jsonl", "--to", "csv"], "no table"),
        (["--otlp", "x.jsonl", "--table", "waits"], "no table"),
        (["--drop", "none"], "--drop is for --otlp"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that exists, what is neither a file nor an address, and what does not go together."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.jsonl").write_text("mine")
    done = export(str(DATA / "kafka.arrows"), *[word.format(there=tmp_path / "run.jsonl") for word in words])
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]
    assert (tmp_path / "run.jsonl").read_text() == "mine"


def test_a_disk_that_is_full() -> None:
    """It is an error in a line."""
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(ForktraceError, match="No space left on device"):
        otlp.write(Spans(recording(target())), full)


def test_without_the_packages(tmp_path: Path) -> None:
    """It says how to get them, and writes nothing."""
    path = tmp_path / "run.jsonl"
    program = "import sys; sys.modules['opentelemetry'] = None; from forktrace.cli import main; main()"
    line = [sys.executable, "-c", program, "export", str(DATA / "kafka.arrows"), "--otlp", str(path)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == "forktrace: the package opentelemetry-sdk is not installed\n  pip install 'forktrace[otel]'\n"
    assert done.returncode == 78
    assert not path.exists()


@pytest.mark.parametrize(
    ("offset_ns", "totals", "words"),
    [
        (DAY_NS, {}, "the recording ends 24 h 00 min from now: the clock of box is ahead, or this machine's is behind"),
        (-DAY_NS, {"clock_offset_ns": DAY_NS}, "the clock was set forward by 24 h 00 min during the recording: "),
        (-DAY_NS, {}, ""),
    ],
)
def test_a_host_whose_clock_is_off_by_a_day(tmp_path: Path, offset_ns: int, totals: dict[str, int], words: str) -> None:
    """It is warned of where it can be known: the recording ends in the future, or the clock was set meanwhile."""
    now_ns = time.time_ns() + offset_ns + SOON_NS
    path = tmp_path / "run.arrows"
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER | {"clock_offset_ns": now_ns})
        end = ev.end(60 * MS, json.dumps({name: now_ns + value for name, value in totals.items()}))
        writer.write(stream.batch_of([target(), *child(4711, 10, 20), end]))
        writer.close()
    done = export(str(path), "--otlp", str(tmp_path / "run.jsonl"))
    said = done.stderr.splitlines()[1:]
    assert [line.removeprefix("forktrace: ")[: len(words)] for line in said] == ([words] if words else [])
    assert done.exit_code == 0


def test_ten_thousand_processes_are_quick() -> None:
    """In processor time, which does not depend on what else the machine does: well below 5 s, to a file as to a collector."""
    made = recording(*consumer(10_000))
    begin_s = time.process_time()
    written(made)
    file_s = time.process_time() - begin_s
    with collector() as there:
        otlp.send(Spans(made), there.url)
    assert max(file_s, time.process_time() - begin_s - file_s) < 5


def test_a_line_as_it_stands_there() -> None:
    """A whole line, as a reader sees it who has never seen one."""
    (line,) = written(recording(target(), *work(4711, 10, 20, 50), ev.end(60 * MS)))
    spans = json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    zombie = spans[2]
    assert (zombie["name"], zombie["parentSpanId"], zombie["traceId"]) == (
        "zombie: join",
        spans[1]["spanId"],
        spans[0]["traceId"],
    )
    assert zombie["links"][0]["spanId"] == spans[0]["spanId"]
    assert int(zombie["endTimeUnixNano"]) - int(zombie["startTimeUnixNano"]) == 30 * MS
