"""Every command line of README.md and docs/ is run, ends as it should, and prints what the page shows."""

from __future__ import annotations

import re
import shlex
import uuid
from pathlib import Path

import click
import documented
import pytest

from forktrace.cli import cli

WITH_COMMANDS = [page for page in documented.PAGES if any(command.is_run for command in documented.commands(page))]


def name_of(page: Path) -> str:
    """The page as one would say it."""
    return str(page.relative_to(documented.ROOT))


@pytest.mark.root
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_every_command_of_the_page_works(page: Path, open_folder: Path) -> None:
    """From the top, in one shell: the exit statuses are right, and what the page shows is what is printed.

    Of a trace that lies in tests/data to the letter (`make golden` writes it), else in its words: numbers differ.
    """
    if "demo kafka" in page.read_text():
        pytest.importorskip("kafka", reason="kafka-python is missing")
        pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    done = documented.run(page, open_folder / str(uuid.uuid4()))
    wrong = [
        f"$ {each.command.text}\nstatus {each.status}\n{each.printed}"
        for each in done
        if each.status not in each.command.statuses
    ]
    assert not wrong, "\n".join(wrong)
    for each in done:
        if each.command.shown and each.command.is_offline:
            assert each.command.shown == documented.shown_as(each.command, each.printed)
        elif each.command.shown:
            assert documented.shape(each.command.shown) == documented.shape(each.printed)


@pytest.mark.parametrize("page", documented.PAGES, ids=name_of)
def test_no_command_line_stands_where_nothing_runs_it(page: Path) -> None:
    """Commands are in blocks that are marked `console`, behind `$ `."""
    assert not documented.strays(page)


def unknown_options(text: str) -> set[str]:
    """Return the options in a command line of forktrace, without `forktrace`, that its command has not."""
    name, *arguments = shlex.split(text)
    known = [*cli.commands[name].params, click.Option(["--help"], is_flag=True)]
    given = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return {word for word in given if word.startswith("-") and word != "-"} - {option for each in known for option in each.opts}


@pytest.mark.parametrize("page", documented.PAGES, ids=name_of)
def test_commands_in_the_text_can_be_typed(page: Path) -> None:
    """What a sentence calls a command line of forktrace has the options that there are."""
    texts = re.findall(r"`(?:sudo )?forktrace ([a-z][^`]*)`", page.read_text())
    assert not [text for text in texts if unknown_options(text)]


def test_examples_of_the_help_can_be_typed() -> None:
    """So do the examples that `--help` shows."""
    helps = [each.help or "" for each in (cli, *cli.commands.values())]
    texts = [text for each in helps for text in re.findall(r"^ +(?:sudo )?forktrace ([a-z][^|\n]*)", each, re.MULTILINE)]
    assert len(texts) > len(cli.commands)
    assert not [text for text in texts if unknown_options(text)]


def test_what_is_not_run_is_there() -> None:
    """Each reason not to run something is needed, and each target of make that the pages name exists."""
    texts = [command.text for page in documented.PAGES for command in documented.commands(page)]
    assert all(any(text.startswith(start) for text in texts) for start in documented.NOT_RUN)
    targets = set(re.findall(r"^([a-z-]+):", (documented.ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {text.split()[1] for text in texts if text.startswith("make ")} <= targets
