"""The live screen: rows of parents, by textual's own pilot, and from looks that follow each other."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from recorded import forktrace_command
from terminal import Terminal
from test_ps_view import PARENT, SEEN, ZOMBIE
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from forktrace.now.main_threads import MainThread, MainThreads
from forktrace.service.parents import Parents, Recorded, Row
from forktrace.service.screen import Top, Why, site_of
from forktrace.trace.snapshot import Parent, Snapshot
from forktrace.trace.stacks import Frame

MAIN_THREAD = MainThread(
    (Frame("/srv/consumer.py", 33, "consume"), Frame("/usr/lib/python3.11/threading.py", 9, "wait")), "3.11.7"
)


class Script:
    """Looks that were made before; the last one stays. It stands in for a Watcher and for MainThreads."""

    def __init__(self, *looks: Snapshot) -> None:
        self.looks = list(looks)

    def look(self, also: Mapping[int, object]) -> Snapshot:
        """Return the next look."""
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def of(self, process: tuple[int, int]) -> MainThread:
        """Return the same for all."""
        return MAIN_THREAD

    def forget(self, others_than: set[tuple[int, int]]) -> None:
        """Nothing is kept."""


def parents_of(*looks: Snapshot, recorded: Callable[[], Mapping[int, Recorded]] | None = None) -> Parents:
    """What looks, one after the other, say."""
    script: Any = Script(*looks)
    return Parents(script, script, recorded)


def snapshot(at_s: float, **zombies: list[int]) -> Snapshot:
    """A look at a moment: the parents p1, p2, ..., each with zombies by number that were made with it."""
    found = []
    for place, (comm, pids) in enumerate(zombies.items()):
        ages = tuple(dataclasses.replace(ZOMBIE, pid=pid, elapsed_s=at_s + pid / 100, age_s=at_s + pid / 100) for pid in pids)
        parent = dataclasses.replace(PARENT, pid=100 + place, comm=comm, argv=(comm,), elapsed_s=at_s, zombies=ages)
        found.append(parent)
    found.sort(key=lambda one: -len(one.zombies))
    return dataclasses.replace(SEEN, boottime_ns=SEEN.boottime_ns + int(at_s * 1e9), parents=tuple(found))


def test_what_comes_and_goes_between_looks() -> None:
    """It is counted by number and start over the last minute, and not known after one look."""
    parents = parents_of(*(snapshot(at_s, a=pids) for at_s, pids in ((0, [1, 2]), (2, [2, 3]), (4, [3, 4, 5]), (64.5, [3]))))
    flows = []
    for _ in range(4):
        _, rows = parents.look()
        flows.append((rows[0].came, rows[0].went))
    assert flows == [(None, None), (1, 1), (3, 2), (0, 2)]


def test_what_a_recording_says_is_believed() -> None:
    """Of a parent that is recorded: also what no look can see."""
    told = Recorded(came=600, went=599, forks_s=10.0, cause="next-start")
    _, rows = parents_of(snapshot(0, a=[1], b=[]), recorded=lambda: {100: told}).look()
    assert [(row.came, row.went, row.forks_s, row.cause) for row in rows] == [
        (600, 599, 10.0, "next-start"),
        (None, None, None, ""),
    ]


def test_where_it_stands() -> None:
    """The innermost line of its own code, or why there is none."""
    row = Row(PARENT, None, None, None, "", MAIN_THREAD)
    assert site_of(row) == "consumer.py:33 consume"
    assert (
        site_of(dataclasses.replace(row, main_thread=MainThread(status="denied")))
        == "a line that only its own user and root may see"
    )


def test_a_process_that_may_be_looked_into() -> None:
    """Its main thread has frames; of one that is gone that is said."""
    with subprocess.Popen(
        [sys.executable, "-c", "import time\ndef rest():\n  print(flush=True)\n  time.sleep(60)\nrest()"],
        stdout=subprocess.PIPE,
    ) as one:
        assert one.stdout
        one.stdout.readline()
        main_threads = MainThreads()
        start = int(Path(f"/proc/{one.pid}/stat").read_text().rpartition(")")[2].split()[19])
        found = main_threads.of((one.pid, start))
        one.kill()
    assert [frame.name for frame in found.frames] == ["<module>", "rest"]
    assert main_threads.of((1 << 22, 1)).status == "gone"


def screen(test: Callable[[Counting, Pilot[None]], Awaitable[None]], parents: Parents, **more: Any) -> None:
    """Run a test with a screen of 80 columns and 24 lines, whose first look is over."""

    async def run() -> None:
        app = Counting(parents, every_s=0.05, **more)
        async with app.run_test(size=(80, 24)) as pilot:
            await settled(app, pilot)
            await test(app, pilot)

    asyncio.run(run())


async def settled(app: Counting, pilot: Pilot[None], looks: int = 2) -> None:
    """Wait until so many looks have been drawn, and what came of it."""
    wanted = app.drawn + looks
    while app.drawn < wanted:
        await pilot.pause(0.01)
    await pilot.pause()


class Counting(Top):
    """A screen that counts how often it was drawn."""

    drawn = 0

    def _draw(self) -> None:
        super()._draw()
        self.drawn += 1


def lines(app: Counting) -> list[list[str]]:
    """The cells of the table, row by row."""
    table = app.query_one(DataTable)
    return [[str(cell) for cell in table.get_row_at(place)] for place in range(table.row_count)]


def text(app: Counting, part: str) -> str:
    """What a part of the screen says."""
    return str(app.query_one(part, Static).render())


LOOKS = (snapshot(10, web=[1, 2, 3], batch=[4]), snapshot(12, web=[1, 2, 3], batch=[4, 5]))


def test_the_rows() -> None:
    """Most zombies first; what is not known is a dash; below, more of the parent under the cursor, and what cannot be seen."""

    async def test(app: Counting, pilot: Pilot[None]) -> None:
        assert lines(app) == [
            ["3", "0", "0", "~12 s", "88", "-", "100 web"],
            ["2", "1", "0", "~12 s", "88", "-", "101 batch"],
        ]
        assert text(app, "#head").startswith("5 zombies of 2 parents, among 312 processes  sorted by zombies")
        assert text(app, "#about") == "100 web\nstands at consumer.py:33 consume"
        assert text(app, "#limits") == "forks are not seen"
        await pilot.press("down")
        assert text(app, "#about").startswith("101 batch\n")

    screen(test, parents_of(*LOOKS), limits=lambda: ["forks are not seen"])


def test_sorting_and_the_cursor() -> None:
    """s goes to the next column, a click on a title to that one; the cursor stays on its parent."""

    async def test(app: Counting, pilot: Pilot[None]) -> None:
        await pilot.press("s")
        assert [row[-1] for row in lines(app)] == ["101 batch", "100 web"]
        assert app.chosen
        assert app.chosen.parent.pid == 100
        assert "sorted by in/min" in text(app, "#head")
        await pilot.click(DataTable, offset=(3, 0))
        assert "sorted by zombies" in text(app, "#head")
        assert [row[-1] for row in lines(app)] == ["100 web", "101 batch"]

    screen(test, parents_of(*LOOKS))


def test_the_filter() -> None:
    """Letters narrow the rows down while they are typed, as text and not as markup; Enter goes back to the rows."""

    async def test(app: Counting, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"[b]b")
        assert lines(app) == []
        assert "only [b]b" in text(app, "#head")
        assert text(app, "#about") == "no parent of zombies"
        await pilot.press(*["backspace"] * 4, *"bat")
        assert [row[-1] for row in lines(app)] == ["101 batch"]
        await pilot.press("enter", "s")
        assert "sorted by in/min; only bat" in text(app, "#head")

    screen(test, parents_of(*LOOKS))


def test_frozen() -> None:
    """Space stops it, and space lets it go on."""
    script = [snapshot(10, web=[1]), snapshot(12, web=[1]), snapshot(14, web=[1])]

    async def test(app: Counting, pilot: Pilot[None]) -> None:
        await pilot.press("space")
        parents = parents_of(snapshot(16, web=[1, 2, 3, 4]))
        app._parents = parents
        await pilot.pause(0.3)
        assert lines(app)[0][0] == "1"
        assert text(app, "#head").endswith("; frozen")
        await pilot.press("space")
        await settled(app, pilot)
        assert lines(app)[0][0] == "4"

    screen(test, parents_of(*script))


def test_why_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter shows what `why -p` says at once, or that there is nothing more to say."""
    monkeypatch.setattr(Why, "_text", lambda self, width: f"about {self._pid} on {width}")

    async def test(app: Counting, pilot: Pilot[None]) -> None:
        await pilot.press("down", "enter")
        await pilot.pause(0.2)
        assert isinstance(app.screen, Why)
        assert str(app.screen.query_one(Static).render()) == "about 101 on 68"
        await pilot.press("escape")
        assert not isinstance(app.screen, Why)

    screen(test, parents_of(*LOOKS))


