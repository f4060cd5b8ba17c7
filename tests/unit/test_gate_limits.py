"""Limits, allowances and the files that hold them: what is taken, and what is refused with a way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from forktrace.analysis.gate.limits import BY_NAME, parse
from forktrace.analysis.gate.policy import find_policy
from forktrace.analysis.gate.sites import Functions, names, site_of
from forktrace.cli.gate import _LIMITS
from forktrace.errors import UsageError


@pytest.mark.parametrize(
    ("name", "value", "most", "text"),
    [
        ("max-zombie", "5s", 5000, "max-zombie 5s"),
        ("max-zombie", "500ms", 500, "max-zombie 500ms"),
        ("max-zombie", "1.5m", 90_000, "max-zombie 90s"),
        ("max-zombie", "5", 5000, "max-zombie 5s"),
        ("max-zombie", 0.25, 250, "max-zombie 250ms"),
        ("max-zombie-seconds", "3", 3, "max-zombie-seconds 3s"),
        ("max-zombies", "12", 12, "max-zombies 12"),
        ("max-unreaped", 0, 0, "max-unreaped 0"),
    ],
)
def test_a_limit_is_read(name: str, value: object, most: float, text: str) -> None:
    """Times have units, or are seconds; counts are whole numbers."""
    limit = parse(name, value)
    assert (limit.most, limit.text) == (most, text)


@pytest.mark.parametrize(
    ("name", "value", "words", "hint"),
    [
        ("max-zombies", "5s", "max-zombies 5s: this limit is a number, and its value is a time", "max-zombie 5s"),
        ("max-unreaped", "-1", "not a number of zombies", "max-unreaped 0"),
        ("max-stolen", "1.5", "not a number of stolen exit statuses", "max-stolen 0"),
        ("max-running", True, "not a number of children", "max-running 0"),
        ("max-zombie", "five", "not a time", "max-zombies counts them"),
        ("max-zombie", "-5s", "not a time", "max-zombie 5s"),
        ("max-zombie", [5], "not a time", "max-zombie 5s"),
        ("max-zombie", "nan", "not a time", "max-zombie 5s"),
        ("max-zombie", "1.2.3", "not a time", "max-zombie 5s"),
        ("max-zombi", "5s", "there is no such limit", "max-zombie, max-unreaped"),
    ],
)
def test_what_is_no_limit(name: str, value: object, words: str, hint: str) -> None:
    """A wrong kind names the sibling; whatever is wrong says how it is written."""
    with pytest.raises(UsageError) as error:
        parse(name, value)
    assert words in str(error.value)
    assert hint in error.value.hint


def test_there_is_an_option_for_each_limit() -> None:
    """The command line has the limits that there are, in their order."""
    assert list(_LIMITS) == list(BY_NAME)


@pytest.mark.parametrize("file", ["forktrace.toml", "pyproject.toml"])
def test_a_file_holds_limits_and_allowances(tmp_path: Path, file: str) -> None:
    """The nearest file up to the top of the repository; the keys are the options."""
    table = "check" if file == "forktrace.toml" else "tool.forktrace.check"
    (tmp_path / "project/.git").mkdir(parents=True)
    (tmp_path / "project/src").mkdir()
    (tmp_path / file).write_text(f"[{table}]\nmax-stolen = 7\n")  # outside of the repository
    (tmp_path / "project" / file).write_text(
        f'[{table}]\nmax-zombie = "5s"\nmax-unreaped = 0\nallow = [{{ site = "a.py f", reason = "on purpose" }}]\n'
    )
    found = find_policy(tmp_path / "project/src")
    assert found.path == str(tmp_path / "project" / file)
    assert [one.text for one in found.limits] == ["max-zombie 5s", "max-unreaped 0"]
    assert found.allowances == [("a.py f", "on purpose")]


def test_a_file_without_a_table_for_us_is_passed_over(tmp_path: Path) -> None:
    """A pyproject.toml of somebody else says nothing, and the next one above is asked."""
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/pyproject.toml").write_text("[tool.ruff]\n")
    (tmp_path / "forktrace.toml").write_text("[check]\nmax-zombies = 3\n")
    assert [one.text for one in find_policy(tmp_path / "inner").limits] == ["max-zombies 3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[check]\nmax-zombi = 3\n", "max-zombi: there is no such key"),
        ("[check]\nmax-zombies = '5s'\n", "max-zombies 5s: this limit is a number, and its value is a time"),
        ("[check]\nallow = [{ site = 'f' }]\n", "each needs a site and a reason"),
        ("[check]\nallow = [{ site = 'f', reason = ' ' }]\n", "each needs a site and a reason"),
        ("[check]\nallow = 'f'\n", "each needs a site and a reason"),
        ("[check]\nallow = [{ site = 'f', reason = 'r', more = 1 }]\n", "each needs a site and a reason"),
        ("check = 3\n", "[check] is not a table"),
        ("[check\n", "not TOML"),
        ("\udcff", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_meant(tmp_path: Path, text: str, words: str) -> None:
    """A mistake is named with its file; nothing in it is passed over."""
    (tmp_path / "forktrace.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UsageError, match=r"forktrace\.toml: ") as error:
        find_policy(tmp_path)
    assert words in str(error.value)
    assert error.value.exit_status == 2


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("consume_task", True),
        ("consumer.py:33", True),
        ("src/consumer.py:33", True),
        ("./consumer.py:33", True),
        ("consumer.py consume_task", True),
        ("consumer.py:33 consume_task", True),
        ("consumer.py:33 other", False),
        ("consumer.py:3", False),
        ("sumer.py:33", False),
        ("other.py consume_task", False),
        ("consume", False),
        ("consumer.py", False),
    ],
)
def test_what_an_allowance_names(word: str, named: bool) -> None:
    """A function, a line, or both, with as much of the path as tells it."""
    assert names(word, "src/consumer.py:33 consume_task") is named


def test_functions_of_another_recording() -> None:
    """Lines move, functions stay; of a path the end counts, whole parts of it."""
    known = Functions([site_of("app/a.py:1 f"), site_of("b.py:2 f"), site_of("a.py:3 g"), site_of("ba.py:4 f")])
    assert known.matching(site_of("/srv/app/a.py:77 f")) == [0]
    assert known.matching(site_of("a.py:77 f")) == [0]
    assert known.matching(site_of("a.py:77 h")) == []
