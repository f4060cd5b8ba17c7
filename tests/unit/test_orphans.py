"""Orphans: who inherited them, and who of the adopters is no init."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from traces import MS, cells, recording, target

from forktrace.analysis.causes.names import Names
from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.views.text.report import report
from forktrace.views.why import orphans
from forktrace.views.why.chain import chain

COLUMNS = ("id", "adopter_id", "adopter_pid", "zombie_ms", "outcome", "finding")
FOUND = "adopter-not-init"


def orphan(pid: int, adopter: int, exit_ms: int, fork_ms: int = 10, by: int = 100) -> list[ev.Row]:
    """Return the rows of a process and of the one between, its parent, which is reaped 5 ms later as its child goes on."""
    between = 10_000 + pid
    rows = [ev.fork(fork_ms * MS, between, by=by, comm="sh"), ev.fork((fork_ms + 1) * MS, pid, by=between, comm="sleep")]
    rows += [ev.exit_((fork_ms + 4) * MS, between, parent=by, adopter=adopter)]
    rows += [ev.zombie((fork_ms + 4) * MS, between, parent=by), ev.reap((fork_ms + 5) * MS, between, by=by)]
    return [*rows, ev.exit_(exit_ms * MS, pid, parent=adopter), ev.zombie(exit_ms * MS, pid, parent=adopter)]


def made(*rows: ev.Row, end_ms: int = 1000, ns_pid: int = 1) -> Recording:
    """Return a recording whose target is process 1 of its namespace."""
    return recording(target(ns_pid=ns_pid), *rows, ev.end(end_ms * MS), closed=False)


def test_an_orphan_that_stays() -> None:
    """One row: inherited at its parent's end, a zombie from its own end on, to the end of the recording."""
    table = made(*orphan(500, 100, 200)).orphans()
    assert cells(table, *COLUMNS) == [(2, 0, 100, 800.0, "left", FOUND)]
    assert table["time_ns"].tolist() == [14 * MS]
    assert [str(one) for one in table.dtypes] == ["int64", "int64", "Int64", "int64", "float64", "category", "category"]


def test_an_init_reaps() -> None:
    """Reaped, also slowly, or not even a zombie: no finding; nor for one that is left for a moment, or runs still."""
    rows = [*orphan(500, 100, 200), ev.reap(900 * MS, 500, by=100, target="any")]
    rows += [*orphan(501, 100, 300, 20), ev.autoreap(300 * MS, 501, parent_pid=100), *orphan(502, 100, 990, 30)]
    rows += orphan(503, 100, 999, 40)[:5]
    assert cells(made(*rows).orphans(), *COLUMNS) == [
        (2, 0, 100, 700.0, "reaped", None),
        (4, 0, 100, 0.0, "autoreaped", None),
        (6, 0, 100, 10.0, "left", None),
        (8, 0, 100, None, "running", None),
    ]


def test_an_adopter_that_stops_to_reap() -> None:
    """What it left for longer than it took for any other is found, and with that all that it left; not what it reaped."""
    rows = [*orphan(500, 100, 200), ev.reap(350 * MS, 500, by=100), *orphan(501, 100, 800, 20), *orphan(502, 100, 950, 30)]
    assert cells(made(*rows).orphans(), "id", "outcome", "finding") == [
        (2, "reaped", None),
        (4, "left", FOUND),
        (6, "left", FOUND),
    ]
    slow = [*orphan(500, 100, 200), ev.reap(450 * MS, 500, by=100), *rows[8:]]
    assert cells(made(*slow).orphans(), "id", "finding") == [(2, None), (4, None), (6, None)]


def test_a_namespace_that_ends() -> None:
    """What the kernel releases, as the init of a PID namespace ends, was left by it."""
    rows = [*orphan(500, 100, 200), ev.reap(900 * MS, 500, by=100, call="kernel")]
    assert cells(made(*rows).orphans(), *COLUMNS) == [(2, 0, 100, 700.0, "left", FOUND)]


def test_a_subreaper_that_ends() -> None:
    """Its zombies go on to init, which reaps them: a row for each, and the finding is about the first."""
    rows = [ev.fork(1 * MS, 300, by=100, comm="python"), *orphan(500, 300, 200, by=300)]
    rows += [ev.exit_(700 * MS, 300, parent=100, adopter=1), ev.zombie(700 * MS, 300, parent=100)]
    whole = made(*rows, ev.zombie(700 * MS, 500, parent=1), ev.reap(702 * MS, 500, by=1, call="unseen"))
    assert cells(whole.orphans(), *COLUMNS) == [
        (3, 1, 300, 500.0, "left", FOUND),
        (3, None, 1, 2.0, "reaped", None),
    ]
    (adopter,) = orphans.adopters(whole, Names(whole.lifecycles()))
    assert adopter.text == "300 python, a subreaper, inherited 1 orphan and reaped none: 1 zombie, for 500 ms"


@pytest.mark.parametrize(("end_ms", "finding"), [(5000, None), (6000, FOUND)])
def test_an_adopter_outside(end_ms: int, finding: str | None) -> None:
    """One outside of the recording may be an init that looks now and then: it gets some seconds."""
    whole = made(*orphan(500, 1, 200), end_ms=end_ms)
    assert cells(whole.orphans(), "adopter_id", "adopter_pid", "finding") == [(None, 1, finding)]
    said = [adopter.text for adopter in orphans.adopters(whole, Names(whole.lifecycles()))]
    assert said == (["1, PID 1 of its namespace, inherited 1 orphan and reaped none: 1 zombie, for 5.800 s"] if finding else [])


