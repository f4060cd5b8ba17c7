"""Spans where OpenTelemetry takes them: a file of JSON lines, or a collector over HTTP (OTLP)."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Final
from urllib.parse import SplitResult, urlsplit

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, format_span_id, format_trace_id

from forktrace.errors import ForktraceError, UsageError
from forktrace.trace.words import count
from forktrace.views import clocks
from forktrace.views.formats.otel_spans import Spans, visible

_PATH: Final = "/v1/traces"
_MOST_SPANS, _MOST_CHARACTERS = 200, 80_000  # of a request: a collector takes 20 MiB, its file receiver lines of 1 MiB
_SEND_LATER: Final = "send all when it runs, or write a file: --otlp FILE.jsonl"
_INTERNAL: Final = 1  # SpanKind of trace.proto
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200  # SpanFlags of trace.proto


def write(spans: Spans, sink: BinaryIO) -> None:
    """Write spans to `sink` as JSON lines, each a request as a collector takes it over HTTP.

    Raises:
        ForktraceError: the sink takes no more.
    """
    exporter = JsonLines(sink)
    try:
        for batch in _batches(spans):
            exporter.export(batch)
    except OSError as error:
        raise ForktraceError(f"cannot write the spans: {error.strerror or error}") from error


def send(spans: Spans, url: str) -> list[str]:
    """Send spans to the collector at `url`, and return warnings about its answers.

    A request takes 10 s at the most, with what is tried again, or what OTEL_EXPORTER_OTLP_TIMEOUT says.

    Raises:
        UsageError: the URL is none.
        ForktraceError: the collector does not answer, or does not take them.
    """
    place = _place(url)
    name = f"the collector at {_without_password(place.netloc)}"
    taken = 0
    with _Answers() as answers:
        exporter = OTLPSpanExporter(endpoint=place.geturl(), session=answers, compression=Compression.Gzip)
        for batch in _batches(spans):
            if fault := _fault(exporter, answers, batch):
                raise ForktraceError(f"{name} {fault}{_so_far(taken, spans)}", answers.hint)
            taken += len(batch)
    if answers.rejected:
        what = f"{name} rejected {answers.rejected:,} of {count(spans.count, 'span')}"
        raise ForktraceError(f"{what}: {answers.said or 'it does not say why'}")
    return [f"the collector says: {answers.said}"] * bool(answers.said) + list(answers.clock)


class JsonLines(SpanExporter):
    """Writes what it is given as a line of OTLP's JSON (opentelemetry.io/docs/specs/otlp, JSON Protobuf encoding)."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write spans of one resource and scope."""
        self._sink.write(json.dumps(_request(spans), ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        return SpanExportResult.SUCCESS


def _batches(spans: Iterable[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    """Yield spans in their order, as many as a request or a line may have."""
    batch: list[ReadableSpan] = []
    characters = 0
    for span in spans:
        batch.append(span)
        characters += sum(len(str(value)) for value in (span.attributes or {}).values())
        if len(batch) == _MOST_SPANS or characters > _MOST_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _request(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    scope = spans[0].instrumentation_scope
    named = {"name": scope.name, "version": scope.version} if scope else {}
    scoped = {"scope": named, "spans": [_span(span) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": _pairs(spans[0].resource.attributes)}, "scopeSpans": [scoped]}]}


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None  # as forktrace makes them
    told: dict[str, Any] = _ids(context) | {"flags": _flags(span.parent), "name": span.name, "kind": _INTERNAL}
    if span.parent:
        told["parentSpanId"] = format_span_id(span.parent.span_id)
    told |= {"startTimeUnixNano": str(span.start_time), "endTimeUnixNano": str(span.end_time)}
    told["attributes"] = _pairs(span.attributes or {})
    if span.links:
        told["links"] = [
            _ids(one.context) | {"attributes": _pairs(one.attributes or {}), "flags": _flags(one.context)} for one in span.links
        ]
    return told | {"status": {"code": span.status.status_code.value}}


def _ids(context: SpanContext) -> dict[str, Any]:
    return {"traceId": format_trace_id(context.trace_id), "spanId": format_span_id(context.span_id)}


def _flags(parent: SpanContext | None) -> int:
    return _HAS_IS_REMOTE | (_IS_REMOTE if parent and parent.is_remote else 0)


def _pairs(attributes: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    """A value of an attribute; integers of 64 bits are texts in JSON."""
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"arrayValue": {"values": [_value(one) for one in value]}}


def _place(url: str) -> SplitResult:
    """Where a collector takes spans: `http://HOST:PORT` stands for the path that all have."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        known = False
    if not known:
        raise UsageError(f"{_without_password(url)} is no address of a collector", "as in --otlp http://localhost:4318")
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(_PATH) else path + _PATH)


def _without_password(address: str) -> str:
    return visible(address.rpartition("@")[2])


def _so_far(taken: int, spans: Spans) -> str:
    return f", after it took {taken:,} of {count(spans.count, 'span')}; they keep their ids" if taken else ""


class _Answers(requests.Session):
    """Remembers what a collector answers.

    Attributes:
        fault, hint: what was wrong with the last answer, and what to do; nothing when it took the spans
        rejected, said: how many spans it did not take, and what it said about it
        clock: that its clock and this machine's differ
    """

    def __init__(self) -> None:
        super().__init__()
        self.fault, self.hint = "", ""
        self.rejected, self.said = 0, ""
        self.clock: list[str] = []
        self._answered = False

    def request(self, *args: Any, **more: Any) -> requests.Response:
        """Send a request to nobody else, within `timeout` altogether: requests looks at each read alone."""
        more["allow_redirects"] = False
        try:
            response = _within(more["timeout"], lambda: super(_Answers, self).request(*args, **more))
        except (requests.Timeout, TimeoutError):
            self.fault, self.hint = "does not answer in time", _SEND_LATER
            raise TimeoutError from None
        except requests.RequestException as error:
            self.fault, self.hint = f"cannot be reached: {_reason(error)}", _SEND_LATER
            if self._answered:
                raise  # it may come back: the exporter tries again
            raise ConnectionError from None
        self._answered = True
        self._look_at(response)
        return response

    def _look_at(self, response: requests.Response) -> None:
        self.fault, self.hint = _refusal(response), "is it the right address? its own log may say more"
        self.clock = self.clock or list(clocks.apart(time.time_ns(), _date_ns(response)))
        if self.fault:
            return
        try:
            partial = ExportTraceServiceResponse.FromString(response.content).partial_success
        except DecodeError:
            return
        self.rejected += max(partial.rejected_spans, 0)
        self.said = self.said or visible(partial.error_message)


def _within(seconds: float, call: Callable[[], requests.Response]) -> requests.Response:
    """Return what a call returns; TimeoutError after so many `seconds`: the call then goes on in its thread."""
    answer: Future[requests.Response] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(seconds)


def _fault(exporter: OTLPSpanExporter, answers: _Answers, batch: list[ReadableSpan]) -> str:
    """Send some spans; what went wrong, nothing if they were taken."""
    try:
        result = exporter.export(batch)
    except OSError:  # of an older exporter
        return answers.fault
    return answers.fault or ("" if result is SpanExportResult.SUCCESS else "does not take them")


def _refusal(response: requests.Response) -> str:
    """What is wrong with an answer; the exporter would take a redirection, or a page, for a yes."""
    if not 200 <= response.status_code < 300:
        return f"refuses: {response.status_code} {visible(response.reason or '')}".rstrip()
    is_page = response.headers.get("Content-Type", "").startswith("text/html")
    return "is none: it answers with a page" if is_page else ""


def _reason(error: BaseException) -> str:
    """The kernel's word for why a connection failed, which requests wraps several times."""
    inner: BaseException | None = error
    while inner:
        if isinstance(inner, OSError) and inner.strerror:
            return visible(inner.strerror.lower())
        inner = inner.__cause__ or inner.__context__
    return "the connection broke off"


def _date_ns(response: requests.Response) -> int:
    """The collector's clock; ours where it does not say."""
    try:
        return int(parsedate_to_datetime(response.headers["Date"]).timestamp() * 1e9)
    except (KeyError, ValueError, TypeError, OverflowError):
        return time.time_ns()
