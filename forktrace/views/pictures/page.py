"""The page: a recording as one HTML file that needs nothing else, with a timeline to zoom into and each process explained."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any, BinaryIO, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich.text import Text

from forktrace.analysis.causes.names import Names, name, printable
from forktrace.analysis.recording import Recording
from forktrace.analysis.requests import start_sites
from forktrace.analysis.tables.lifecycles import LIVING
from forktrace.errors import ForktraceError
from forktrace.trace.words import NOTICEABLE_MS, duration
from forktrace.views import explanations, failed
from forktrace.views.bounds import zombie_time
from forktrace.views.pictures import key
from forktrace.views.pictures.packing import Numbers, Packing
from forktrace.views.pictures.spans import spans_of
from forktrace.views.text import report, report_tables
from forktrace.views.text.screen import Grid
from forktrace.views.why.chain import Chains
from forktrace.views.why.happened import EVENTS
from forktrace.views.why.sentences import Event, PerRow, RowGroups
from forktrace.views.words import shorten, title_of
from forktrace.views.zombies import without_recorder

MOST_EXPLAINED: Final = 100_000  # processes; of more, only the noticeable zombies are, the longest of these
MOST_STACK: Final = 20_000  # characters
MOST_COMMAND: Final = 300
_HERE: Final = Path(__file__).parent
_SCRIPTS: Final = "unpack rows shown lanes drawing strip moving chain table print search link report begin".split()


def _script() -> str:
    """The script of the page, which is one function: it only chooses, fills in and places what is packed."""
    parts = [(_HERE / "script" / f"{name}.js").read_text() for name in _SCRIPTS]
    return '"use strict";\n(() => {\n' + "\n".join(parts) + "})();\n"


class Page:
    """A page, as text and as bytes; a notebook shows it in a frame of its own."""

    def __init__(self, recording: Recording, name: str = "TRACE") -> None:
        self.text = _html(recording, name)

    def _repr_html_(self) -> str:
        frame = 'sandbox="allow-scripts" width="100%" height="720" style="border:0"'
        return f'<iframe {frame} srcdoc="{html.escape(self.text)}"></iframe>'


def page(recording: Recording) -> Page:
    """Return the page of `recording`, which a notebook shows."""
    return Page(recording, Path(recording.trace.path).name)


def write_page(recording: Recording, sink: str | os.PathLike[str] | BinaryIO) -> None:
    """Write the page of `recording` into a file, given by its path or open.

    Raises:
        ForktraceError: the file cannot be written.
    """
    data = page(recording).text.encode()
    try:
        if isinstance(sink, (str, os.PathLike)):
            Path(sink).write_bytes(data)
        else:
            sink.write(data)
    except OSError as error:
        raise ForktraceError(f"cannot write the page: {error.strerror or error}") from error


def _html(recording: Recording, trace: str) -> str:
    """The template, filled in. Nothing of the trace is in it but its title, escaped, and base64."""
    script, style = _script(), (_HERE / "page.css").read_text()
    rules = ["default-src 'none'", f"script-src '{_hash(script)}'", f"style-src '{_hash(style)}'"]
    policy = "; ".join([*rules, "base-uri 'none'", "form-action 'none'"])
    title = html.escape(title_of(recording.header["command"]) or "a recording")
    parts = {"script": script, "style": style, "policy": policy, "title": title}
    return Template((_HERE / "page.html").read_text()).substitute(parts, data=_data(recording, trace))


def _hash(text: str) -> str:
    """What a policy calls an element with this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(recording: Recording, trace: str) -> str:
    packing, table = Packing(), recording.lifecycles().reset_index(drop=True)
    drawn = without_recorder(table)
    _add_bars(packing, recording, drawn)
    _add_cells(packing, recording, drawn)
    said = _add_chains(packing, recording, table)
    return packing.base64(
        rows=len(table),
        since=recording.selected.since_ns and recording.selected.since_ns - recording.start_ns,
        until=recording.selected.until_ns and recording.selected.until_ns - recording.start_ns,
        end=recording.end_ns - recording.start_ns,
        clock=(recording.start_ns + recording.header["clock_offset_ns"]) / 1e6,
        title=title_of(recording.header["command"], 200) or "a recording",
        why=f"forktrace why {printable(trace)}",
        summary=[_text(line) for line in report.summary(recording)],
        sections=[_section(title, content) for _, title, content in report.sections(recording)],
        running=key.RUNNING,
        zombies=[{"label": kind.label, **kind.style} for kind in key.zombies(drawn)],
        starts=[{"label": kind.label, **kind.style} for kind in key.starts(table)],
        failed={"labels": failed.labels(recording), **key.FAILED},
        losses=_losses(recording),
        others=_others(recording, table),
        events=list(EVENTS),
        said=said,
    )


