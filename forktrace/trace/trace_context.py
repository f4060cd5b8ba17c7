"""The span in which a program was started, as the environment variable TRACEPARENT names it (W3C Trace Context)."""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")


class SpanName(NamedTuple):
    """A span, by the numbers that name it everywhere; neither is 0."""

    trace_id: int
    span_id: int


def parse_traceparent(text: str) -> SpanName | None:
    """Return the span that `00-TRACE-SPAN-FLAGS` names; None: it names none."""
    found = _FORM.fullmatch(text)
    named = SpanName(int(found["trace"], 16), int(found["span"], 16)) if found else SpanName(0, 0)
    return named if all(named) else None
