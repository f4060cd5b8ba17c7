"""How the zombies of now are shown, and written as JSON."""

from __future__ import annotations

import dataclasses
import io
import json
from datetime import datetime
from typing import Any

import pytest
from rich.console import Console

from forktrace.trace.snapshot import HalfDead, Limit, Parent, Snapshot, Zombie
from forktrace.trace.words import about
from forktrace.views.text import ps

ZOMBIE = Zombie(4711, "python", 70.0, 61.2, "estimated", 0.0, 70.0, 0, None, False)
PARENT = Parent(
    pid=4700,
    ns_pid=4700,
    comm="python",
    argv=("/usr/bin/python", "consumer.py"),
    uid=1000,
    user="alice",
    elapsed_s=7300.0,
    state="S",
    threads=3,
    sigchld="default",
    sigchld_blocked_threads=0,
    sigchld_pending=False,
    zombies=(ZOMBIE,),
    growth=None,
    growth_s=None,
    limits=(Limit("pids.max", "/consumer", 100, 12, 88, False), Limit("pid_max", "", 32768, 500, 31968, False)),
    fails_in_s=None,
    fails_at=None,
)
SEEN = Snapshot(1_795_453_262.3, 25_652_748_480_663, 312, 0, False, False, (PARENT,))


def shown(seen: Snapshot, width: int = 100) -> list[str]:
    """What is printed, line by line."""
    file = io.StringIO()
    ps.show(Console(file=file, width=width), seen)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def of(**more: Any) -> list[str]:
    """What is printed of a parent that differs."""
    return shown(dataclasses.replace(SEEN, parents=(dataclasses.replace(PARENT, **more),)))


def test_a_parent() -> None:
    """Its command, state, what it does about SIGCHLD, the tightest limit, and its zombies."""
    assert shown(SEEN) == [
        "1 zombie of 1 parent, among 312 processes",
        "",
        "4700 python consumer.py: 1 zombie",
        "  state    sleeping; 3 threads; user alice; started 2 h ago",
        "  SIGCHLD  default: they stay until it waits for them",
        "  room     88 more processes or threads (pids.max of /consumer: 12 of 100 used)",
        " pid     age   ended      command",
        "─────────────────────────────────",
        "4711   ~61 s   exited 0   python",
    ]


def test_no_zombies() -> None:
    """One sentence, which says how much was looked at, and what was not."""
    assert shown(dataclasses.replace(SEEN, parents=())) == ["No zombies among 312 processes."]
    lines = shown(dataclasses.replace(SEEN, parents=(), others_hidden=True, outside_hidden=True, unreadable=2))
    assert [line.partition(",")[0] for line in lines[2:]] == [
        "Not seen: processes of other users",
        "Not seen: 2 processes that /proc does not show to you (hidepid); root sees them.",
        "Not seen: what is outside of this PID namespace",
    ]


def test_nothing_steers_the_terminal() -> None:
    """Names and arguments of other programs, their cgroups and users are escaped."""
    hostile = "a\x1b[2J\nb\u202e"
    limit = Limit("pids.max", f"/{hostile}", 10, 1, 9, False)
    zombie = dataclasses.replace(ZOMBIE, comm=hostile)
    for argv in ((hostile, hostile), None):
        lines = of(comm=hostile, argv=argv, user=hostile, limits=(limit,), zombies=(zombie,))
        assert len(lines) == 9
        text = "\n".join(lines)
        assert text.count("a\\x1b[2J\\nb\\u202e") == (4 if argv is None else 5)
        assert not {"\x1b", "\u202e"} & set(text)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"sigchld": "handled"}, "handled"),
        ({"sigchld": "handled", "sigchld_blocked_threads": 1}, "handled, blocked in 1 of 3 threads"),
        (
            {"sigchld": "handled", "sigchld_blocked_threads": 3, "sigchld_pending": True},
            "handled, but blocked in all 3 threads: the handler does not run; one is pending",
        ),
        ({"sigchld_blocked_threads": 1, "threads": 1}, "blocked, without a handler"),
        ({"sigchld": "ignored"}, "ignored: children that end now leave no zombie, these ended before"),
    ],
)
def test_sigchld(more: dict[str, Any], words: str) -> None:
    """What becomes of the signal that tells of an end."""
    assert f"  SIGCHLD  {words}" in of(**more)


