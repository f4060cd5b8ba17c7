"""What users read is complete: help, docs, columns, versions."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import forktrace
from forktrace.cli import cli
from forktrace.trace import events as ev

ROOT = Path(__file__).parents[1]
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
COMMANDS = sorted(cli.commands)


def first_cells(text: str) -> set[str]:
    """Return the names in backquotes in the first cell of every table row."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    """`--help` says in a sentence what the command does, fits a terminal, and shows a command line to copy."""
    done = CliRunner().invoke(cli, [command, "--help"], terminal_width=80)
    assert done.exit_code == 0
    assert re.search(rf"Examples?:\n +(sudo )?forktrace {command}", done.output)
    assert max(map(len, done.output.splitlines())) <= 80
    assert "..." not in cli.commands[command].get_short_help_str(60)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_says_what_it_does(command: str) -> None:
    """No option without help."""
    options = [each for each in cli.commands[command].params if isinstance(each, click.Option)]
    assert not [each.name for each in options if not each.help]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_docs_entry(command: str) -> None:
    """docs/commands.md has a heading for each command, and README.md or docs/ show it in use."""
    assert f"## {command}\n" in DOCS["commands.md"]


def test_no_command_is_documented_that_is_not_there() -> None:
    """Every command line in README.md and docs/ names a command that exists."""
    texts = [*DOCS.values(), (ROOT / "README.md").read_text()]
    named = {name for text in texts for name in re.findall(r"^ *(?:\$ )?(?:sudo )?forktrace ([a-z]+)", text, re.MULTILINE)}
    assert named <= set(COMMANDS)


def test_every_lifecycle_column_is_described() -> None:
    """docs/tables.md has a row for each column of lifecycles."""
    from forktrace.analysis.lifecycles import COLUMNS

    section = DOCS["tables.md"].partition("## lifecycles")[2].partition("\n## ")[0]
    assert set(COLUMNS) <= first_cells(section)


def test_every_column_of_a_moment_is_described() -> None:
    """docs/tables.md has a row for each column of processes_at."""
    from forktrace.analysis.moments import COLUMNS

    section = DOCS["tables.md"].partition("## processes_at")[2].partition("\n## ")[0]
    assert set(COLUMNS) == first_cells(section)


def test_every_field_of_ps_is_described() -> None:
    """docs/commands.md has a row for each field of `ps --json`."""
    from forktrace.trace import snapshot

    section = DOCS["commands.md"].partition("## ps\n")[2].partition("\n## ")[0]
    kinds = (snapshot.Snapshot, snapshot.Parent, snapshot.Zombie, snapshot.Limit)
    fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert fields == first_cells(section)


def test_every_cause_is_explained() -> None:
    """docs/causes.md has a row for each cause, maker and way out, for what an owner may see, and for each key of a rule."""
    from forktrace.analysis import rules, stolen

    explained = first_cells(DOCS["causes.md"])
    assert {*rules.CAUSES, *rules.CREATORS, *rules.EXIT_PATHS, *stolen.SEEN} <= explained
    tables = [one for entries in tomllib.loads(rules.BUILT_IN.read_text()).values() for one in entries if isinstance(one, dict)]
    keys = {key for one in tables for key in one}
    assert keys <= explained


def test_every_column_and_kind_of_the_trace_is_described() -> None:
    """docs/trace-format.md has a row for each column and each kind of event."""
    assert set(ev.COLUMNS) <= first_cells(DOCS["trace-format.md"])
    assert set(ev.KINDS) <= first_cells(DOCS["trace-format.md"])


def test_the_changelog_is_open() -> None:
    """Unreleased is on top, and the version is one."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(r"\d+\.\d+\.\d+", forktrace.__version__)


def test_licence_and_project_agree() -> None:
    """The licence that pyproject.toml names is the one in LICENSE."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (ROOT / "LICENSE").read_text().startswith(f"{project['license']} License")


def test_make_targets_have_help() -> None:
    """`make help` names every target that a user may want."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert targets - {"system"} == set(re.findall(r"^([a-z]+):.* ## ", makefile, re.MULTILINE))
