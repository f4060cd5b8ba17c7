"""The zombies of this moment, by parent, for a terminal, a pipe, or another program."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from forktrace.trace.snapshot import EXACT, Limit, Parent, Snapshot, Zombie
from forktrace.trace.words import about, count, printable
from forktrace.views.text.screen import Grid, print_grid, print_text
from forktrace.views.words import shorten

MOST_PARENTS: Final = 10
MOST_ZOMBIES: Final = 10  # of each parent, the oldest
MOST_COMMAND: Final = 100

_AROUND: Final = 5  # lines of a picture besides its parents: two of titles, what is left out, a headline, the cursor's
_GROWTH_COLUMNS: Final = (
    *(("zombies", "right"), ("growth", "right"), ("forks fail in", "right"), ("room", "right")),
    *(("oldest", "right"), ("parent", "left")),
)
_STATES: Final = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a device or a file system, not to be interrupted",
    "T": "stopped: it reaps nothing until it gets SIGCONT",
    "t": "stopped by a tracer, such as strace or a debugger: it reaps nothing now",
    "I": "idle",
    "Z": "main thread ended, others live",
}
IS_INIT: Final = "PID 1 of its namespace: it inherits the orphans of all others there, and has to reap them as an init does"
NOT_YET: Final = "ps(1) shows it as a zombie, but nobody can reap it before {} too"


def show(console: Console, seen: Snapshot) -> None:
    """Print the zombies of each parent, the oldest first, what the parent does about them, and the room that they leave."""
    print_text(console, Text(headline(seen), "bold"))
    for parent in seen.parents[:MOST_PARENTS]:
        console.print()
        print_text(console, Text.assemble((name(parent), "bold"), f": {count(len(parent.zombies), 'zombie')}"))
        for title, text in about_parent(parent):
            print_text(console, text, f"  {title:<9}")
        print_zombies(console, parent.zombies)
    if rest := seen.parents[MOST_PARENTS:]:
        zombies = sum(len(parent.zombies) for parent in rest)
        console.print(f"\nand {count(len(rest), 'more parent', 'more parents')} with {count(zombies, 'zombie')}")
    if others := [*half_dead(seen), *hidden(seen)]:
        console.print()
    for line in others:
        print_text(console, Text(line))


def show_growth(console: Console, seen: Snapshot, lines: int | None = None) -> None:
    """Print a line for each parent, those whose zombies grow fastest first; with `lines`, as many as fit in so many lines."""
    print_text(console, Text(f"{datetime.fromtimestamp(seen.time):%H:%M:%S}  {headline(seen)}", "bold"))
    notes = [*half_dead(seen), *hidden(seen)]
    parents = sorted(seen.parents, key=lambda one: (-(one.growth or 0), -len(one.zombies), one.pid))
    most = len(parents) if lines is None else max(lines - _AROUND - len(notes), 1)
    if parents:
        rows = [_growth_cells(one) for one in parents[:most]]
        styles = ["red" if one.fails_in_s is not None else None for one in parents[:most]]
        print_grid(console, Grid(_GROWTH_COLUMNS, rows, "parent", 12, styles, ("oldest", "room")))
    if len(parents) > most:
        console.print(f"and {count(len(parents) - most, 'more parent', 'more parents')}")
    for line in notes:
        print_text(console, Text(line))


def _growth_cells(parent: Parent) -> list[str]:
    growth = "-" if parent.growth is None or parent.growth_s is None else f"{parent.growth:+,} in {about(parent.growth_s)}"
    fails = "-" if parent.fails_in_s is None else f"~{about(parent.fails_in_s)}"
    room = f"{parent.limits[0].left:,}" if parent.limits else "?"
    return [f"{len(parent.zombies):,}", growth, fails, room, age(parent.zombies[0]), name(parent)]


def show_live(console: Console, look: Callable[[], Snapshot], rest: Callable[[], None]) -> None:
    """Show what `look` returns in place on a terminal, again after each `rest`, until one of them raises."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(picture(console, partial(show_growth, seen=look(), lines=console.height)), refresh=True)
            rest()


def as_json(seen: Snapshot, *, one_line: bool) -> str:
    """Return everything that is known as JSON; docs/commands.md describes the fields."""
    document = {"zombies": seen.zombies} | dataclasses.asdict(seen)
    return json.dumps(document, indent=None if one_line else 2, allow_nan=False)


def headline(seen: Snapshot) -> str:
    """Return how many zombies there are among how many processes."""
    among = f"among {count(seen.processes, 'process')}"
    if not seen.zombies:
        return f"No zombies {among}."
    return f"{count(seen.zombies, 'zombie')} of {count(len(seen.parents), 'parent')}, {among}"


def name(parent: Parent) -> str:
    """Return `4711 python consumer.py`, without anything that could steer a terminal."""
    if parent.pid == 0:
        return "A parent outside of this PID namespace"
    if parent.comm is None:
        return f"{parent.pid}, which is hidden from you"
    program, *arguments = parent.argv or (f"[{parent.comm}]",)
    command = " ".join([program.rpartition("/")[2] or program, *arguments])
    return f"{parent.pid} {shorten(printable(command), MOST_COMMAND)}"


def half_dead(seen: Snapshot) -> Iterator[str]:
    """Yield which processes look like zombies, and are none yet."""
    for one in seen.half_dead[:MOST_PARENTS]:
        yield f"No zombie: {one.pid} {printable(one.comm)}, whose main thread has ended; {not_yet(one.threads)}."
    if len(seen.half_dead) > MOST_PARENTS:
        yield f"and {count(len(seen.half_dead) - MOST_PARENTS, 'more process')} of which only the main thread has ended"


