"""The JSON of report, why, check and diff: one schema, which docs/json.md describes; and the same facts as the text."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from rich.console import Console
from traces import MS, recording, target, work

from forktrace.analysis.comparison.changes import compare
from forktrace.analysis.gate.limits import BY_NAME, parse
from forktrace.analysis.gate.verdict import judge
from forktrace.analysis.recording import Recording, read
from forktrace.cli import cli
from forktrace.errors import UsageError
from forktrace.trace import events as ev
from forktrace.trace.words import duration, printable
from forktrace.views.formats import diff, places, report_json, verdict_json
from forktrace.views.formats.documents import plain
from forktrace.views.formats.export import TABLES, records
from forktrace.views.text.report import report
from forktrace.views.text.why import why

ROOT = Path(__file__).parents[2]
TRACES = sorted((ROOT / "tests/data").glob("*.arrows"))
SCHEMA = json.loads((ROOT / "forktrace/views/formats/documents.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
TITLES = {
    "stolen": "Stolen exit statuses",
    "lost_statuses": "Exit statuses that nobody got",
    "late_waits": "Waits that came too late",
    "open_waits": "Waits that brought nothing",
    "unreaped": "Never reaped",
    "orphans": "Orphans that nobody reaps",
    "failed_forks": "Failed forks",
    "reaped": "What happened",
    "zombies": "Longest zombies",
    "causes": "Why they were reaped",
    "reapers": "Who reaped them",
    "starts": "Where they were started",
    "killed": "Killed by a signal",
    "doubts": "Not known for sure",
}
EVIL = {"stack": "/srv/a\x1b[31m\x7f\u202e.py:7 f\r\n", "stack_status": "ok"}


def evil() -> Recording:
    """Return a recording of names that would steer a terminal, a signal, failed forks, losses, and zombies of two parents."""
    rows = [ev.fork(MS, 7, by=100, **EVIL), ev.exit_(2 * MS, 7, parent=100, status=9), ev.zombie(2 * MS, 7, parent=100)]
    rows += [ev.fork(MS, 8, by=100), ev.fork(2 * MS, 9, by=8), ev.exit_(3 * MS, 9, parent=8), ev.zombie(3 * MS, 9, parent=8)]
    failures = [ev.fork_failed(time * MS, 100, 11, **EVIL) for time in (300, 400)]
    return recording(target(), *rows, *failures, ev.lost(500 * MS, 1, "evil\x1b[31m"), ev.end(900 * MS))


def crowd() -> Recording:
    """Return a recording of more lines, causes and groups than the text names."""
    rows = [row for pid in range(1, 41) for row in work(pid, pid * 40, pid * 40 + 5, pid * 40 + 30, line=pid)]
    return recording(target(), *rows, ev.end(4000 * MS))


CASES = {
    **{path.stem: read(path) for path in TRACES},
    "evil": evil(),
    "crowd": crowd(),
    "lossy": recording(target(), *work(1, 1, 5, 500), ev.lost(600 * MS, 3, "reap")),
    "idle": recording(target(), ev.end(9 * MS)),
    "empty": recording(closed=False),
    "part": read(ROOT / "tests/data/kafka.arrows").between(2_000_000_000, None),
}


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest) -> Recording:
    """Each committed trace, and some that are odd."""
    return CASES[request.param]


def printed(show: Any, *told: Any) -> list[str]:
    """Return what a view prints, in a window in which nothing is cut or wrapped."""
    page = io.StringIO()
    show(*told, Console(file=page, width=4000))
    return page.getvalue().splitlines()


def parts(lines: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the first lines of a printed report, and those of each section, without the titles of its table."""
    first, *rest = "\n".join(lines).split("\n\n")
    found = {}
    for title, *below in (one.splitlines() for one in rest):
        ruled = next((number for number, line in enumerate(below) if line.startswith("───")), -1)
        found[title] = below[ruled + 1 :]
    return first.splitlines(), found


