"""What must hold of every trace, whoever wrote it: each command and each table gives a result or a TraceError.

No other exception, and nothing comes out that steers a terminal, a spreadsheet or the reader of a picture.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import io
import json
import os
import random
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock
from xml.etree import ElementTree

import pyarrow.parquet as pq
from pyarrow import BufferReader

Dice = random.Random

csv.field_size_limit(1 << 30)


class Finding(Exception):
    """Something that a trace made forktrace do and that it must not do."""


def check_screen(text: str, what: str) -> None:
    """Nothing but what can be seen, spaces and line ends may come out."""
    for line in text.split("\n"):
        if not line.isprintable():
            bad = next(one for one in line if not one.isprintable())
            raise Finding(f"{what}: prints {bad!r} in {line[:200]!r}")


class Peak:
    """The most memory that this process has had, but for what it takes to look at what forktrace wrote."""

    def __init__(self) -> None:
        self._most_bytes = 0

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Do not count what is done here."""
        self._most_bytes = self.bytes()
        try:
            yield
        finally:
            self._forget()

    def bytes(self) -> int:
        """Return it in bytes."""
        since = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return max(self._most_bytes, int(since[1]) * 1024)

    def begin(self) -> None:
        """Begin to count anew."""
        self._most_bytes = 0
        self._forget()

    def _forget(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")


PEAK: Final = Peak()


def run(*arguments: str) -> tuple[str, bytes]:
    """Run a command of forktrace in this process; return what it wrote on stderr and stdout.

    Raises:
        Finding: it prints what is not to be printed.
    """
    from forktrace import cli
    from forktrace.cli.process import complain_of
    from forktrace.errors import TraceError, UsageError

    err = io.BytesIO()
    with (
        tempfile.TemporaryFile() as out,
        contextlib.redirect_stdout(io.TextIOWrapper(out, "utf-8", errors="backslashreplace")) as stdout,
        contextlib.redirect_stderr(io.TextIOWrapper(err, "utf-8", errors="backslashreplace")) as stderr,
    ):
        try:
            cli.cli.main([*arguments], prog_name="forktrace", standalone_mode=False)
        except (TraceError, UsageError) as error:
            complain_of(error)
        stdout.flush()
        stderr.flush()
        out.seek(0)
        said, data = err.getvalue().decode(), out.read()
    check_screen(said, f"{' '.join(arguments[:1])} on stderr")
    return said, data


TABLES: Final = "lifecycles events starts waits zombie_count branches signals failed_forks late_waits open_waits stolen".split()


def examine(path: str, dice: Dice, thorough: bool) -> str:
    """Send the trace `path` through the commands and the tables; return `refused` or `read`.

    Raises:
        Finding: what must not be.
        Exception: whatever forktrace raised and should not have.
    """
    import forktrace
    from forktrace.errors import TraceError

    try:
        recording = forktrace.read(path)
    except TraceError as error:
        if not str(error).isprintable():
            raise Finding(f"the message of the TraceError: {str(error)[:200]!r}") from error
        run("report", path)
        return "refused"
    with mock.patch("forktrace.analysis.recording.read", return_value=recording):  # the commands: read it once
        check(recording, path, dice, thorough)
    return "read"


def check(recording: Any, path: str, dice: Dice, thorough: bool) -> None:
    """Send `recording`, which is that of `path`, through the commands and the tables."""
    from forktrace.errors import TraceError, UsageError

    try:
        table = recording.lifecycles()
    except TraceError:
        table = None
    for name in TABLES:
        with contextlib.suppress(TraceError):
            getattr(recording, name)()
    for command in (["report"], ["why"], ["events"]):
        check_screen(run(*command, path)[1].decode(), command[0])
        if command[0] != "events" and (data := run(*command, path, "--json")[1]):
            check_screen(data.decode(), f"{command[0]} --json")
            json.loads(data)
    check_gate(path, dice, thorough)
    if table is not None and len(table):
        check_part(recording, table, path, dice)
        balance = recording.balance()
        if not isinstance(balance.holds, bool):
            raise Finding(f"a balance that is none: {balance}")
    for name in TABLES if thorough else dice.sample(TABLES, 2):
        check_export(path, name)
    if thorough or dice.random() < 0.25:
        check_pictures(recording, path)
    with contextlib.suppress(TraceError, UsageError):
        recording.processes_at(recording.start_ns)


def check_gate(path: str, dice: Dice, thorough: bool) -> None:
    """Limits of 0 in each format, and a comparison with itself: what comes out can be read, and steers nothing."""
    from forktrace.analysis.gate.limits import BY_NAME

    limits = [word for name in BY_NAME for word in (f"--{name}", "0")]
    forms = ("text", "json", "junit", "github", "sarif")
    for form in forms if thorough else [dice.choice(forms)]:
        said, data = run("check", path, *limits, "--format", form, "--baseline", path, "--allow", "f")
        check_screen(data.decode(), f"check as {form}")
        if form in ("json", "sarif") and data:
            json.loads(data)
        if form == "junit" and data:
            ElementTree.fromstring(data)
        if "failed" in said:
            raise Finding(f"check: {said}")
    for form in ("text", "json", "markdown") if thorough else [dice.choice(("text", "json", "markdown"))]:
        said, data = run("diff", path, path, "--format", form)
        check_screen(data.decode(), f"diff as {form}")
        if "failed" in said:
            raise Finding(f"diff: {said}")


def check_part(recording: Any, table: Any, path: str, dice: Dice) -> None:
    """Ask for one process, one moment and one stretch of time."""
    one = f"#{dice.randrange(len(table))}"
    at = f"{max((recording.end_ns - recording.start_ns) // 2, 0) / 1e9:.3f}s"[-20:]
    for command in (
        ["why", path, one],
        ["report", path, "--pid", one],
        ["ps", path, "--at", at],
        ["events", path, "--until", at],
    ):
        check_screen(run(*command)[1].decode(), command[0])


def check_export(path: str, name: str) -> None:
    """Each format can be read back, and runs nothing."""
    for form, check_table in (("csv", check_csv), ("json", check_json), ("parquet", check_parquet)):
        data = run("export", path, "--table", name, "--to", form)[1]
        with PEAK.looking():
            check_table(data, f"export {name} to {form}")


def check_csv(data: bytes, what: str) -> None:
    """No cell is what a spreadsheet would run."""
    text = data.decode()
    check_screen(text, what)
    for line in csv.reader(io.StringIO(text, newline="")):
        for cell in line:
            if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")) and not number(
                cell
            ):
                raise Finding(f"{what}: the formula {cell[:80]!r}")