def test_writing_the_last_minute() -> None:
    """w writes it, where there is a recording; where there is none it says what to type."""
    written = []

    async def without(app: Counting, pilot: Pilot[None]) -> None:
        await pilot.press("w")
        await pilot.pause()
        assert [one.message for one in app._notifications] == [
            "nothing is recorded: sudo forktrace top -p PID, or --cgroup PATH"
        ]

    async def recorded(app: Counting, pilot: Pilot[None]) -> None:
        await pilot.press("w")
        await pilot.pause()
        assert [one.message for one in app._notifications] == ["wrote it"]

    screen(without, parents_of(*LOOKS))
    screen(recorded, parents_of(*LOOKS), keep=lambda: written.append(1) or "wrote it")
    assert written == [1]


def test_names_cannot_steer_the_screen() -> None:
    """A name with escapes or markup is shown as it is spelt."""
    nasty: Parent = dataclasses.replace(PARENT, argv=("\x1b[2J[red]x",))

    async def test(app: Counting, pilot: Pilot[None]) -> None:
        assert lines(app)[0][-1] == r"4700 \x1b[2J[red]x"
        assert text(app, "#about").startswith(r"4700 \x1b[2J[red]x")

    screen(test, parents_of(dataclasses.replace(SEEN, parents=(nasty,))))


def test_on_a_terminal_and_where_there_is_none() -> None:
    """The screen is there until q; without a terminal a line says what to type."""
    environment = {"PATH": os.defpath, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[2])}
    terminal = Terminal(forktrace_command("top"), environment)
    terminal.until("sorted by zombies")
    terminal.press(b"q")
    assert terminal.wait() == 0
    done = subprocess.run(forktrace_command("top"), env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "forktrace: top needs a terminal\n  forktrace ps --watch writes to a pipe\n"