def cells(section: str, one: dict[str, Any]) -> list[str]:
    """Return what of the facts of an entry the row of the text has to show, in the words of the text."""
    ms = {name: duration(one[name]) for name in ("zombie_ms", "max_ms", "total_ms") if one.get(name)}
    number = one.get("forks", one.get("processes"))
    shown = [*ms.values(), *([] if number is None else [f"{number:,}"])]
    if section == "zombies":
        shown += [str(one["pid"]), one["cause"] or "?", one["term_signal"] or f"exited {one['exit_code']}"]
        shown += [printable(one["site"] or "? ").rpartition(" ")[0][-17:]]
    if section == "starts" and "site" in one:
        return [*shown, printable(one["site"]).rpartition(" ")[0][-37:], one["created_by"]]
    return shown if section == "zombies" else [*shown, one["text"]]


def test_report_says_the_same(made: Recording) -> None:
    """Line by line: the first lines, each sentence, and each row of each table with the numbers and lines that it shows."""
    found = json.loads(report_json.report(made))
    first, sections = parts(printed(report, made))
    assert first == found["summary"]
    assert list(sections) == [title for name, title in TITLES.items() if found[name]]
    for name, title in TITLES.items():
        for one, line in zip(found[name], sections.get(title, []), strict=True):
            if name == "doubts":
                assert line == f"  {one}"
            elif name in ("failed_forks", "zombies", "causes", "reapers", "starts"):
                assert [cell for cell in cells(name, one) if cell not in line] == []
            else:
                assert line == f"  {one['text']}"


def test_facts_of_the_report_are_those_of_the_tables(made: Recording) -> None:
    """What is counted, and each process that an entry names."""
    found, table = json.loads(report_json.report(made)), made.lifecycles()
    assert (found["processes"], found["part"]["processes"]) == (len(made.whole.lifecycles()), len(table))
    assert (found["figures"]["stolen"], found["figures"]["failed_forks"]) == (len(made.stolen()), len(made.failed_forks()))
    assert sum(one["processes"] for one in found["unreaped"]) == found["figures"]["unreaped"]
    for one in (*found["unreaped"], *found["reaped"]):
        rows = table.loc[one["ids"]]
        assert (one["processes"], one["max_ms"]) == (len(rows), rows["zombie_ms"].max())
        assert set(rows["reap_cause"]) == {one["cause"]} or (one["cause"], rows["reap_cause"].nunique() > 1) == (None, True)
        assert one["site"] is None or set(rows["start_site"].fillna(rows["fork_site"])) == {one["site"]}
    started = table.assign(site=table["start_site"].fillna(table["fork_site"]))
    for one in (*found["starts"], *(one for one in found["reapers"] if one.get("reap_site"))):
        keys = [name for name in ("site", "created_by", "reap_site") if one.get(name)]
        rows = started[(started[keys] == [one[name] for name in keys]).fillna(False).all(axis=1)]
        assert not keys or (one["processes"], one["max_ms"]) == (len(rows), plain(rows["zombie_ms"].max()))
    for one in found["zombies"]:
        assert one["zombie_ms"] == table.at[one["id"], "zombie_ms"]
    assert sum(one["processes"] for one in found["killed"]) == table["term_signal"].notna().sum()