def not_yet(threads: int) -> str:
    """Return why a process whose main thread has ended cannot be reaped, `threads` being those that live."""
    return NOT_YET.format("its other thread ends" if threads == 1 else f"its {threads:,} other threads end")


def hidden(seen: Snapshot) -> Iterator[str]:
    """Yield what could not be seen, in words."""
    if seen.others_hidden:
        yield "Not seen: processes of other users, which /proc hides here (hidepid); root sees them."
    if seen.unreadable:
        yield f"Not seen: {count(seen.unreadable, 'process')} that /proc does not show to you (hidepid); root sees them."
    if seen.outside_hidden:
        yield "Not seen: what is outside of this PID namespace, as of a container, and the limits there."


def picture(console: Console, show: Callable[[Console], None]) -> Text:
    """Return what `show` prints, for this console's width and colours."""
    page = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=console.width,
        color_system=console.color_system,  # type: ignore[arg-type]
        no_color=console.no_color,
        highlight=False,
    )
    with page.capture() as capture:
        show(page)
    return Text.from_ansi(capture.get().rstrip())


def about_parent(parent: Parent) -> Iterator[tuple[str, Text]]:
    """Yield what a parent does about its zombies, and the room that they leave, each with a title."""
    if parent.ns_pid == 1:
        yield "is", Text(IS_INIT)
    if parent.state is not None:
        words = [_STATES.get(parent.state, parent.state)]
        words += [count(parent.threads, "thread")] if parent.threads else []
        words += [f"user {printable(parent.user)}"] if parent.user else []
        words += [f"started {about(parent.elapsed_s)} ago"] if parent.elapsed_s is not None else []
        yield "state", Text("; ".join(words), "yellow" if parent.state in "TtD" else "")
    if parent.sigchld is not None:
        yield "SIGCHLD", Text(_sigchld(parent))
    if parent.limits:
        limit = parent.limits[0]
        yield "room", Text(_room(limit), "red" if limit.left == 0 else "")
    if parent.growth is not None and parent.growth_s is not None:
        yield "growth", Text(_growth(parent, parent.growth, parent.growth_s), "red" if parent.fails_in_s is not None else "")


def _sigchld(parent: Parent) -> str:
    blocked, threads = parent.sigchld_blocked_threads or 0, max(parent.threads or 1, 1)
    where = "blocked" if threads == 1 else f"blocked in all {threads} threads"
    pending = "; one is pending" if parent.sigchld_pending else ""
    if parent.sigchld == "ignored":
        return "ignored: children that end now leave no zombie, these ended before"
    if blocked >= threads and parent.sigchld == "handled":
        return f"handled, but {where}: the handler does not run{pending}"
    if blocked >= threads:
        return f"{where}, without a handler{pending}"
    if parent.sigchld == "handled":
        return f"handled{f', blocked in {blocked} of {threads} threads' if blocked else ''}{pending}"
    return "default: they stay until it waits for them"


def _room(limit: Limit) -> str:
    whole = f"{_name(limit)}: {'at least ' if limit.used_is_least else ''}{limit.used:,} of {limit.limit:,} used"
    if limit.left == 0:
        return f"none: forks fail now ({whole})"
    return f"{'at most ' if limit.used_is_least else ''}{count(limit.left, 'more process')} or threads ({whole})"


def _name(limit: Limit) -> str:
    return f"{limit.name} of {printable(limit.where)}" if limit.where else limit.name


def _growth(parent: Parent, growth: int, growth_s: float) -> str:
    words = f"{growth:+,} in {about(growth_s)}" if growth else f"none in {about(growth_s)}"
    if parent.fails_in_s is None or parent.fails_at is None:
        return words
    return f"{words}; at this rate forks begin to fail in ~{about(parent.fails_in_s)} ({_name(parent.fails_at)})"


def print_zombies(console: Console, zombies: tuple[Zombie, ...]) -> None:
    """Print the oldest of a parent's zombies."""
    rows = [(str(one.pid), age(one), _ending(one), printable(one.comm)) for one in zombies[:MOST_ZOMBIES]]
    columns = (("pid", "right"), ("age", "right"), ("ended", "left"), ("command", "left"))
    print_grid(console, Grid(columns, rows, stretch="command", least=8))
    if len(zombies) > MOST_ZOMBIES:
        console.print(f"and {len(zombies) - MOST_ZOMBIES:,} more, the youngest {age(zombies[-1])}")
    if any(row[2] == "?" for row in rows):
        console.print("?: only its own user and root may see how it ended")


def age(zombie: Zombie) -> str:
    """Return how long a zombie has been one, `~7 s` where that is estimated, `at most 9 s` where it is a bound."""
    if zombie.age_s is None:
        return f"at most {about(_rounded_up(zombie.age_most_s))}"
    return f"{'' if zombie.age_is == EXACT else '~'}{about(zombie.age_s)}"


def _rounded_up(seconds: float) -> float:
    """Rounded up so far that `about` does not round it down."""
    size = next(size for limit, size in ((100, 1), (6000, 60), (172_800, 3600), (math.inf, 86_400)) if seconds < limit)
    return math.ceil(seconds / size) * size


def _ending(zombie: Zombie) -> str:
    if zombie.term_signal is not None:
        return f"{zombie.term_signal}, core dumped" if zombie.core_dumped else zombie.term_signal
    return "?" if zombie.exit_code is None else f"exited {zombie.exit_code}"
