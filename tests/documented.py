"""The command lines of the README files and docs/, run as their reader would: page by page, from the top, in one shell.

A block marked `console` holds commands behind `$ ` and what they print; a block marked `python NAME.py` is that file. In the
directory lie the traces of tests/data and the programs of the tutorial; NOT_RUN says what is not run, and why.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from recorded import MARK, PATIENCE_S, processes_with

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (ROOT / "README.md", ROOT / "notebooks/README.md", *sorted((ROOT / "docs").rglob("*.md")))
TUTORIAL: Final = ROOT / "docs/tutorial.md"
TRACES: Final = tuple(sorted((ROOT / "tests/data").glob("*.arrows")))

# What begins like this is not run, because:
NOT_RUN: Final = {
    "sudo apt-get ": "it changes the machine",
    "sudo forktrace demo kafka --bootstrap-servers ": "it needs a broker; make test-kafka brings one",
    "pip install ": "it changes the environment that runs the tests",
    ". .venv/bin/activate": "the tests run in another directory, with their own PATH",
    "otelcol-contrib ": "it needs a collector; make test-otel brings one",
    "forktrace export kafka.arrows --otlp http": "the same",
    "forktrace top": "it is a screen, until a key ends it; test_top.py and test_top_recording.py press keys",
    "sudo forktrace top ": "it is a screen too",
    "jupyter ": "it opens a browser; another test runs the notebooks",
    "forktrace doctor --sudoers": "it names the places where forktrace lies",
    "make ": "make runs the tests, and some targets install what is missing",
}
UNTIL_CTRL_C: Final = ("forktrace ps --watch",)
STATUS: Final = {
    "forktrace doctor": (0, 78),  # 78: it has found something to complain about, such as in a container
    "forktrace ps --watch": (130,),
}

LONG_S: Final = 6 * PATIENCE_S  # for a whole page

_FENCE: Final = re.compile(r"^( *)```([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_NUMBER: Final = re.compile(r"[+-]?\d[\d.,:]*(?: ?(?:ms|s|min|us|%|KiB|kB|B)\b)?(?: \d+ s\b)?")
_RULE: Final = re.compile(r"─+")
_COMMAND_LINE: Final = re.compile(r"(?:\$ |(?:sudo )?(?:forktrace|apt-get|pip|python3?|make|git|jupyter) \S)")


class Block(NamedTuple):
    """A fenced block: its page, the words behind the fence, where its first line starts in the page, and its lines."""

    page: Path
    info: str
    start: int
    text: str


class Command(NamedTuple):
    """A command line of a page, and what the page shows below it."""

    page: Path
    text: str
    start: int  # of what is shown, in the page
    shown: str

    @property
    def is_run(self) -> bool:
        """Whether the tests run it."""
        return not self.text.startswith(tuple(NOT_RUN))

    @property
    def is_offline(self) -> bool:
        """Whether it prints the same on each machine: it reads a trace that lies in tests/data."""
        return any(path.name in shlex.split(self.text) for path in TRACES)

    @property
    def statuses(self) -> tuple[int, ...]:
        """The exit statuses that are right."""
        return STATUS.get(self.text.removeprefix("sudo "), (0,))


class Done(NamedTuple):
    """What a command that was run printed, on stdout and stderr, and its exit status."""

    command: Command
    printed: str
    status: int


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [Block(page, match[2].strip(), match.start(3), match[3]) for match in _FENCE.finditer(page.read_text())]


def commands(page: Path) -> list[Command]:
    """Return the command lines of a page, in order."""
    return [command for block in blocks(page) if block.info == "console" for command in _commands_of(block)]


def _commands_of(block: Block) -> Iterator[Command]:
    prompts = [match.start() for match in re.finditer(r"^\$ ", block.text, re.MULTILINE)]
    assert prompts[:1] == [0], f"{block.page.name}: a console block begins with a command"
    for start, end in zip(prompts, [*prompts[1:], len(block.text)], strict=True):
        line, _, shown = block.text[start:end].partition("\n")
        yield Command(block.page, line[2:], block.start + end - len(shown), shown)


def strays(page: Path) -> list[str]:
    """Return lines that look like commands and stand in blocks where nothing would run them."""
    lines = [line.strip() for block in blocks(page) if block.info != "console" for line in block.text.splitlines()]
    return [line for line in lines if _COMMAND_LINE.match(line)]


def files(page: Path) -> dict[str, str]:
    """Return the programs that a page shows, by their names."""
    named = [(block.info.split(), block.text) for block in blocks(page)]
    return {words[1]: text for words, text in named if len(words) == 2 and words[0] == "python"}


def shape(text: str) -> str:
    """Return what is the same whenever something is recorded: words and their order, not numbers, spaces and line ends."""
    return " ".join(_RULE.sub("─", _NUMBER.sub("N", text)).split())


def run(page: Path, folder: Path) -> list[Done]:
    """Run the commands of a page in an empty directory; nothing that they started is left."""
    todo = [command for command in commands(page) if command.is_run]
    _prepare(page, folder / "here")
    script = "\n".join([*(_step(number, command, folder) for number, command in enumerate(todo)), "wait"])
    mark = str(uuid.uuid4())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    path = f"{_programs(folder)}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment |= {"PYTHONPATH": str(ROOT), "PATH": path, MARK: mark, "COLUMNS": "80", "TZ": "UTC"}
    here = folder / "here"
    try:
        (folder / "page.sh").write_text(script)  # a file: pgrep -f must not find it
        subprocess.run(
            ["bash", folder / "page.sh"], cwd=here, env=environment, check=False, stdin=subprocess.DEVNULL, timeout=LONG_S
        )
    finally:
        left = processes_with(f"{MARK}={mark}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    assert not left, f"{page.name} leaves behind: {left}"
    return [_done(number, command, folder) for number, command in enumerate(todo)]


def _prepare(page: Path, here: Path) -> None:
    here.mkdir(parents=True)
    for trace in TRACES:
        (here / trace.name).write_bytes(trace.read_bytes())
    for name, text in (files(TUTORIAL) | files(page)).items():
        (here / name).write_text(text)


def _programs(folder: Path) -> Path:
    """Make what the pages call by name: forktrace is that of the tests, and root needs no sudo."""
    programs = folder / "bin"
    programs.mkdir()
    for name, line in {"forktrace": f"{shlex.quote(sys.executable)} -m forktrace", "sudo": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {line} "$@"\n')
        (programs / name).chmod(0o755)
    (folder / "here/.venv").mkdir()
    (folder / "here/.venv/bin").symlink_to(programs)
    return programs


def _step(number: int, command: Command, folder: Path) -> str:
    """Return the shell's lines for a command. One that looks at processes is repeated until there is something to see."""
    out = shlex.quote(str(folder / f"{number}.out"))
    interrupted = "timeout --preserve-status --signal INT 5 " if command.text in UNTIL_CTRL_C else ""
    line = f"{{ {interrupted}{command.text}\n}} > {out} 2>&1"
    if command.text.startswith("ps "):
        enough = f"[ $(wc -l < {out}) -ge {len(command.shown.splitlines())} ] && grep -q defunct {out}"
        line = f"for turn in {{1..600}}; do {line}; {enough} && break; sleep 0.1; done"
    return f"{line}\necho $? > {shlex.quote(str(folder / f'{number}.status'))}"


