"""Spans as OTLP's JSON has them, read by the protocol's own classes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def read_line(line: bytes) -> ExportTraceServiceRequest:
    """What the protocol's own class takes from a line; in JSON numbers of spans are hexadecimal, unlike other bytes."""
    whole = json.loads(line)
    for scoped in whole["resourceSpans"][0]["scopeSpans"]:
        for named in scoped["spans"] + [link for span in scoped["spans"] for link in span.get("links", ())]:
            for key in named.keys() & {"traceId", "spanId", "parentSpanId"}:
                named[key] = base64.b64encode(bytes.fromhex(named[key])).decode()
    return ParseDict(whole, ExportTraceServiceRequest())


def merged(requests: Iterable[ExportTraceServiceRequest]) -> list[Any]:
    """All spans of several requests."""
    return [span for request in requests for scoped in request.resource_spans for span in scoped.scope_spans[0].spans]