def test_states() -> None:
    """A parent that stands still cannot reap, and that is said."""
    assert (
        of(state="T", user=None)[3] == "  state    stopped: it reaps nothing until it gets SIGCONT; 3 threads; started 2 h ago"
    )


def test_an_unseen_parent() -> None:
    """Nothing is said of it, its zombies are listed."""
    gone = dict.fromkeys(("comm", "argv", "uid", "user", "elapsed_s", "state", "threads", "sigchld"))
    assert of(**gone, limits=())[2:4] == ["4700, which is hidden from you: 1 zombie", " pid     age   ended      command"]
    assert of(**gone, limits=(), pid=0)[2] == "A parent outside of this PID namespace: 1 zombie"


def test_room() -> None:
    """None is left, or less than can be seen."""
    assert of(limits=(Limit("RLIMIT_NPROC", "alice", 50, 50, 0, False),))[5] == (
        "  room     none: forks fail now (RLIMIT_NPROC of alice: 50 of 50 used)"
    )
    assert of(limits=(Limit("pid_max", "", 1000, 50, 650, True),))[5] == (
        "  room     at most 650 more processes or threads (pid_max: at least 50 of 1,000 used)"
    )


def test_growth() -> None:
    """Under --watch: how many more, in how long, and when that ends."""
    assert "  growth   none in 42 s" in of(growth=0, growth_s=42.0)
    assert "  growth   -1 in 42 s" in of(growth=-1, growth_s=42.0)
    assert "  growth   +12 in 42 s; at this rate forks begin to fail in ~5 min (pids.max of /consumer)" in of(
        growth=12, growth_s=42.0, fails_in_s=308.0, fails_at=PARENT.limits[0]
    )


def test_ages() -> None:
    """`~` is an estimate, `at most` a bound, rounded up; without either it is known."""
    known = dataclasses.replace(ZOMBIE, age_is="seen")
    bound = dataclasses.replace(ZOMBIE, age_s=None, age_is="unknown", age_most_s=6030.0)
    assert of(zombies=(known,))[8] == "4711   61 s   exited 0   python"
    assert of(zombies=(bound,))[8].startswith("4711   at most 2 h ")


def test_endings() -> None:
    """A code, a signal, a core dump; what is kept from this user is said."""
    ways = [{"exit_code": 3}, {"exit_code": None, "term_signal": "SIGKILL"}]
    ways += [{"exit_code": None, "term_signal": "SIGSEGV", "core_dumped": True}, {"exit_code": None}]
    lines = of(zombies=tuple(dataclasses.replace(ZOMBIE, **way) for way in ways))
    assert [line[15:].rpartition("python")[0].strip() for line in lines[8:12]] == [
        "exited 3",
        "SIGKILL",
        "SIGSEGV, core dumped",
        "?",
    ]
    assert lines[12] == "?: only its own user and root may see how it ended"


def test_many() -> None:
    """Of many zombies the oldest are listed, of many parents those with most."""
    many = dataclasses.replace(PARENT, zombies=(ZOMBIE,) * 1234)
    lines = shown(dataclasses.replace(SEEN, parents=(many,) * 12))
    assert lines[0] == "14,808 zombies of 12 parents, among 312 processes"
    assert lines.count("and 1,224 more, the youngest ~61 s") == 10
    assert lines[-1] == "and 2 more parents with 2,468 zombies"


@pytest.mark.parametrize("width", [20, 40])
def test_narrow_terminals(width: int) -> None:
    """Nothing is cut."""
    lines = shown(SEEN, width)
    assert max(map(len, lines)) <= width
    assert "4711" in " ".join(lines)
    assert "exited 0" in " ".join(lines)


