"""`export --otlp`: spans into a file, or to a collector."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from forktrace.cli.options import opened, say
from forktrace.errors import UsageError, package_missing

if TYPE_CHECKING:
    from forktrace.analysis.recording import Recording

_SUFFIX = ".jsonl"


def export_spans(read: Callable[[], Recording], place: str, *, argv: bool, force: bool) -> None:
    """Write the recording that `read` returns as spans to `place`, a file or an address; with `argv` the command lines too.

    Raises:
        MachineLacks: OpenTelemetry's packages are not installed.
        UsageError: the place is neither, or the file exists.
        ForktraceError: the collector does not answer, or does not take them.
    """
    is_address = "://" in place
    if not is_address and place != "-" and not place.endswith(_SUFFIX):
        raise UsageError(
            f"{place} is no {_SUFFIX} file and no address", "as in --otlp run.jsonl or --otlp http://localhost:4318"
        )
    try:
        from forktrace.views.formats import otlp
    except ImportError:
        raise package_missing("opentelemetry-sdk", "otel") from None
    from forktrace.trace.words import count
    from forktrace.views import clocks
    from forktrace.views.formats.otel_spans import Spans

    recording = read()
    spans = Spans(recording, argv=argv)
    what = f"{count(spans.count, 'span')} of {count(spans.processes, 'process')}, trace {spans.trace_id:032x}"
    remarks = [*clocks.set_while_recording(recording), *clocks.ahead(recording, time.time_ns())]
    if is_address:
        remarks += otlp.send(spans, place)
        say(f"sent {what}")
    else:
        with opened(place, force) as sink:
            otlp.write(spans, sink)
        say(f"wrote {place}: {what}")
    for remark in remarks:
        say(f"forktrace: {remark}")