def test_why_says_the_same(made: Recording) -> None:
    """Line by line, of some processes of each trace; their row is that of `export`, the other tables those of the recording."""
    whole = made.whole.lifecycles()
    for process in (None, *whole["id"].tolist()[:: max(len(whole) // 3, 1)]):
        found = json.loads(report_json.why(made, process))
        VALIDATOR.validate(found)
        headline, *lines = printed(why, made, process)
        assert headline == found["summary"]
        shown = lines[:-1] if lines and lines[-1].startswith("The first to look at") else lines
        assert len(shown) == len(found["lines"])
        for one, line in zip(found["lines"], shown, strict=True):
            text = re.sub(r"^ *([+-][0-9.]+|[a-z]+)? *", "", line) if one["time_ns"] else line.strip()
            assert one["text"] in re.sub(r"^(- |\w+ +)(?! )", lambda mark: re.sub(" +", " ", mark[0]), text)
            assert (one["source"] or "")[:60] in line
            if one["time_ns"]:
                assert f"{(one['time_ns'] - made.start_ns) / 1e9:+.3f}" in line
        if process is not None:
            assert found["process"] == records(whole.loc[[process]])[0]
            assert list(found["process"]) == list(whole.columns)


def test_why_names_the_rows_of_other_tables() -> None:
    """Those about this process, all columns."""
    made = CASES["stolen"]
    found = json.loads(report_json.why(made, int(made.stolen()["id"].iloc[0])))
    assert [len(found["tables"][name]) for name in ("stolen", "starts")] == [1, 1]
    for name, rows in found["tables"].items():
        assert all(list(one) == list(TABLES[name](made).columns) for one in rows)
    assert found["zombies"] == 16


def test_documents_are_valid(made: Recording) -> None:
    """Of report, check and diff; nothing in them can steer a terminal."""
    verdict = judge(made, [parse(name, 0) for name in BY_NAME])
    texts = [
        report_json.report(made),
        report_json.why(made, None),
        verdict_json.document(made, verdict, places.Places(made, "/")),
    ]
    texts += [diff.as_json(compare([made], [CASES["kafka"]])), diff.as_json(compare([CASES["kafka"]], [made, made]))]
    for text in texts:
        VALIDATOR.validate(json.loads(text))
        assert text.isascii()
        assert all(line.isprintable() for line in text.splitlines())


def test_the_schema_bites() -> None:
    """A field that is missing, of another type, or that there is not in an entry."""
    found = json.loads(report_json.report(CASES["fixes"]))
    entry = found["reaped"][0]
    for change in ({"version": 2}, {"summary": "x"}, {"figures": {}}, {"reaped": [{**entry, "new": 1}]}, {"reaped": [{}]}):
        assert not VALIDATOR.is_valid(found | change), change
    chain = json.loads(report_json.why(CASES["fixes"], None))
    for change in ({"process": {}}, {"tables": {"x": []}}, {"lines": [{**chain["lines"][0], "kind": "x"}]}):
        assert not VALIDATOR.is_valid(chain | change), change


def fields(schema: Any) -> set[str]:
    """Return the names of all fields of a part of the schema, whatever it refers to."""
    if isinstance(schema, list):
        return {name for one in schema for name in fields(one)}
    if not isinstance(schema, dict):
        return set()
    if "$ref" in schema:
        return fields(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    named = schema.get("properties", {})
    return {*named, *fields([*named.values(), *(one for key, one in schema.items() if key != "properties")])}


@pytest.mark.parametrize("name", ["report", "why", "check", "diff", "fleet"])
def test_every_field_is_described(name: str) -> None:
    """docs/json.md names each field of the schema in the section of its document, and has a row for none that there is not."""
    page = (ROOT / "docs/json.md").read_text()
    opening, section = page.partition("\n## ")[0], page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    rows = [line for line in (opening + section).splitlines() if line.startswith("| `")]
    named = {one for row in rows for one in re.findall(r"`(\w+)`", row.split("|")[1])}
    said = set(re.findall(r"`(\w+)`", opening + section))
    known = fields(SCHEMA["$defs"][name])
    assert (named - known - {"trace", "command"}, known - said) == (set(), set())


@pytest.mark.parametrize("command", ["report", "why"])
def test_as_it_is_typed(command: str) -> None:
    """On stdout, one document; of a part or of one process as without --json."""
    path = str(ROOT / "tests/data/kafka.arrows")
    done = CliRunner().invoke(cli, [command, path, "29404", "--json"])
    assert (done.exit_code, json.loads(done.stdout)["format"]) == (0, f"forktrace-{command}")
    assert "kafka" in CliRunner().invoke(cli, [command, path, "--json"]).stdout


def test_what_runs_is_told_by_ps() -> None:
    """`why -p PID --json` says where to look."""
    error = CliRunner().invoke(cli, ["why", "-p", "1", "--json"]).exception
    assert isinstance(error, UsageError)
    assert "forktrace ps --json" in str(error.hint)