def _text(text: Text) -> list[str]:
    return [text.plain, str(text.style)]


def _section(title: str, content: Any) -> dict[str, Any]:
    """A section of the report: its lines, or its table."""
    if isinstance(content, Grid):
        rows = [[cell.strip() for cell in row] for row in content.rows]
        return {"title": title, "columns": content.columns, "rows": rows, "styles": content.styles}
    return {"title": title, "lines": [_text(line.text) for line in content]}


def _losses(recording: Recording) -> list[list[Any]]:
    """Which events were lost when: ns since the start, and what."""
    table = recording.trace.table
    rows = table.filter(pc.equal(table["kind"].cast(pa.string()), "lost")).select(["time_ns", "detail", "count"])
    return [
        [one["time_ns"] - recording.start_ns, f"{one['count']:,} {printable(one['detail'] or 'events')} lost"]
        for one in rows.to_pylist()
        if (one["count"] or 0) > 0
    ]


def _others(recording: Recording, table: pd.DataFrame) -> dict[int, str]:
    """The names of processes that are not shown and that cleared one that is, or were cleared by one."""
    if recording.whole is recording:
        return {}
    whole = recording.whole.lifecycles()
    names, shown = Names(whole, recording.header["recorder_pid"]), set(table["id"].tolist())
    cleared = whole.loc[whole["cleared_by_id"].isin(shown), "id"].tolist()
    return {one: names.pid(one) for one in (*cleared, *table["cleared_by_id"].dropna().tolist()) if one not in shown}


def _add_bars(packing: Packing, recording: Recording, table: pd.DataFrame) -> None:
    """What the timeline draws: spans, kinds by the key, who started and cleared whom, signals and failed forks."""
    spans = spans_of(recording, table)
    fork, exit_, zombie, gone = (np.rint(column * 1e9) for column in spans)
    packing.add("fork", fork, delta=True)
    packing.add("exit", exit_ - fork, base="fork")
    packing.add("zombie", zombie - exit_, base="exit")
    packing.add("gone", gone - exit_, base="exit")
    packing.add("id", table["id"].to_numpy(), delta=True)
    for column in ("parent_id", "cleared_by_id"):
        packing.add(column, _from(column, table))
    for column, kinds in (("kind", key.zombies(table)), ("start", key.starts(table))):
        codes = np.full(len(table), np.nan)
        for number, kind in enumerate(kinds):
            codes[kind.rows] = number
        packing.add(column, codes)
    packing.add("open", table["zombie_open"].to_numpy(np.int64))
    _add_marks(packing, "signal", recording, recording.signals(), lambda row: f"got {row.signal}{_by(row.sender_site)}")
    failures = recording.failed_forks()
    _add_marks(packing, "failure", recording, failures, lambda row: f"could not fork: {_reason(row)}{_by(row.site)}")


def _from(column: str, table: pd.DataFrame) -> Numbers:
    """A column of ids as how far below the id of the row: mostly small numbers."""
    below: Numbers = table["id"].to_numpy(float) - table[column].to_numpy(float, na_value=np.nan)
    return below


def _by(site: Any) -> str:
    return "" if pd.isna(site) else f" at {printable(site)}"


def _reason(row: Any) -> str:
    return failed.reason(row.errno, row.limit, row.allowed)


def _add_marks(packing: Packing, name: str, recording: Recording, table: pd.DataFrame, said: Any) -> None:
    packing.add(f"{name}_ns", (table["time_ns"] - recording.start_ns).to_numpy(np.int64), delta=True)
    packing.add(f"{name}_id", table["id"].to_numpy(float, na_value=np.nan))
    packing.add(f"{name}_text", packing.texts(said(row) for row in table.itertuples()))


