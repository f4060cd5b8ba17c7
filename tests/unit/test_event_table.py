"""Every event as a row, and as a line."""

from __future__ import annotations

import pandas as pd
from traces import MS, cells, recording, target

from forktrace.trace import events as ev
from forktrace.views.text.events import lines

ROWS = [
    target(),
    ev.exec_(1 * MS, 100, ["python", "a b.py\x1b"], detail="argv cut"),
    ev.fork(2 * MS, 200, by=100, by_tid=101, comm="py\x1b[31m", ns_pid=7, signal=0),
    ev.fork(3 * MS, 300, by=200, parent=100, comm="x"),
    ev.fork(4 * MS, 400, by=200, comm="x"),
    ev.fork_failed(5 * MS, 100, 11, detail="pids.max", count=3),
    ev.signal(6 * MS, 200, 15, by=300),
    ev.exit_(7 * MS, 200, 15 | 0x80, parent=100, adopter=1),
    ev.zombie(8 * MS, 200, parent=100),
    ev.wait(9 * MS, None, by=100, target="any", result=10),
    ev.wait(9 * MS, 300, by=100, target="any", call="waitid", status=0x137F, flags=0x1000002, target_pid=None),
    ev.reap(10 * MS, 200, by=100, options=1, empty=3),
    ev.autoreap(11 * MS, 300, "nocldwait"),
    ev.reap(12 * MS, 400, by=1, call="unseen"),
    ev.waits(13 * MS, 4, by=100, target="any", call="wait4", flags=1),
    ev.lost(14 * MS, 2, "fork"),
]


def test_rows() -> None:
    """Every event has a row, in time order, with who acted and the rest in words; reparenting is a row of its own."""
    table = recording(*ROWS).events()
    assert cells(table, "time_ns", "kind", "id", "by_id", "by_pid", "by_tid", "call", "status", "detail") == [
        (0, "fork", 0, None, 50, 50, "clone", None, "target"),
        (1 * MS, "exec", 0, None, None, None, None, None, "python 'a b.py\x1b' ..."),
        (2 * MS, "fork", 1, 0, 100, 101, "clone", None, "sees itself as 7, exit signal none"),
        (3 * MS, "fork", 2, 1, 200, 200, "clone", None, "child of 100"),
        (4 * MS, "fork", 3, 1, 200, 200, "clone", None, None),
        (5 * MS, "fork-failed", 0, 0, 100, 100, "clone", None, "EAGAIN (pids.max of 3)"),
        (6 * MS, "signal", 1, 2, 300, 300, None, None, "SIGTERM"),
        (7 * MS, "exit", 1, None, None, None, None, 0x8F, "killed by SIGTERM, core dumped"),
        (8 * MS, "zombie", 1, None, None, None, None, None, "parent 100 notified"),
        (8 * MS, "reparent", 3, None, 1, None, None, None, "from 200 to 1"),
        (9 * MS, "wait", None, 0, 100, 100, "wait4", None, "wait4(any) = ECHILD"),
        (
            9 * MS,
            "wait",
            2,
            0,
            100,
            100,
            "waitid",
            0x137F,
            "waitid(any, WSTOPPED|WNOWAIT) saw 300 stopped by SIGSTOP, left a zombie",
        ),
        (10 * MS, "reap", 1, 0, 100, 100, "wait4", None, "wait4(200, WNOHANG) after 3 empty calls"),
        (11 * MS, "autoreap", 2, None, None, None, None, None, "SA_NOCLDWAIT"),
        (12 * MS, "reap", 3, None, 1, 1, "unseen", None, "not seen, released before this"),
        (13 * MS, "waits", None, 0, 100, 100, "wait4", None, "wait4(any, WNOHANG): 4 calls so far, empty"),
        (14 * MS, "lost", None, None, None, None, None, None, "2 fork"),
        (14 * MS, "end", None, None, None, None, None, None, None),
    ]
    assert list(table.columns) == "time_ns kind id by_id by_pid by_tid call status site stack detail".split()
    assert table.dtypes.astype(str).to_dict() == {
        **dict.fromkeys(("id", "by_id", "by_pid", "by_tid", "status"), "Int64"),
        **dict.fromkeys(("kind", "call"), "category"),
        **dict.fromkeys(("site", "stack", "detail"), "string"),
        "time_ns": "int64",
    }


def test_lines() -> None:
    """A line says when, who, what and the rest; nothing in a name reaches the terminal as a control character."""
    written = list(lines(recording(*ROWS)))
    assert (
        written[2]
        == r"     +0.002000  200 py\x1b[31m  fork         by 100 python thread 101: clone: sees itself as 7, exit signal none"
    )
    assert written[9] == r"     +0.008000  400 x           reparent     by 1: from 200 to 1"
    assert written[12] == r"     +0.010000  200 py\x1b[31m  reap         by 100 python: wait4(200, WNOHANG) after 3 empty calls"
    assert written[16] == r"     +0.014000  -               lost         2 fork"
    assert all(line.isprintable() for line in written)


