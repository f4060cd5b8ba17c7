"""What users read is complete: help, docs, columns, versions."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import tomllib
from pathlib import Path

import click
import documented
import pytest
from click.testing import CliRunner
from hatchling.builders.sdist import SdistBuilder

import forktrace
from forktrace.cli import cli
from forktrace.fleet import dataset
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
    assert named - {"can"} <= set(COMMANDS)  # but for a sentence


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_docs_entry(command: str) -> None:
    """The section of the command in docs/commands.md names each option, or what is said above of several commands does."""
    before, _, after = DOCS["commands.md"].partition(f"## {command}\n")
    said = before.partition("\n## ")[0] + after.partition("\n## ")[0]
    options = [each for each in cli.commands[command].params if isinstance(each, click.Option)]
    assert not [each.opts for each in options if not any(re.search(rf"(?<![\w-]){option}\b", said) for option in each.opts)]


def section(page: str, heading: str) -> str:
    """Return what stands in a page below a heading."""
    return DOCS[page].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def in_order(text: str) -> list[str]:
    """Return the names in backquotes in the first cells of the table rows, as they come."""
    return [
        name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    ]


def test_every_table_and_column_is_described() -> None:
    """docs/tables.md has a section for each table, with a row for each column, in the order of the table."""
    recording = forktrace.read(ROOT / "tests/data/kafka.arrows")
    tables = next(each for each in cli.commands["export"].params if each.name == "table").type.choices
    assert set(re.findall(r"^## (.*)$", DOCS["tables.md"], re.MULTILINE)) == {*tables, "processes_at"}
    for name in tables:
        assert in_order(section("tables.md", name)) == list(getattr(recording, name)().columns), name


def test_every_key_of_the_header_is_described() -> None:
    """docs/trace-format.md has a row for each key of a header, and none for a key that there is not."""
    header = forktrace.read(ROOT / "tests/data/kafka.arrows").header
    not_in_each = {"attached", "lacks", "traceparent", "rotation", "file"}
    assert first_cells(section("trace-format.md", "Header")) == set(header) | not_in_each


def test_every_status_is_described() -> None:
    """The table of exit statuses in docs/commands.md has that of each error."""
    from forktrace import errors

    statuses = {each.exit_status for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "exit_status")}
    said = {int(cell) for cell in re.findall(r"^\| (\d+) \|", section("commands.md", "Exit status"), re.MULTILINE)}
    assert statuses <= said


def anchors(page: Path) -> set[str]:
    """Return what a forge calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_leads_somewhere() -> None:
    """Each relative link of the pages names a file, and a heading of it, that exist; each picture is shown."""
    pages = documented.PAGES
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()) if "://" not in link]
    wrong, reached = [], set()
    for page, link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        reached.add(target)
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(f"{page.name}: {link}")
    assert not wrong
    assert {path.resolve() for path in (ROOT / "docs").rglob("*.png")} <= reached


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to each page beside it, decisions/README.md to each decision."""
    for folder in (ROOT / "docs", ROOT / "docs/decisions"):
        links = set(re.findall(r"\]\(([\w-]+\.md)\)", (folder / "README.md").read_text()))
        assert links == {path.name for path in folder.glob("*.md")} - {"README.md"}


def test_pictures_of_notebooks_are_theirs() -> None:
    """A picture that a page takes from a notebook is the one that the notebook has now (`make golden` copies it)."""
    pictures = [each for page in documented.PAGES for each in documented.pictures_of_notebooks(page).items()]
    assert pictures
    assert not [path.name for path, picture in pictures if path.read_bytes() != picture]


def test_python_in_the_pages_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block of Python that is no program of the tutorial runs, where the trace that it reads lies."""
    (tmp_path / "run.arrows").write_bytes((ROOT / "tests/data/kafka.arrows").read_bytes())
    dataset.write(forktrace.read(tmp_path / "run.arrows"), tmp_path / "fleet")
    monkeypatch.chdir(tmp_path)
    snippets = [
        each for text in DOCS.values() for each in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, "<docs>", "exec"), {})


