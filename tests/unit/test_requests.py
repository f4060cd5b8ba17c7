"""Which line asked a fork server for which child."""

from __future__ import annotations

from typing import Any

import pytest
from test_starts import LIB
from traces import MS, cells, recording, target

from forktrace.analysis.causes.names import Names
from forktrace.analysis.gate.figures import Items
from forktrace.analysis.gate.limits import BY_NAME
from forktrace.trace import events as ev
from forktrace.views.pictures.key import starts
from forktrace.views.pictures.rows import row_names
from forktrace.views.text.report_tables import zombie_table
from forktrace.views.text.why import chain

SERVER = 200
ASKS = f"{LIB}/process.py:121 start;{LIB}/popen_forkserver.py:51 _launch;{LIB}/forkserver.py:88 connect_to_new_process"
LAUNCHES = f"/srv/app.py:1 main;{LIB}/forkserver.py:160 ensure_running;{LIB}/util.py:452 spawnv_passfds"
SERVES = f"<string>:1 <module>;{LIB}/forkserver.py:265 main"


def asks(time_ms: int, line: int, *, tid: int = 100, pid: int = 100, stack: str = ASKS) -> ev.Row:
    """Line `line` of the program asks for a child."""
    return ev.request(time_ms * MS, pid, f"/srv/app.py:{line} go;{stack}", tid=tid)


def forks(time_ms: int, pid: int, *, by: int = SERVER, stack: str = SERVES) -> ev.Row:
    """The server forks."""
    return ev.fork(time_ms * MS, pid, by=by, stack=stack, stack_status="ok")


def lines(*rows: ev.Row, server: int = SERVER) -> list[Any]:
    """What is said of the children of a server, by the number of the line."""
    launched = ev.fork(1 * MS, server, by=100, stack=LAUNCHES, stack_status="ok")
    table = recording(target(), launched, *sorted(rows, key=lambda row: row["time_ns"])).lifecycles()
    sites = cells(table[table["ppid"] == server], "start_site")
    return [site and int(site.split(":")[1].split()[0]) for (site,) in sites]


def test_each_child_is_of_the_line_that_asked() -> None:
    """Three starts, one after the other."""
    assert lines(asks(2, 11), forks(3, 301), asks(4, 12), forks(5, 302), asks(6, 11), forks(7, 303)) == [11, 12, 11]


def test_it_is_written_whole() -> None:
    """Site and stack of the request; of every other process those of its fork."""
    launched = ev.fork(1 * MS, SERVER, by=100, stack=LAUNCHES, stack_status="ok")
    table = recording(target(), launched, asks(2, 11), forks(3, 301)).lifecycles()
    assert cells(table.tail(2), "fork_site", "start_site", "start_stack") == [
        ("app.py:1 main", "app.py:1 main", LAUNCHES),
        ("forkserver.py:265 main", "app.py:11 go", f"/srv/app.py:11 go;{ASKS}"),
    ]
    assert table["notes"].isna().all()
    assert table["complete"].all()


def test_threads_that_ask_at_once_from_one_line() -> None:
    """Which of them was answered first does not matter."""
    assert lines(asks(2, 11, tid=101), asks(3, 11, tid=102), forks(4, 301), forks(5, 302)) == [11, 11]


def test_threads_that_ask_at_once_from_two_lines() -> None:
    """Either may have been answered first; once both are, all is clear again."""
    both = [asks(2, 11, tid=101), asks(3, 12, tid=102), forks(4, 301), forks(5, 302)]
    assert lines(*both, asks(6, 13), forks(7, 303)) == [None, None, 13]


def test_a_thread_that_asks_again_has_been_answered() -> None:
    """What its first request was for is there, so the other thread is the one that waits."""
    rows = [asks(2, 11, tid=101), asks(3, 12, tid=102), forks(4, 301), asks(5, 13, tid=101), forks(6, 302), forks(7, 303)]
    assert lines(*rows, asks(8, 14), forks(9, 304)) == [None, None, None, 14]
    rows.insert(5, asks(6, 15, tid=103))  # while one of the first two still waits
    assert lines(*rows, forks(9, 304)) == [None, None, None, None]


def test_a_request_that_nothing_came_of() -> None:
    """A start that failed is over when its thread asks again."""
    assert lines(asks(2, 11), asks(3, 12), forks(4, 301)) == [12]


def test_a_fork_that_nobody_asked_for() -> None:
    """Its request was before the recording, say."""
    assert lines(forks(2, 301), asks(3, 12), forks(4, 302)) == [None, 12]