def check_json(data: bytes, what: str) -> None:
    """It is JSON, and can be printed."""
    check_screen(data.decode(), what)
    if data:
        json.loads(data)


def check_parquet(data: bytes, what: str) -> None:
    """It can be read."""
    if data and pq.read_table(BufferReader(data)).num_columns == 0:
        raise Finding(f"{what}: a table without columns")


def number(cell: str) -> bool:
    """Whether a cell is a number below zero."""
    return bool(re.fullmatch(r"-?\d+(\.\d+)?(e[+-]?\d+)?", cell))


def check_pictures(recording: Any, path: str) -> None:
    """The SVG is XML without anything but shapes and comments; the axes that a notebook gets can be drawn outside."""
    from matplotlib import pyplot

    import forktrace
    from forktrace.errors import TraceError

    svg = run("timeline", path, "-o", f"{path}.svg", "--force")
    if Path(f"{path}.svg").exists():
        data = Path(f"{path}.svg").read_text()
        os.unlink(f"{path}.svg")
        check_screen(data, "timeline as SVG")
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(data).iter()}
        if strange := tags - {
            "svg",
            "g",
            "path",
            "use",
            "defs",
            "clipPath",
            "rect",
            "metadata",
            "RDF",
            "Work",
            "type",
            "format",
            "creator",
            "Agent",
            "title",
            "style",
            "pattern",
            "date",
        }:
            raise Finding(f"timeline as SVG: {strange}")
    elif "wrote" in svg[0]:
        raise Finding("timeline wrote nothing")
    check_page(path)
    check_perfetto(path)
    try:
        figure = forktrace.timeline(recording).figure
    except TraceError:
        return
    if len(recording.lifecycles()) <= MOST_IN_SPANS:
        check_spans(path)
    try:
        figure.canvas.draw()
    finally:
        pyplot.close("all")


def check_perfetto(path: str) -> None:
    """Each packet can be read, and nothing in it steers who prints it."""
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

    run("export", path, "-o", f"{path}.pftrace", "--force")
    if not Path(f"{path}.pftrace").exists():
        return
    with PEAK.looking():
        trace = Trace.FromString(Path(f"{path}.pftrace").read_bytes())
        os.unlink(f"{path}.pftrace")
        for packet in trace.packet:
            interned = packet.interned_data
            texts = [one.name for one in (*interned.event_names, *interned.debug_annotation_names)]
            texts += [one.str.decode() for one in interned.debug_annotation_string_values]
            check_screen(" ".join([packet.track_descriptor.name, *texts]), "export to Perfetto")


MOST_IN_SPANS: Final = 20_000  # processes: 2 s, and a million 200 s
LINES_READ: Final = 5  # of 200 spans: the protocol's own class takes a second for them


def check_spans(path: str) -> None:
    """Each line is short enough for a collector, the protocol's own class reads it, and nothing in it steers who prints it."""
    from spans import merged, read_line

    run("export", path, "--otlp", f"{path}.jsonl", "--drop", "none", "--force")
    if not Path(f"{path}.jsonl").exists():
        return
    with PEAK.looking():
        lines = Path(f"{path}.jsonl").read_bytes().splitlines()
        os.unlink(f"{path}.jsonl")
        if max(map(len, lines), default=0) >= 1 << 20:
            raise Finding("spans: a line of 1 MiB and more")
        for span in merged(map(read_line, lines[:LINES_READ])):
            if len(span.span_id) != 8 or not any(span.span_id) or span.end_time_unix_nano < span.start_time_unix_nano:
                raise Finding(f"spans: {span}")
            texts = [one.value.string_value for one in span.attributes]
            texts += [word.string_value for one in span.attributes for word in one.value.array_value.values]
            check_screen(" ".join([span.name, *texts]), "spans")


def check_page(path: str) -> None:
    """Nothing of the trace is in the page but an escaped title and base64; what is in that can be read, and seen."""
    said, data = run("page", path, "-o", "-")
    if not data:
        return
    check_screen(data.decode(), "page")
    with PEAK.looking():
        packed = re.fullmatch(rb'(.*)id="data">([A-Za-z0-9+/=]*)</script>.*', data, re.DOTALL)
        if not packed:
            raise Finding(f"page: its data are not base64; {said}")
        if len(re.findall(rb"<script", packed[1])) != 1:
            raise Finding("page: an element that is not its own")
        plain = gzip.decompress(base64.b64decode(packed[2]))
        facts = json.loads(plain[8 : 8 + int.from_bytes(plain[:8], "little")])
        for text in facts["strings"]:
            check_screen(re.sub("[\x01\x02]", "", text), "page, a text")