def _done(number: int, command: Command, folder: Path) -> Done:
    return Done(command, (folder / f"{number}.out").read_text(), int((folder / f"{number}.status").read_text()))


def pictures_of_notebooks(page: Path) -> dict[Path, bytes]:
    """Return the pictures that a page takes from notebooks: `04-exits-2.png` is the second one of 04-exits.ipynb."""
    found = {}
    for notebook, number in re.findall(r"\((\d\d-[a-z]+)-(\d+)\.png\)", page.read_text()):
        cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
        data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
        pictures = [each["image/png"] for each in data if "image/png" in each]
        found[page.parent / f"{notebook}-{number}.png"] = base64.b64decode(pictures[int(number) - 1])
    return found


def shown_as(command: Command, printed: str) -> str:
    """Return what the page has to show of this output: its lines without the spaces at their ends."""
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines())


def rewrite(page: Path, folder: Path) -> None:
    """Write into a page what its commands print now, where it shows anything, and beside it the pictures that they draw."""
    text = page.read_text()
    for done in reversed(run(page, folder)):
        assert done.status in done.command.statuses, f"$ {done.command.text}\nstatus {done.status}\n{done.printed}"
        start, end = done.command.start, done.command.start + len(done.command.shown)
        if done.command.shown:
            text = text[:start] + shown_as(done.command, done.printed) + text[end:]
    page.write_text(text)
    drawn = {page.parent / f"{page.stem}-{path.name}": path.read_bytes() for path in (folder / "here").glob("*.png")}
    for path, picture in (drawn | pictures_of_notebooks(page)).items():
        if f"({path.name})" in text:
            path.write_bytes(picture)
