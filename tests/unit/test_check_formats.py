"""The verdict in every format, each held against its schema: SARIF's and JUnit's are in tests/data/schemas.

SARIF 2.1.0 (rtm.5, OASIS) comes from npm's @microsoft/jest-sarif, Jenkins' JUnit schema from the source package of pytest. For
GitHub's workflow commands there is no schema: what its documentation and toolkit say is asserted here.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import jsonschema
import pytest
import xmlschema
from rich.console import Console
from traces import MS, recording, target, work

from forktrace.analysis.gate.limits import BY_NAME, parse
from forktrace.analysis.gate.verdict import Allowance, Verdict, judge
from forktrace.analysis.recording import Recording, read
from forktrace.errors import UsageError
from forktrace.trace import events as ev
from forktrace.views.formats import github, junit, places, sarif, verdict_json
from forktrace.views.text.check import show

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "tests/data/schemas"
SARIF = json.loads((SCHEMAS / "sarif-2.1.0-rtm.5.json").read_text())
OURS = json.loads((ROOT / "forktrace/views/formats/documents.schema.json").read_text())
EVIL = "/srv/a\x1b[31m,:%\r\n</script>&]]>\u202e.py"


def evil() -> Recording:
    """Return a recording whose names try to leave every format."""
    stack = {"stack": f"{EVIL}:7 f\x1b::error::x", "stack_status": "ok"}
    rows = [ev.fork(MS, 7, by=100, **stack), ev.exit_(2 * MS, 7, parent=100), ev.zombie(2 * MS, 7, parent=100)]
    return recording(target(), *rows, ev.lost(3 * MS, 1, "evil\x1b[31m\n::error::|"), ev.end(900 * MS))


def lossy() -> Recording:
    """Return a recording that lost something."""
    return recording(target(), *work(1, 1, 5, 500), ev.lost(600 * MS, 3, "reap"))


CASES = {
    **{path.stem: read(path) for path in sorted((ROOT / "tests/data").glob("*.arrows"))},
    "evil": evil(),
    "lossy": lossy(),
    "empty": recording(closed=False),
}


def verdict(made: Recording, most: object = 0) -> Verdict:
    """Return the verdict with all limits."""
    return judge(made, [parse(name, most) for name in BY_NAME], [Allowance("f", "because")])


@pytest.fixture(params=CASES)
def made(request: pytest.FixtureRequest) -> Recording:
    """Each committed trace, and some that are odd."""
    return CASES[request.param]


def test_sarif_is_valid(made: Recording) -> None:
    """A rule for each cause, and a result for each problem, whose rule is among them."""
    log = json.loads(sarif.document(made, verdict(made), places.Places(made, "/srv")))
    jsonschema.Draft4Validator(SARIF).validate(log)
    run = log["runs"][0]
    rules = [one["id"] for one in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    assert all(rules[one["ruleIndex"]] == one["ruleId"] for one in run["results"])
    assert len(run["results"]) == len(verdict(made).findings)
    assert re.search(r"[\x00-\x08\x0b-\x1f]", sarif.document(made, verdict(made), places.Places(made, "/srv"))) is None


def test_sarif_leads_from_the_fork_to_the_reap() -> None:
    """The fork line is the location, the reap line related, the calls to both the code flow; what could not be told is said."""
    made = recording(target(), *work(1, 1, 5, 500))
    result = json.loads(sarif.document(made, verdict(made), places.Places(made, "/srv")))["runs"][0]["results"][0]
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "consumer.py", "uriBaseId": "SRCROOT"},
        "region": {"startLine": 33},
    }
    assert result["relatedLocations"][0]["physicalLocation"]["region"] == {"startLine": 34}
    steps = [one["location"] for one in result["codeFlows"][0]["threadFlows"][0]["locations"]]
    assert [step["message"]["text"] for step in steps] == [
        *("<module>", "consume: forked", "process 1 ended, zombie for 495 ms"),
        *("<module>", "consume", "Process.join", "wait", "poll: reaped"),
    ]
    assert steps[-1]["physicalLocation"]["artifactLocation"] == {
        "uri": "file:///usr/lib/python3.11/multiprocessing/popen_fork.py"
    }
    run = json.loads(sarif.document(lossy(), verdict(lossy(), 1000), places.Places(lossy(), "/srv")))["runs"][0]
    assert run["invocations"][0]["exitCode"] == 66
    assert not run["invocations"][0]["executionSuccessful"]
    assert "max-zombies 1000 cannot be told: lost: 3 reap" in json.dumps(run["invocations"])


def test_junit_is_valid(made: Recording) -> None:
    """A test case for each limit: what is broken has failed, what cannot be told is an error."""
    found = verdict(made)
    text = junit.document(made, found)
    xmlschema.XMLSchema(str(SCHEMAS / "junit-10.xsd")).validate(io.StringIO(text))
    states = [one.state for one in found.outcomes]
    assert text.count("<testcase ") == len(BY_NAME)
    assert text.count("<failure ") == states.count("broken")
    assert text.count("<error ") == states.count("unknown")
    assert f'failures="{states.count("broken")}"' in text


def test_json_is_valid(made: Recording) -> None:
    """The documented schema."""
    found = json.loads(verdict_json.document(made, verdict(made), places.Places(made, "/srv")))
    jsonschema.Draft202012Validator(OURS).validate(found)
    assert found["exit_status"] == verdict(made).exit_status


def test_the_schema_bites() -> None:
    """A document without a field, or with a state that there is not, is none."""
    made = lossy()
    found = json.loads(verdict_json.document(made, verdict(made), places.Places(made, "/srv")))
    for change in ({"state": "fine"}, {"limits": []}, {"version": 2}):
        assert not jsonschema.Draft202012Validator(OURS).is_valid(found | change)
    del found["problems"]
    assert not jsonschema.Draft202012Validator(OURS).is_valid(found)


def test_github_gets_one_command_a_line(made: Recording) -> None:
    """At most ten; names cannot end a command or begin another: `%`, CR and LF are escaped, in properties `:` and `,` too."""
    lines = list(github.errors(made, verdict(made), places.Places(made, "/srv")))
    assert len(lines) <= 10
    assert len(lines) == min(10, len(lines)) > 0
    for line in lines:
        found = re.fullmatch(r"::error ((?:file|line|title)=[^:,\r\n]*(?:,(?:line|title)=[^:,\r\n]*)*)::([^\r\n]+)", line)
        assert found, line
        assert line.isprintable()
        assert re.fullmatch(r"(?:[^%]|%(?:25|0A|0D|3A|2C))*", line)


def test_github_puts_the_worst_at_their_lines() -> None:
    """The fork line of each, the worst first; a file outside of the checkout has none; the summary has them all."""
    rows = [row for pid in range(1, 15) for row in work(pid, pid, 20 + pid, 100 + 10 * pid, line=pid)]
    made = recording(target(), *rows)
    found = judge(made, [parse("max-zombie", 0)])
    lines = list(github.errors(made, found, places.Places(made, "/srv")))
    assert [re.match(r"::error file=consumer.py,line=(\d+),", line)[1] for line in lines] == [str(n) for n in range(14, 4, -1)]
    assert github.summary(made, found).count("<code>forktrace why") == 14
    assert next(github.errors(made, found, places.Places(made, "/elsewhere"))).startswith("::error title=")


def test_a_summary_is_a_table_whatever_the_names_are() -> None:
    """No name can begin a cell, a line, a link or an element of its own."""
    page = github.summary(evil(), verdict(evil()))
    assert "</script>" not in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {4}
    assert page.count("\n") == len(page.splitlines())


def test_text_shows_what_to_do(made: Recording) -> None:
    """A headline, a line for each limit; nothing steers the terminal; each problem has its command."""
    page = io.StringIO()
    show(Console(file=page, width=80), made, verdict(made))
    text = page.getvalue()
    assert all(line.isprintable() for line in text.split("\n"))
    assert all(name in text for name in BY_NAME)
    assert ("forktrace why" in text) == bool(verdict(made).findings)


def test_the_words() -> None:
    """As a person reads them."""
    page = io.StringIO()
    made = recording(target(), *work(1, 1, 5, 500), *work(2, 600, 605, 1700), *work(3, 1800, 1805), ev.end(2000 * MS))
    limits = [parse("max-zombie", "400ms"), parse("max-unreaped", 0), parse("max-stolen", 0)]
    show(Console(file=page, width=120), made, judge(made, limits))
    assert page.getvalue().splitlines()[1:] == [
        "  max-unreaped 0    broken       1 zombie, 1 over",
        "    1 zombie started at consumer.py:33 consume, not reaped until the end; at most 0 (never: never reaped)",
        f"      forktrace why {made.trace.path} 3",
        "  max-zombie 400ms  broken       1.095 s, 695 ms over",
        "    2 processes started at consumer.py:33 consume were zombies for up to 1.095 s; at most 400ms (join: joined)",
        f"      forktrace why {made.trace.path} 2",
        "  max-stolen 0      holds        0 stolen exit statuses",
    ]


@pytest.mark.parametrize(
    ("file", "maps", "path", "inside"),
    [
        ("/work/repo/src/a.py", [], "src/a.py", True),
        ("/elsewhere/a.py", [], "/elsewhere/a.py", False),
        ("a.py", [], "/srv/a.py", False),
        ("a.py", ["/srv=."], "a.py", True),
        ("/app/b/a.py", ["/app=."], "b/a.py", True),
        ("/app/b/a.py", ["/app=src", "/app/b=lib"], "lib/a.py", True),
        ("/apple/a.py", ["/app=."], "/apple/a.py", False),
        ("/app/../etc/a.py", ["/app=."], "/etc/a.py", False),
        ("/app/b/a.py", ["/app=.."], "/work/b/a.py", False),
    ],
)
def test_where_a_line_lies(file: str, maps: list[str], path: str, inside: bool) -> None:
    """Relative to the top of the checkout, through `--map`; what lies outside has its whole path."""
    found = places.Places(lossy(), "/work/repo", places.moved(maps)).of_file(file, 7)
    assert found == places.Place(path, 7, inside)


def test_lines_without_a_file_have_no_place() -> None:
    """Code that was typed, and a line that is not known."""
    where = places.Places(lossy(), "/")
    assert where.of_file("<string>", 1) is None
    assert where.of_site(None) is None


@pytest.mark.parametrize("word", ["/app", "app=.", "/app=", "=."])
def test_what_is_no_map(word: str) -> None:
    """It says how one is written."""
    with pytest.raises(UsageError, match="not FROM=TO"):
        places.moved([word])


def test_the_top_of_the_checkout(tmp_path: Path) -> None:
    """What GitHub says; else the repository around; else the directory itself."""
    (tmp_path / "a/.git").mkdir(parents=True)
    (tmp_path / "a/b").mkdir()
    assert places.checkout(str(tmp_path / "a/b"), {}) == str(tmp_path / "a")
    assert places.checkout(str(tmp_path / "a/b"), {"GITHUB_WORKSPACE": "/w"}) == "/w"
