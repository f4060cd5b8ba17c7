"""A recording at a prompt and in a notebook: what it prints, and what is shown of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from traces import HEADER, MS, child, target

import forktrace
from forktrace.errors import ForktraceError, UsageError
from forktrace.trace import events as ev
from forktrace.trace import stream

EVIL = "\x1b]0;x\x07<script>&"


@pytest.fixture
def made(tmp_path: Path) -> forktrace.Recording:
    """A recording with a zombie that lasted, and names that are up to no good."""
    rows = [target(), *child(500, 10, 20), ev.exec_(11 * MS, 500, [EVIL]), ev.reap(90 * MS, 500, by=100), *child(501, 30, 40)]
    path = tmp_path / "t.arrows"
    with path.open("wb") as file:
        writer = stream.Writer(file, HEADER | {"command": [EVIL]})
        writer.write(stream.batch_of([*rows, ev.reap(60 * MS, 501, by=100), ev.end(99 * MS)]))
        writer.close()
    return forktrace.read(path)


def test_report_and_why(made: forktrace.Recording, capsys: pytest.CaptureFixture[str]) -> None:
    """They print what the commands do; a process is named by its number or as #ID, None is the one to look at first."""
    made.report()
    assert "2 zombies lasted longer than 10 ms (longest 70 ms)" in capsys.readouterr().out
    for named in (500, "500", "#1", None):
        made.why(named)
        assert capsys.readouterr().out.startswith("500 was a zombie for 70 ms\n")
    with pytest.raises(UsageError, match="no process 9"):
        made.why(9)


def test_a_part_has_them_too(made: forktrace.Recording, capsys: pytest.CaptureFixture[str]) -> None:
    """What `of` and `between` return is such a recording."""
    made.of(2).between(0, 50 * MS).report()
    assert "Only a part is shown: 1 of 3 processes" in capsys.readouterr().out


def test_what_a_notebook_shows(made: forktrace.Recording) -> None:
    """The first lines of the report and the zombies to look at first; nothing of a trace is HTML."""
    shown = made._repr_html_()
    assert shown.startswith("<p>")
    assert "2 zombies lasted longer than 10 ms" in shown
    assert shown.count("<tr>") == 3
    assert r"\x1b]0;x\x07&lt;script&gt;&amp;" in shown
    assert "<script" not in shown
    assert "\x1b" not in shown
    assert "<table>" not in made.between(1000 * MS)._repr_html_()


def test_no_such_file(tmp_path: Path) -> None:
    """It is Python's own error, and forktrace's too."""
    with pytest.raises(FileNotFoundError, match="nofile: No such file or directory") as found:
        forktrace.read(tmp_path / "nofile")
    assert isinstance(found.value, ForktraceError)