def test_an_orphan_from_outside() -> None:
    """What a process outside had started, and a followed one inherited, was inherited when it was first followed."""
    rows = [ev.fork(10 * MS, 500, by=77, parent=100, origin="adopted"), ev.exit_(200 * MS, 500, parent=100)]
    whole = recording(target(), *rows, ev.zombie(200 * MS, 500, parent=100), ev.end(1000 * MS), closed=False)
    assert cells(whole.orphans(), "time_ns", *COLUMNS) == [(10 * MS, 1, 0, 100, 800.0, "left", FOUND)]
    assert cells(whole.lifecycles(), "parent_id", "ppid", "adopter_id", "adopter_pid")[1] == (None, 0, 0, 100)
    assert "lost    its parent from outside the recording; 100 inherited it" in [line.text for line in chain(whole, 1)]


def test_whose_death_was_not_seen() -> None:
    """Where only the orphan's own end names its new parent, it was inherited by then."""
    rows = [ev.fork(10 * MS, 500, by=77, parent=77), ev.exit_(200 * MS, 500, parent=100), ev.zombie(200 * MS, 500, parent=100)]
    table = recording(target(), *rows, ev.end(1000 * MS), closed=False).orphans()
    assert cells(table, "time_ns", *COLUMNS) == [(200 * MS, 1, 0, 100, 800.0, "left", FOUND)]


def test_without_orphans() -> None:
    """An empty table has its columns."""
    assert list(made().orphans().columns) == ["time_ns", *COLUMNS]
    assert made().orphans().empty


def test_part_of_a_recording() -> None:
    """Of the orphan, of its adopter, and of others."""
    whole = made(*orphan(500, 100, 200), *orphan(501, 100, 300, 20))
    assert whole.of(2).orphans()["id"].tolist() == [2]
    assert whole.of(0).orphans()["id"].tolist() == [2, 4]
    assert whole.between(20 * MS, 30 * MS).orphans()["id"].tolist() == [4]


def section(whole: Recording) -> str:
    """Return what the report says of orphans, in one line."""
    file = io.StringIO()
    report(whole, Console(file=file, width=500))
    return " ".join(file.getvalue().partition("Orphans that nobody reaps\n")[2].partition("\n\n")[0].split())


def test_report() -> None:
    """Who, why it inherits, what it left, the fixes by name, and what makes it worse."""
    rows = [*orphan(500, 100, 200), *orphan(501, 100, 300, 20), *orphan(502, 100, 300, 30), ev.reap(310 * MS, 502, by=100)]
    said = section(made(*rows))
    assert said.startswith(
        "100 python, PID 1 of its namespace, inherited 3 orphans and reaped 1 of them: "
        "2 zombies, the longest for 800 ms (adopter-not-init). What helps: an init above it (tini, "
    )
    for words in ("`docker run --init`", "`shareProcessNamespace: true`", "a loop in it", "A double fork makes it worse"):
        assert words in said
    assert section(made(*orphan(500, 100, 200), ev.reap(201 * MS, 500, by=100))) == ""


def test_many_adopters_are_summed_up() -> None:
    """Three are named, those with the most first."""
    rows = [row for pid in range(300, 305) for row in (ev.fork(MS, pid, by=100), *orphan(pid + 200, pid, 200, by=pid))]
    said = section(made(*rows, *orphan(600, 304, 200, 50, by=304)))
    assert said.startswith("304 ")
    assert said.count("(adopter-not-init)") == 3
    assert "2 more adopters in the table of `forktrace export --table orphans`." in said


def told(whole: Recording, process: int) -> list[str]:
    """Return the lines of why."""
    return [f"{line.mark} {line.text}".strip() for line in chain(whole, process)]


def test_why_of_the_orphan() -> None:
    """The finding, the fixes for its adopter whatever released it in the end, and the warning."""
    rows = [*orphan(500, 100, 200), ev.reap(900 * MS, 500, by=100, call="kernel"), ev.exit_(950 * MS, 100)]
    said = told(made(*rows), 2)
    text = "100 python, PID 1 of its namespace, inherited 1 orphan and reaped none: 1 zombie, for 700 ms"
    assert f"finding {text} (adopter-not-init)" in said
    assert "fix one of:" in said
    assert any(one.startswith("- let 100, which inherits orphans, wait for any child in a loop") for one in said)
    assert said[-1] == "beware a double fork makes it worse: the grandchild is one more orphan for the same adopter"


def test_why_of_the_adopter() -> None:
    """What it does not do, and what helps."""
    said = told(made(*orphan(500, 100, 200)), 0)
    (found,) = [number for number, one in enumerate(said) if one.startswith("finding 100 python, PID 1 of its namespace")]
    assert said[found + 1].startswith("what helps: an init above it (tini,")
    assert said[found + 2].startswith("a double fork makes it worse")


def test_why_of_an_orphan_that_was_reaped() -> None:
    """Nothing is found, and nobody is warned."""
    said = told(made(*orphan(500, 100, 200), ev.reap(201 * MS, 500, by=100)), 2)
    assert not [one for one in said if one.startswith(("finding", "beware"))]


def test_why_of_a_zombie_that_was_there_before() -> None:
    """Whether it is an orphan is not known; what its parent does with orphans is."""
    rows = [ev.fork(5 * MS, 400, by=None, parent=100, origin="attached"), ev.exit_(6 * MS, 400, parent=100)]
    rows += [ev.zombie(6 * MS, 400, parent=100), *orphan(500, 100, 200)]
    said = told(made(*rows), 1)
    assert [one for one in said if one.startswith("finding 100 python, PID 1 of its namespace, inherited 1 orphan")]
    assert not [one for one in said if one.startswith("beware")]