@pytest.mark.parametrize("what", ["request", "probe not run"])
def test_lost_requests(what: str) -> None:
    """What was made before the last loss may have been asked for by a request that is missing."""
    rows = [asks(2, 11), forks(3, 301), ev.lost(4 * MS, 1, what), asks(5, 12), forks(6, 302)]
    assert lines(*rows) == [None, 12]
    assert lines(asks(2, 11), forks(3, 301), ev.lost(4 * MS, 1, "wait"), asks(5, 12), forks(6, 302)) == [11, 12]


def test_other_connections_ask_for_nothing() -> None:
    """The client of a manager, say."""
    assert lines(asks(2, 11, stack=f"{LIB}/connection.py:630 SocketClient"), forks(3, 301)) == [None]


def test_each_process_asks_its_own_server() -> None:
    """A child of a fork server starts another; a server that has died is followed by a new one."""
    rows = [asks(2, 11), forks(3, 301), ev.fork(4 * MS, 400, by=301, stack=LAUNCHES, stack_status="ok")]
    rows += [asks(5, 21, pid=301, tid=301), asks(6, 12), forks(7, 302), forks(8, 501, by=400)]
    rows += [ev.exit_(9 * MS, SERVER), ev.fork(10 * MS, 600, by=100, stack=LAUNCHES, stack_status="ok")]
    rows += [asks(11, 13), forks(12, 601, by=600)]
    assert lines(*rows) == [11, 12]
    table = recording(target(), ev.fork(1 * MS, SERVER, by=100, stack=LAUNCHES, stack_status="ok"), *rows).lifecycles()
    assert cells(table[table["pid"].isin([501, 601])], "start_site") == [("app.py:21 go",), ("app.py:13 go",)]


def test_doubt_is_noted() -> None:
    """A row says what is not known of it."""
    launched = ev.fork(1 * MS, SERVER, by=100, stack=LAUNCHES, stack_status="ok")
    table = recording(target(), launched, forks(3, 301)).lifecycles()
    assert cells(table.tail(1), "notes", "complete") == [("which line asked the fork server for it is not known", True)]


def test_people_are_told_the_line() -> None:
    """`why` says who forked and where that was asked for; pictures name the lines that started processes."""
    launched = ev.fork(1 * MS, SERVER, by=100, stack=LAUNCHES, stack_status="ok")
    text = [ev.source(2 * MS, "/srv/app.py", 11, "p.start()")]
    made = recording(target(), launched, *text, asks(2, 11), forks(3, 301), forks(4, 302))
    lines_of = {pid: [(line.text, line.source) for line in chain(made, made.find_process(str(pid)))] for pid in (301, 302)}
    assert ("asked   for at app.py:11 go > Process.start", "p.start()") in lines_of[301]
    assert not any(text.startswith("asked") for text, _ in lines_of[302])
    labels = [kind.label for kind in starts(made.lifecycles())]
    assert labels == ["start at app.py:1 main", "start at app.py:11 go", "start at forkserver.py:265 main"]


def test_the_line_is_everywhere_that_of_the_start() -> None:
    """Also in the report's table of zombies, and in the names of rows of a picture."""
    launched = ev.fork(1 * MS, SERVER, by=100, stack=LAUNCHES, stack_status="ok")
    ended = [ev.exit_(50 * MS, 301, parent=SERVER), ev.zombie(50 * MS, 301, parent=SERVER)]
    made = recording(target(), launched, asks(2, 11), forks(3, 301), *ended, ev.end(900 * MS))
    table = made.lifecycles()
    assert "app.py:11" in str(zombie_table(table, Names(table)).rows)
    assert row_names(made, table)[-1] == "301 app.py:11"


def test_a_child_that_is_in_doubt_has_the_line_of_its_fork() -> None:
    """In check and diff too, which sum up by lines."""
    launched = ev.fork(1 * MS, SERVER, by=100, stack=LAUNCHES, stack_status="ok")
    ends = [ev.exit_(5 * MS, 301, 0, parent=SERVER), ev.zombie(5 * MS, 301, parent=SERVER)]
    made = recording(target(), launched, forks(3, 301), *ends)
    assert made.lifecycles()["start_site"].isna().tolist() == [True, False, True]
    assert Items(made).of(BY_NAME["max-unreaped"])["site"].tolist() == ["forkserver.py:265 main"]