def test_lines_name_the_place() -> None:
    """The line of the program stands behind who acted; of an exit and a wait of one's own, by itself."""
    made = recording(target(), ev.fork(1, 500, by=100, comm="x"), ev.exit_(2, 500))
    made.events()["site"] = pd.array([pd.NA, "a\x1b.py:3 f", "b.py:4 g", pd.NA], dtype="string")
    written = [line.partition("fork ")[2].strip() or line.partition("exit ")[2].strip() for line in lines(made)]
    assert written[1:3] == [r"by 100 python a\x1b.py:3 f: clone", "at b.py:4 g: exited 0"]


def test_a_chain_of_adopters() -> None:
    """Each handing over of a child is a row, at the notification of the parent that died; a later sighting changes none."""
    rows = [target(), ev.fork(1 * MS, 200, by=100), ev.fork(2 * MS, 300, by=200), ev.fork(3 * MS, 400, by=300)]
    rows += [
        ev.exit_(4 * MS, 300, adopter=200),
        ev.zombie(5 * MS, 300),
        ev.exit_(6 * MS, 200, adopter=1),
        ev.zombie(7 * MS, 200),
    ]
    table = recording(*rows, ev.exit_(8 * MS, 400, parent=1)).events()
    moved = table[table["kind"] == "reparent"]
    assert cells(moved, "time_ns", "id", "by_id", "by_pid", "detail") == [
        (5 * MS, 3, 1, 200, "from 300 to 200"),
        (7 * MS, 2, None, 1, "from 200 to 1"),
        (7 * MS, 3, None, 1, "from 200 to 1"),
    ]


def test_an_adopter_that_the_kernel_named() -> None:
    """Where the child's own exit row names another adopter than its dead parent's, the handing over went to that one."""
    rows = [target(), ev.fork(1 * MS, 200, by=100), ev.fork(2 * MS, 300, by=200), ev.exit_(4 * MS, 200, adopter=1)]
    table = recording(*rows, ev.exit_(8 * MS, 300, parent=100)).events()
    moved = table[table["kind"] == "reparent"]
    assert cells(moved, "time_ns", "id", "by_id", "by_pid") == [(4 * MS, 2, 0, 100)]


def details(*rows: ev.Row) -> list[object]:
    """Return the words of these rows."""
    return [text for (text,) in cells(recording(*rows, closed=False).events(), "detail")]


def test_what_is_met_on_the_way() -> None:
    """Interpreters and source lines read as what they are, not as their row in the file."""
    rows = [ev.runtime(0, "/usr/bin/python3.11", "3.11.2", ["/usr/lib/python3.11"]), ev.source(1, "/srv/x.py", 33, "p.start()")]
    assert details(*rows) == ["Python 3.11.2 in /usr/bin/python3.11", "/srv/x.py:33  p.start()"]


def test_the_end_in_words() -> None:
    """The totals are words; what the trace does not say is left out."""
    totals = '{"events": {"fork": 3}, "lost": {"exit": 2}, "processes": 3, "still_running": 0}'
    assert details(ev.end(5, totals)) == ["3 processes, 0 still running, 2 exit lost"]
    assert details(ev.end(5, '{"processes": [], "lost": 7}')) == [None]


def test_one_call_is_no_calls() -> None:
    """A running total of one has no plural."""
    assert details(ev.waits(1, 1, by=100, call="wait4", target="any", flags=1)) == ["wait4(any, WNOHANG): 1 call so far, empty"]


def test_sites_and_stacks() -> None:
    """Each event has the stack of the thread that acted, and its site: of an exit the process's own."""
    stack = "/srv/a.py:7 main;/usr/lib/python3.11/os.py:1 x"
    rows = [target(), ev.exec_(1 * MS, 100, ["python", "-m", "os"])]
    rows += [ev.fork(2 * MS, 500, by=100, stack=stack), ev.exec_(3 * MS, 500, ["python", "x.py"])]
    rows += [ev.exit_(4 * MS, 500, stack=stack), ev.reap(5 * MS, 500, by=100, stack=stack)]
    table = recording(*rows).events()
    assert cells(table, "kind", "site", "stack")[2:6] == [
        ("fork", "os.py:1 x", stack),
        ("exec", None, None),
        ("exit", "a.py:7 main", stack),
        ("reap", "os.py:1 x", stack),
    ]