def test_json() -> None:
    """All that is known, in one document, or in one line."""
    text = ps.as_json(SEEN, one_line=False)
    assert json.loads(text) == json.loads(json.dumps({"zombies": 1} | dataclasses.asdict(SEEN)))
    assert "\n" not in ps.as_json(SEEN, one_line=True)


def test_live() -> None:
    """On a terminal the picture is replaced by the next, and the last one stays."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, height=50)
    looks = iter([SEEN, dataclasses.replace(SEEN, processes=999)])

    def rest() -> None:
        if next(rests, None) is None:
            raise KeyboardInterrupt

    rests = iter([1])
    with pytest.raises(KeyboardInterrupt):
        ps.show_live(console, lambda: next(looks), rest)
    assert f"{datetime.fromtimestamp(SEEN.time):%H:%M:%S}  1 zombie of 1 parent" in file.getvalue()
    first, last = file.getvalue().index("312 processes"), file.getvalue().rindex("999 processes")
    assert "\x1b[1A\x1b[2K" in file.getvalue()[first:last]
    assert "1 zombie of 1 parent" in file.getvalue()[last - 40 : last]


def growing(seen: Snapshot, lines: int | None = None, width: int = 100) -> list[str]:
    """What --watch prints."""
    file = io.StringIO()
    ps.show_growth(Console(file=file, width=width), seen, lines)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_watching_many_parents() -> None:
    """A line for each parent, the one that grows fastest first, as many as fit, and how many do not."""
    calm = [dataclasses.replace(PARENT, pid=100 + number, growth=0, growth_s=4.0) for number in range(30)]
    fast = dataclasses.replace(PARENT, pid=99, growth=7, growth_s=4.0, fails_in_s=50.0, fails_at=PARENT.limits[0])
    seen = dataclasses.replace(SEEN, parents=(*calm, fast))
    lines = growing(seen)
    assert lines[1].split() == ["zombies", "growth", "forks", "fail", "in", "room", "oldest", "parent"]
    assert lines[3].split() == ["1", "+7", "in", "4", "s", "~50", "s", "88", "~61", "s", "99", "python", "consumer.py"]
    assert lines[4].split()[:6] == ["1", "+0", "in", "4", "s", "-"]
    assert len(lines) == 3 + 31
    for height in (8, 12, 24):
        few = growing(seen, height)
        assert len(few) <= height - 1
        assert few[3] == lines[3]
        assert few[-1] == f"and {31 - (height - 5)} more parents"
    assert max(map(len, growing(seen, width=50))) <= 50
    assert growing(SEEN)[3].split()[:2] == ["1", "-"]


def test_an_init() -> None:
    """PID 1 of a namespace is told to be the one who inherits orphans."""
    (said,) = [line for line in of(ns_pid=1) if line.startswith("  is ")]
    assert said == "  is       PID 1 of its namespace: it inherits the orphans of all others there, and has to reap them"
    assert not any("PID 1" in line for line in of())


def test_a_main_thread_that_has_ended() -> None:
    """It looks like a zombie in ps(1), and is none: that is said, with what it waits for."""
    lines = shown(dataclasses.replace(SEEN, parents=(), half_dead=(HalfDead(4800, "job\x1b", 1, 1),)), 200)
    assert lines[2:] == [
        r"No zombie: 4800 job\x1b, whose main thread has ended; ps(1) shows it as a zombie, but nobody can reap it before "
        "its other thread ends too."
    ]
    many = dataclasses.replace(SEEN, half_dead=tuple(HalfDead(pid, "job", 1, 3) for pid in range(12)))
    assert shown(many)[-1] == "and 2 more processes of which only the main thread has ended"


def test_about() -> None:
    """Two digits, whatever the size."""
    cases = [0.04, 0.94, 0.96, 42.4, 99, 101, 5999, 6001, 172_799, 172_801, 864_000]
    assert [about(seconds) for seconds in cases] == [
        *("0.0 s", "0.9 s", "1 s", "42 s", "99 s", "2 min", "100 min", "2 h", "48 h", "2 d", "10 d"),
    ]