def _add_cells(packing: Packing, recording: Recording, table: pd.DataFrame) -> None:
    """What the table and the search know of each process."""
    names, groups = (
        Names(recording.whole.lifecycles(), recording.header["recorder_pid"]),
        RowGroups(table.assign(exited=table["exit_ns"].notna(), started=start_sites(table))),
    )
    release = ("state", "reap_call", "reaper_id", "reaper_pid", "reap_site", "reap_target", "reap_options")
    bounds = ("zombie_ms", "own_zombie_ms", "reap_call", "notes")
    cells: Mapping[str, PerRow[str]] = {
        "comm": groups.each(("comm",), lambda row: name(row.comm)),
        "argv": groups.each(("argv",), lambda row: "" if pd.isna(row.argv) else shorten(printable(row.argv), MOST_COMMAND)),
        "started": groups.each(("started",), lambda row: _or_none(row.started)),
        "made": groups.each(("created_by",), lambda row: _or_none(row.created_by)),
        "ended": groups.each(("exited", "term_signal", "core_dumped", "exit_code", "state"), _ended),
        "ran": groups.each(("run_ms",), lambda row: "" if pd.isna(row.run_ms) else duration(row.run_ms)),
        "lasted": groups.each(bounds, lambda row: "" if pd.isna(row.zombie_ms) else zombie_time(row)),
        "reaped": groups.each(
            release, lambda row: report_tables.reaped_by(row, names, full=True) if row.state not in LIVING else ""
        ),
        "fork_stack": groups.each(("fork_stack",), _stack),
        "reap_stack": groups.each(("reap_stack",), _stack),
        "cause": groups.each(("reap_cause",), lambda row: _or_none(row.reap_cause)),
        "short": groups.each(("reap_cause",), _in_words),
        "reap_line": groups.each(("reap_site",), lambda row: _or_none(row.reap_site)),
    }
    for column, each in cells.items():
        packing.add(f"cell_{column}", packing.texts(each.distinct)[each.codes])
    packing.add("cell_form", packing.texts(map(names.form, table["id"].tolist())))
    packing.add("pid", table["pid"].to_numpy(), delta=True)


def _or_none(text: Any) -> str:
    return "" if pd.isna(text) else printable(str(text))


def _in_words(row: Any) -> str:
    return "" if pd.isna(row.reap_cause) else explanations.cause(row.reap_cause).short


def _ended(row: Any) -> str:
    return report_tables.ended(row) if row.exited else "running" if row.state in LIVING else "not seen"


def _stack(row: Any) -> str:
    """The frames of a stack, one a line."""
    return "" if pd.isna(row[0]) else "\n".join(map(printable, shorten(row[0], MOST_STACK).split(";")))


def _add_chains(packing: Packing, recording: Recording, table: pd.DataFrame) -> dict[str, list[list[Any]]]:
    """What `why` says: the sentences by section, which are returned, and the columns that choose and fill them."""
    rows = _explained(table)
    chains = Chains(recording, table.iloc[rows])
    for section, lines in chains.said.items():
        packing.add(f"said_{section}", _at(rows, lines.codes, len(table)))
    for value, texts in chains.values.items():
        packing.add(f"value_{value}", _at(rows, packing.texts(texts.distinct)[texts.codes], len(table)))
    spans = spans_of(recording, table.iloc[rows])
    for moment, base in (("exec", "fork"), ("lost", "fork"), ("exit", "exit"), ("gone", "gone")):
        known = chains.moments_ns[moment] - np.rint(getattr(spans, base) * 1e9)
        packing.add(f"moment_{moment}", _at(rows, known, len(table)), base=base)
    return {section: [list(map(_event, events)) for events in lines.distinct] for section, lines in chains.said.items()}


def _event(event: Event) -> list[Any]:
    when, line = event
    return [when, *line]


def _explained(table: pd.DataFrame) -> Numbers:
    """The rows whose chains are in the page."""
    if len(table) <= MOST_EXPLAINED:
        return np.arange(len(table))
    noticeable = table[table["zombie_open"] | (table["zombie_ms"] >= NOTICEABLE_MS)]
    return np.sort(noticeable["zombie_ms"].nlargest(MOST_EXPLAINED).index.to_numpy())


def _at(rows: Numbers, values: Numbers, size: int) -> Numbers:
    """A column of `size` rows that has these values in some of them."""
    column = np.full(size, np.nan)
    column[rows] = values
    return column
