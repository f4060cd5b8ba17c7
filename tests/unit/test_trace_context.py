"""The environment variable by which a program is told the span that started it."""

from __future__ import annotations

import pytest

from forktrace.launcher.header import header
from forktrace.trace.trace_context import SpanName, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("version", ["00", "01", "cc"])
@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_span_is_named(version: str, flags: str) -> None:
    """Any version but ff; whether the span was sampled makes no difference."""
    assert parse_traceparent(f"{version}-{TRACE}-{SPAN}-{flags}") == SpanName(int(TRACE, 16), int(SPAN, 16))


@pytest.mark.parametrize(
    "text",
    [
        *("", "00", f"{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-01-more"),
        *(f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01"),
        *(f"00-{TRACE}-{SPAN}-01\n", f" 00-{TRACE}-{SPAN}-01", f"00-{TRACE[:-1]}g-{SPAN}-01"),
    ],
)
def test_no_span_is_named(text: str) -> None:
    """What has another form, or names 0, is none."""
    assert parse_traceparent(text) is None


def test_the_header_keeps_that_variable_alone() -> None:
    """Of the target's environment, and only where it is a span's name."""
    named = {"TRACEPARENT": f"00-{TRACE}-{SPAN}-01", "TRACESTATE": "a=b", "SECRET": "hush"}
    told, untold = (header(["x"], 1, "alice", environment) for environment in (named, named | {"TRACEPARENT": "hush"}))
    assert told["traceparent"] == named["TRACEPARENT"]
    assert set(told) - set(untold) == {"traceparent"}
    assert "hush" not in f"{told}{untold}"