def test_every_column_of_a_moment_is_described() -> None:
    """docs/tables.md has a row for each column of processes_at."""
    from forktrace.analysis.tables.moments import COLUMNS

    section = DOCS["tables.md"].partition("## processes_at")[2].partition("\n## ")[0]
    assert set(COLUMNS) == first_cells(section)


def test_every_field_of_ps_is_described() -> None:
    """docs/commands.md has a row for each field of `ps --json`."""
    from forktrace.trace import snapshot

    section = DOCS["commands.md"].partition("## ps\n")[2].partition("\n## ")[0]
    kinds = (snapshot.Snapshot, snapshot.Parent, snapshot.Zombie, snapshot.Limit, snapshot.HalfDead)
    fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert fields == first_cells(section)


def test_every_cause_is_explained() -> None:
    """docs/causes.md has a row for each cause, maker and way out, for what an owner may see, and for each key of a rule."""
    from forktrace.analysis.causes import rules
    from forktrace.analysis.tables import stolen

    explained = first_cells(DOCS["causes.md"])
    assert {*rules.CAUSES, *rules.CREATORS, *rules.EXIT_PATHS, *stolen.SEEN} <= explained
    tables = [one for entries in tomllib.loads(rules.BUILT_IN.read_text()).values() for one in entries if isinstance(one, dict)]
    keys = {key for one in tables for key in one}
    assert keys <= explained


def test_every_column_and_kind_of_the_trace_is_described() -> None:
    """docs/trace-format.md has a row for each column and each kind of event."""
    assert set(ev.COLUMNS) <= first_cells(DOCS["trace-format.md"])
    assert set(ev.STORED_KINDS) <= first_cells(DOCS["trace-format.md"])


def test_the_changelog_is_open() -> None:
    """Unreleased is on top, and the version is one."""
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(r"\d+\.\d+\.\d+", forktrace.__version__)


def test_licence_and_project_agree() -> None:
    """The licences that pyproject.toml names are those in LICENSE and in the probes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License")
    assert "dual licensed MIT OR GPL-2.0" in text
    assert project["license"] == "MIT AND (MIT OR GPL-2.0-only)"
    for source in (ROOT / "probes").glob("*.[ch]"):
        assert source.read_text().startswith("/* SPDX-License-Identifier: MIT OR GPL-2.0"), source


def test_make_targets_have_help() -> None:
    """`make help` names every target that a user may want."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert targets - {"system"} == set(re.findall(r"^([a-z]+):.* ## ", makefile, re.MULTILINE))


@pytest.mark.parametrize("url", ["", "https://example.org/someone/forktrace"])
def test_the_page_on_pypi(url: str) -> None:
    """Its links and pictures lead into the repository that is set, to files that there are; without one there are none."""
    build = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert build
    assert build.loader
    module = importlib.util.module_from_spec(build)
    build.loader.exec_module(module)
    page = module.with_addresses((ROOT / "README.md").read_text(), url)
    targets = re.findall(r"\]\(([^)]+)\)", page)
    assert bool(targets) == bool(url)
    for target in targets:
        assert target.startswith((f"{url}/blob/main/", f"{url}/raw/main/", "http", "#")), target
        path = re.sub(r"^(blob|raw)/main/", "", target.removeprefix(f"{url}/").partition("#")[0])
        assert (ROOT / path).exists(), target
    assert ("![" in page) == bool(url)
    assert "[five capabilities]" not in page or url


def test_the_sdist_has_what_its_readme_names() -> None:
    """And nothing that lies there by chance, such as the README of a cache."""
    names = [one.distribution_path for one in SdistBuilder(str(ROOT)).recurse_included_files()]
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / "README.md").read_text()):
        assert any(name == target or name.startswith(f"{target.rstrip('/')}/") for name in names), target
    assert not [name for name in names if name.startswith(".") and name != ".gitignore"]


def test_what_to_run_exists() -> None:
    """CONTRIBUTING.md's table of tests names files that exist: unit tests in its second column, kernel tests in its fourth."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition("| you change |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    named = [(room, name) for row in rows for room, cell in (("unit", row[1]), ("kernel", row[3])) for name in cell.split(", ")]
    files = [ROOT / f"tests/{room}/test_{name}.py" for room, name in named if name]
    assert len(rows) > 20
    assert not [file.name for file in files if not file.exists()]
