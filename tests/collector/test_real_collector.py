"""Spans at a real OpenTelemetry Collector, for `make test-otel`: Go builds it, and it reads docs/otel-collector.yaml."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from recorded import PATIENCE_S, forktrace_command, wait_until
from spans import merged, read_line
from traces import HEADER, consumer

import forktrace
from forktrace.trace import stream
from forktrace.views.formats.otel_spans import Spans

pytestmark = pytest.mark.collector

ROOT = Path(__file__).parents[2]
TRACES = sorted((ROOT / "tests/data").glob("*.arrows"))
BUILD_S = 1200  # at most, the first time


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The collector, built."""
    path = tmp_path_factory.mktemp("collector") / "collector"
    line = ["go", "build", "-buildvcs=false", "-o", str(path), "."]
    done = subprocess.run(line, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=BUILD_S, check=False)
    assert done.returncode == 0, done.stderr
    return path


class Running:
    """A collector with the configuration of the documentation, but on a port and with a file of its own."""

    def __init__(self, program: Path, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url, self._file, self._log = f"http://127.0.0.1:{port}", folder / "spans.jsonl", folder / "log"
        ours = {
            "receivers.otlp.protocols.http.endpoint": f"127.0.0.1:{port}",
            "exporters.file.path": str(self._file),
            "service.telemetry.metrics.level": "none",
        }
        line = [str(program), "--config", str(ROOT / "docs/otel-collector.yaml"), *(f"--set={k}={v}" for k, v in ours.items())]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=log)

    def is_ready(self) -> bool:
        """Whether it takes spans."""
        assert self.process.poll() is None, self._log.read_text()
        return "Everything is ready" in self._log.read_text()

    def spans(self) -> ExportTraceServiceRequest:
        """What it has written, once it has ended as it was told to."""
        self.process.terminate()
        assert self.process.wait(PATIENCE_S) == 0
        found = ExportTraceServiceRequest()
        for line in self._file.read_bytes().splitlines():
            found.MergeFrom(read_line(line))
        return found


@contextlib.contextmanager
def running(program: Path, folder: Path) -> Iterator[Running]:
    """A collector that takes spans; it is gone afterwards."""
    made = Running(program, folder)
    try:
        wait_until(made.is_ready, "the collector is ready")
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def by_number(requests: list[ExportTraceServiceRequest]) -> dict[bytes, bytes]:
    """Spans by their numbers, since a collector may change their order."""
    return {span.trace_id + span.span_id: span.SerializeToString(deterministic=True) for span in merged(requests)}


def export(path: Path, place: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    environment = dict(os.environ) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "3"}
    line = forktrace_command("export", str(path), "--otlp", place)
    return subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=environment)


def test_the_page_shows_the_configuration() -> None:
    """docs/otel.md has what these collectors are started with."""
    shown = (ROOT / "docs/otel-collector.yaml").read_text().partition("\n")[2]
    assert f"```yaml\n{shown}```" in (ROOT / "docs/otel.md").read_text()


def test_it_takes_all_recordings(program: Path, tmp_path: Path) -> None:
    """What it writes into its file is what the SDK's encoder makes of them, number by number."""
    with running(program, tmp_path) as there:
        done = [export(path, there.url) for path in TRACES]
        assert [(one.returncode, one.stderr.startswith("sent ")) for one in done] == [(0, True)] * len(TRACES)
        found = by_number([there.spans()])
    assert found == by_number([encode_spans(list(Spans(forktrace.read(path)))) for path in TRACES])


def test_it_refuses_what_it_does_not_know(program: Path, tmp_path: Path) -> None:
    """A path that is not its own is said in one line."""
    with running(program, tmp_path) as there:
        done = export(TRACES[0], f"{there.url}/elsewhere")
    assert done.returncode == 1
    assert re.match(r"forktrace: the collector at 127.0.0.1:\d+ refuses: 404 Not Found\n", done.stderr)


def test_it_dies_midway(program: Path, tmp_path: Path) -> None:
    """What it took is said, and the command ends soon."""
    path = tmp_path / "large.arrows"
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER)
        writer.write(stream.batch_of(consumer(20_000)))
        writer.close()
    with running(program, tmp_path) as there:
        line = forktrace_command("export", str(path), "--otlp", there.url)
        with subprocess.Popen(
            line, stderr=subprocess.PIPE, text=True, env=dict(os.environ) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "3"}
        ) as one:
            wait_until(lambda: (tmp_path / "spans.jsonl").stat().st_size > 0, "spans have come")
            there.process.kill()
            begin_s = time.monotonic()
            _, said = one.communicate(timeout=PATIENCE_S)
    assert one.returncode == 1, said
    assert re.match(
        r"forktrace: the collector at \S+ cannot be reached: .*, after it took [\d,]+ of 40,001 spans; they keep", said
    )
    assert time.monotonic() - begin_s < 10


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_its_own_reader_takes_the_lines(program: Path, tmp_path: Path, path: Path) -> None:
    """The reader of JSON that its file receiver has makes of a file what the SDK's encoder makes of the recording."""
    lines = tmp_path / "run.jsonl"
    assert export(path, str(lines)).returncode == 0
    with lines.open("rb") as file:
        done = subprocess.run([program, "read"], stdin=file, capture_output=True, timeout=PATIENCE_S, check=True)
    expected = encode_spans(list(Spans(forktrace.read(path))))
    assert by_number([ExportTraceServiceRequest.FromString(done.stdout)]) == by_number([expected])
