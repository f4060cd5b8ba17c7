"""The chain of one process in words: each of its branches, and how it is laid out."""

from __future__ import annotations

import io
from collections import namedtuple
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from traces import MS, child, known, recording, target, work

import forktrace
from forktrace.analysis.recording import Recording
from forktrace.analysis.tables.lifecycles import CAUSES, CREATORS, EXIT_PATHS
from forktrace.trace import events as ev
from forktrace.views import explanations
from forktrace.views.text.why import why
from forktrace.views.why import remedies
from forktrace.views.why.calls import calls_of, passes_a_package
from forktrace.views.why.chain import Chains, chain
from forktrace.views.why.chain_columns import Lookups
from forktrace.views.why.happened import Happened
from forktrace.views.zombies import worst

LIBRARY = "/usr/lib/python3.11"
PROCESS, POPEN = f"{LIBRARY}/multiprocessing/process.py", f"{LIBRARY}/multiprocessing/popen_fork.py"
SITE = "consumer.py:33 consume_task"
START = f"/srv/consumer.py:60 <module>;/srv/consumer.py:33 consume_task;{PROCESS}:121 start"
SWEEP = (
    f"/srv/consumer.py:60 <module>;/srv/consumer.py:33 consume_task;{PROCESS}:118 start;{PROCESS}:59 _cleanup;{POPEN}:27 poll"
)
FORKED = {"fork_site": SITE, "fork_stack": START, "fork_stack_status": "ok", "created_by": "multiprocessing"}
REAPED = {"reap_site": "consumer.py:50 main", "reap_stack": "/srv/consumer.py:50 main", "reap_stack_status": "ok"}
SWEPT = {"reap_site": SITE, "reap_stack": SWEEP, "reap_stack_status": "ok", "reap_cause": "next-start", "cleared_by_id": 2}

# The child 4711: forked at 1204 ms, dead at 1406 ms. Released at 3209 ms by what a test puts in between.
CHILD = [target(), ev.source(0, "/srv/consumer.py", 33, "p.start()"), *child(4711, 1204, 1406)]
REAP = ev.reap(3209 * MS, 4711, by=100, options=1)
END = ev.end(4000 * MS)


def told(made: Recording, process: int = 1) -> list[str]:
    """Return the lines about a process, each with what stands in front and its source line behind `|`."""
    lines = chain(made, process)
    return [" ".join(filter(None, [one.mark, one.text, one.source and f"| {one.source}"])) for one in lines]


def line(made: Recording, beginning: str, process: int = 1) -> str:
    """Return the one line that begins so."""
    found = [one for one in told(made, process) if one.startswith(beginning)]
    assert len(found) == 1, told(made, process)
    return found[0].removeprefix(beginning).strip()


PACKAGES = "/venv/lib/python3.11/site-packages"


def fixes(made: Recording, process: int = 1) -> list[str]:
    """Return what is said of what helps."""
    lines = told(made, process)
    return lines[next(number for number, one in enumerate(lines) if one.startswith("fix")) :]


def of_child(*rows: ev.Row, more: list[ev.Row] | None = None, **columns: Any) -> Recording:
    """Return a recording of 4711 and `rows`, with columns of its row filled in."""
    made = recording(*CHILD, *rows, *(more or []), END, closed=False)
    return known(made, **{name: {1: value} for name, value in columns.items()})


def text(made: Recording, process: int | None, width: int = 80, **options: Any) -> str:
    """Return what is printed."""
    file = io.StringIO()
    why(made, process, Console(file=file, width=width, **options))
    return file.getvalue()


def swept() -> Recording:
    """Return the Kafka consumer's child in a nutshell: swept away by the next start."""
    return of_child(REAP, ev.fork(3209 * MS + 1, 4715, by=100), exit_path="bootstrap", notes=pd.NA, **FORKED, **SWEPT)


def test_the_picture() -> None:
    """The whole chain: forked, ended, reaped from which line through which calls, why, and what would help."""
    assert text(swept(), 1, width=110).splitlines() == [
        "4711 was a zombie for 1.803 s",
        " +1.204 forked  by 100 consumer.py:33 consume_task   p.start()",
        " +1.406 exited  0 after 202 ms, as its function had ended",
        " +3.209 reaped  by 100 consumer.py:33 consume_task > Process.start > _cleanup > poll > waitpid(4711, WNOHANG)",
        " why    never joined; starting 4715 swept it away, since Process.start() first polls every child that has",
        "        ended (next-start)",
        " fix    consumer.py:33, one of:",
        "        - keep p and join it (blocks until it ends)",
        "        - call multiprocessing.active_children() in the loop (does not block; a zombie until the next call, so",
        "          once per message is too seldom)",
        "        - give the work to a multiprocessing.Pool (reuses a few processes and reaps them; arguments and",
        "          results are pickled)",
        "        - give the work to a concurrent.futures.ProcessPoolExecutor (as a Pool, with futures; one worker that",
        "          dies breaks it)",
        "        - signal.signal(signal.SIGCHLD, signal.SIG_IGN) (no zombies, but exit codes are lost: exitcode stays",
        "          None, is_alive() True, subprocess says 0)",
    ]


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_nothing_is_cut(width: int) -> None:
    """No line is wider than the screen, and every word is there at any width; a source line has a line of its own then."""
    written = text(swept(), 1, width)
    assert max(map(len, written.splitlines())) <= width
    assert "".join(written.split()) == "".join(text(swept(), 1, 400).split())
    assert ("task\n" in written) == (width <= 40)


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets none, nor a terminal with NO_COLOR."""
    assert "\x1b" not in text(swept(), 1)
    assert "\x1b[36m" in text(swept(), 1, force_terminal=True)
    assert "\x1b[1m4711" in text(swept(), 1, force_terminal=True)
    assert "\x1b[1;31m4711" in text(of_child(reap_cause="never"), 1, force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[36m" not in text(swept(), 1, force_terminal=True)


def test_the_worst() -> None:
    """Without a process it is the zombie to look at first, a note says so; a recording without one says that."""
    rows = [*child(500, 10, 20), ev.reap(40 * MS, 500, by=100)]
    made = recording(*CHILD, *rows, REAP, END, closed=False)
    assert worst(made) == 2
    assert text(made, None).startswith("4711 was a zombie for 1.803 s\n")
    assert " ".join(text(made, None).splitlines()[-2:]) == (
        "The first to look at of 2 zombies; the report names the others, and `forktrace why TRACE PID` explains one of them."
    )
    assert "first to look at" not in text(made, 2)
    assert text(recording(target()), None) == "No process of this recording was a zombie.\n"


def test_the_worst_is_what_matters_most() -> None:
    """Stolen before never reaped, that before the longest, and an upper bound last."""
    rows = [*child(500, 10, 20), ev.reap(3000 * MS, 500, by=100), *child(501, 10, 20), *child(502, 10, 100)]
    bound = ev.reap(3900 * MS, 502, by=1, call="unseen")
    made = recording(*CHILD, *rows, bound, REAP, END, closed=False)
    assert made.lifecycles().loc[worst(made), "pid"] == 501
    made.__dict__["_stolen"] = pd.DataFrame({"id": [1]})
    assert worst(made) == made.lifecycles().query("pid == 500")["id"].item()
    rows += [ev.reap(21 * MS, 501, by=100)]
    gone = recording(*CHILD, *rows, bound, REAP, END, closed=False)
    assert gone.lifecycles().loc[worst(gone), "pid"] == 500


def test_the_worst_has_a_line_where_one_has() -> None:
    """Of those that are still zombies the older ones may be older than the recording: nothing can be said of them."""
    made = recording(target(), *child(500, 10, 20), *work(501, 30, 40), END, closed=False)
    assert made.lifecycles().loc[worst(made), "pid"] == 501


@pytest.mark.parametrize(
    ("rows", "headline"),
    [
        ([REAP], "4711 was a zombie for 1.803 s"),
        ([], "4711 was still a zombie after 2.594 s, when the recording ended"),
        ([ev.reap(3209 * MS, 4711, by=1, call="unseen")], "4711 was a zombie for at most 1.803 s"),
    ],
)
def test_headlines(rows: list[ev.Row], headline: str) -> None:
    """How long it was a zombie, and how sure that is."""
    assert told(of_child(*rows))[0] == headline


def test_headlines_without_a_zombie() -> None:
    """One that runs, one that was released as it ended, and one whose end was lost."""
    assert told(of_child(), 0)[0] == "100 was still running after 4.000 s, when the recording ended"
    gone = [target(), ev.fork(MS, 500, by=100), ev.exit_(5 * MS, 500, disposition="ignored"), ev.autoreap(5 * MS, 500)]
    assert told(recording(*gone))[0] == "500 was never a zombie: it was released as it ended"
    lost = [target(), ev.fork(MS, 500, by=100), ev.reap(9 * MS, 500, by=100), ev.lost(9 * MS, 1, "exit")]
    assert told(recording(*lost))[0] == "500* was a zombie; for how long is not known"
    assert line(recording(*lost), "note") == "exit not seen; events were lost while it lived"


@pytest.mark.parametrize(("status", "times"), [("no-runtime", 1), ("read-fault", 0)])
def test_an_interpreter_that_is_not_walked(status: str, times: int) -> None:
    """It is named where it may be the reason why a cause is not known, and nowhere else."""
    met = ev.runtime(2 * MS, "/opt/pypy3.11", "", [], "it is PyPy")
    reaped = ev.reap(3100 * MS, 4711, by=100, stack_status=status)
    assert told(of_child(met, more=[reaped])).count("the stacks of /opt/pypy3.11 are not walked: it is PyPy") == times


def test_a_running_process_has_no_why() -> None:
    """Nothing is explained where nothing has happened yet."""
    assert told(of_child(), 0) == [
        "100 was still running after 4.000 s, when the recording ended",
        "+0.000 started by forktrace: python consumer.py",
    ]


@pytest.mark.parametrize(
    ("fork", "said"),
    [
        ({}, "by 100 python (recorded without stacks)"),
        ({"fork_stack_status": "not-python"}, "by 100 python (not a Python program)"),
        ({"fork_stack_status": "no-runtime"}, "by 100 python (no line: its Python was not known yet, or is not walked)"),
        ({"fork_stack_status": "no-thread-state"}, "by 100 python (no line: its thread ran no Python code then)"),
        ({"fork_stack_status": "read-fault"}, "by 100 python (no line: the stack could not be read)"),
        ({"fork_stack_status": "lost"}, "by 100 python (no line: its stack was lost)"),
        (FORKED, f"by 100 {SITE} | p.start()"),
        (FORKED | {"forker_tid": 102}, f"by thread 102 of 100 {SITE} | p.start()"),
        (
            FORKED | {"fork_stack_status": "truncated"},
            f"by 100 {SITE} (of a stack whose outermost frames are missing) | p.start()",
        ),
        (FORKED | {"fork_site": "consumer.py:60 <module>"}, "by 100 consumer.py:60 <module> > consume_task"),
        (FORKED | {"ppid": 7, "parent_id": pd.NA}, f"by 100 {SITE}, as a child of 7 | p.start()"),
        ({"forker_pid": 0, "ppid": 0, "parent_id": pd.NA}, "by a process that is not known (recorded without stacks)"),
        ({"origin": "attached"}, "before the recording"),
        ({"origin": "adopted"}, "outside the recording"),
    ],
)
def test_forks(fork: dict[str, Any], said: str) -> None:
    """Who forked it at which line, or why there is none."""
    assert line(of_child(REAP, **fork), "+1.204").split(maxsplit=1)[1] == said


def test_a_fork_in_a_library_thread() -> None:
    """Where no frame is the program's own, the calls of the library say what it was."""
    pool = f"{LIBRARY}/multiprocessing/pool.py"
    stack = f"{LIBRARY}/threading.py:1002 _bootstrap;{pool}:516 _handle_workers;{pool}:336 _repopulate_pool_static"
    stack += f";{PROCESS}:121 start"
    made = of_child(REAP, **FORKED | {"fork_stack": stack, "fork_site": "process.py:121 start", "forker_tid": 103})
    assert line(made, "+1.204 forked") == (
        "by thread 103 of 100, in its libraries: Pool._handle_workers > _repopulate_pool_static > Process.start"
    )


def test_what_it_ran() -> None:
    """The program of its last exec."""
    made = of_child(REAP, more=[ev.exec_(1210 * MS, 4711, ["sh", "-c", "exit 1\x1b"])])
    assert line(made, "+1.210") == r"ran     sh -c 'exit 1\x1b'"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "exited  0 after 202 ms"),
        ({"exit_code": 3}, "exited  3 after 202 ms"),
        ({"exit_code": pd.NA}, "exited  ? after 202 ms"),
        ({"exit_code": pd.NA, "exit_path": "bootstrap"}, "exited  ? after 202 ms, as its function had ended"),
        ({"exit_path": "main-return"}, "exited  0 after 202 ms, its program had run to its end"),
        ({"exit_path": "sys-exit"}, "exited  0 after 202 ms, by sys.exit()"),
        ({"exit_code": 1, "exit_path": "exception"}, "exited  1 after 202 ms, by an exception that nobody caught"),
        (
            {"exit_code": 7, "exit_path": "os-exit", "exit_site": "consumer.py:33 f"},
            "exited  7 after 202 ms, by os._exit() at consumer.py:33 f | p.start()",
        ),
        ({"exit_path": "bootstrap"}, "exited  0 after 202 ms, as its function had ended"),
        ({"exit_path": "bootstrap", "exit_site": SITE}, "exited  0 after 202 ms, as its function had ended"),
        (
            {"exit_code": 1, "exit_path": "bootstrap"},
            "exited  1 after 202 ms, as its function had ended by an exception or sys.exit()",
        ),
        ({"exit_path": "not-python"}, "exited  0 after 202 ms"),
        ({"exit_path": "unknown"}, "exited  0 after 202 ms"),
        (
            {"exit_code": 255, "created_by": "subprocess"},
            "exited  255 after 202 ms; it never ran a program: its exec failed (or a preexec_fn did)",
        ),
        ({"exit_code": 255, "created_by": "os-fork"}, "exited  255 after 202 ms"),
        ({"exit_code": 254, "created_by": "subprocess"}, "exited  254 after 202 ms"),
    ],
)
def test_exits(columns: dict[str, Any], said: str) -> None:
    """With which code it ended, and how it left, where that is known."""
    assert line(of_child(REAP, **columns), "+1.406") == said


def test_a_failed_exec_is_one_without_an_exec() -> None:
    """A program that ran may end with 255 as well."""
    made = of_child(REAP, more=[ev.exec_(1210 * MS, 4711, ["false"])], exit_code=255, created_by="subprocess")
    assert line(made, "+1.406") == "exited  255 after 202 ms"


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "sender not known"),
        (
            {"killer_kind": "process", "killer_id": 0, "killer_pid": 100, "killer_site": SITE},
            f"sent by 100 {SITE} | p.start()",
        ),
        ({"killer_kind": "process", "killer_id": 0, "killer_pid": 100}, "sent by 100 python"),
        ({"killer_kind": "process", "killer_id": 1, "killer_pid": 4711}, "sent by itself"),
        ({"killer_kind": "process", "killer_pid": 9}, "sent by 9"),
        ({"killer_kind": "kernel", "core_dumped": True}, "by the kernel itself"),
        ({"killer_kind": "kernel", "exit_site": "a.py:1 f"}, "by the kernel itself at a.py:1 f"),
        ({"killer_kind": "process", "killer_pid": 9, "exit_site": "a.py:1 f"}, "sent by 9"),
        ({"killer_kind": "process", "killer_id": 1, "killer_pid": 4711, "exit_site": "a.py:1 f"}, "sent by itself at a.py:1 f"),
        ({"killer_kind": "oom"}, "by the OOM killer: memory ran out"),
        ({"killer_kind": "pidns"}, "because its PID namespace died"),
        (
            {"killer_kind": "kernel", "exit_path": "abort", "exit_site": "a.py:1 f"},
            "by the kernel itself; it called abort() at a.py:1 f",
        ),
    ],
)
def test_kills(columns: dict[str, Any], said: str) -> None:
    """Which signal ended it, who sent it, and from which line."""
    made = of_child(REAP, exit_code=pd.NA, term_signal="SIGTERM", **columns)
    core = " (core dumped)" if columns.get("core_dumped") else ""
    assert line(made, "+1.406") == f"killed  by SIGTERM after 202 ms{core}, {said}"


def test_a_signal_that_did_not_kill() -> None:
    """A handler may catch it, and the exit that follows has a code."""
    made = of_child(REAP, more=[ev.signal(1300 * MS, 4711, 15, by=100)])
    assert line(made, "+1.300") == "got     SIGTERM, sent by 100 python, which did not end it"
    made = of_child(REAP, more=[ev.signal(1300 * MS, 4711, 15, by=100, disposition="handler")])
    assert line(made, "+1.300") == "got     SIGTERM, sent by 100 python; it has a handler for that"


def test_few_of_many_signals() -> None:
    """A process that is stopped and continued a thousand times is no thousand lines."""
    made = of_child(REAP, more=[ev.signal((1300 + n) * MS, 4711, 19, by=100) for n in range(5)])
    assert [one.partition(" got")[0] for one in told(made) if "SIGSTOP" in one] == ["+1.300", "+1.301", "+1.302"]


def test_polled_in_vain() -> None:
    """How often it was asked for before it was reaped, and where, if that is certain: a place may ask for several children."""
    asked = ev.waits(1400 * MS, 1, by=100, call="wait4", target="pid", flags=1, stack="/srv/a.py:7 g", stack_status="ok")
    other = asked | {"stack": "/srv/a.py:9 h", "count": 36}
    made = of_child(ev.reap(3209 * MS, 4711, by=100, empty=1))
    assert told(made)[3] == "asked   1 time in vain"
    made = of_child(ev.reap(3209 * MS, 4711, by=100, empty=37), more=[asked])
    assert told(made)[3] == "asked   37 times in vain at a.py:7 g"
    made = of_child(ev.reap(3209 * MS, 4711, by=100, empty=37), more=[asked, other])
    assert told(made)[3] == "asked   37 times in vain at a.py:9 h and a.py:7 g"
    made = of_child(ev.reap(3209 * MS, 4711, by=100, empty=5), more=[asked, other])
    assert told(made)[3] == "asked   5 times in vain"


def test_a_popen_that_the_end_of_the_program_deleted() -> None:
    """It was not dropped: below its __del__ is no line."""
    delete = f"{LIBRARY}/subprocess.py:1120 __del__;{LIBRARY}/subprocess.py:1983 _internal_poll"
    swept = REAPED | {"reap_cause": "subprocess-cleanup", "reap_site": "subprocess.py:1983 _internal_poll"}
    at_end = of_child(REAP, **swept | {"reap_stack": delete})
    assert "its Popen was there until the program ended" in line(at_end, "why")
    dropped = of_child(REAP, **swept | {"reap_stack": f"/srv/a.py:1 main;{delete}", "reap_site": "a.py:1 main"})
    assert "its Popen was dropped" in line(dropped, "why")


def test_a_forker_that_runs_another_program_since() -> None:
    """It is called what it was, and what it became does not know the child."""
    became = ev.exec_(1300 * MS, 100, ["python3", "app.py"], file="/usr/bin/python3")
    made = of_child(REAP, more=[ev.exec_(1000 * MS, 100, ["bash", "x.sh"]), became], fork_stack_status="not-python")
    words = "by 100 bash (not a Python program); since then 100 runs python3, which does not know this child"
    assert line(made, "+1.204 forked") == words
    rows = [target(start_ns=0), ev.exec_(MS, 100, ["bash"]), ev.exec_(5 * MS, 100, ["python3"])]
    fork = ev.fork(2 * MS, 500, by=100, by_start_ns=0, parent=100, parent_start_ns=1)  # its parent is another 100
    assert "since then" not in " ".join(told(recording(*rows, fork)))


@pytest.mark.parametrize(
    ("reap", "columns", "said"),
    [
        (REAP, {}, "by 100 python with wait4(4711, WNOHANG) (recorded without stacks)"),
        (REAP, {"reap_stack_status": "not-python"}, "by 100 python with wait4(4711, WNOHANG) (not a Python program)"),
        (REAP, REAPED, "by 100 consumer.py:50 main > waitpid(4711, WNOHANG)"),
        (ev.reap(3209 * MS, 4711, by=100, target="any"), REAPED, "by 100 consumer.py:50 main > waitpid(-1)"),
        (ev.reap(3209 * MS, 4711, by=100, target="pgid"), REAPED, "by 100 consumer.py:50 main > waitpid(-pgid)"),
        (ev.reap(3209 * MS, 4711, by=100, by_tid=102), REAPED, "by thread 102 of 100 consumer.py:50 main > waitpid(4711)"),
        (
            ev.reap(3209 * MS, 4711, by=100, call="waitid", options=4),
            REAPED,
            "by 100 consumer.py:50 main > waitid(P_PID, 4711, WEXITED)",
        ),
        (
            ev.reap(3209 * MS, 4711, by=100, call="waitid", target="any", options=4),
            REAPED,
            "by 100 consumer.py:50 main > waitid(P_ALL, WEXITED)",
        ),
        (
            ev.reap(3209 * MS, 4711, by=100, call="waitid", target="pidfd", options=4),
            {},
            "by 100 python with waitid(P_PIDFD, WEXITED) (recorded without stacks)",
        ),
        (
            ev.reap(3209 * MS, 4711, by=100, call="io_uring", target=None, options=4),
            {},
            "by 100 python with io_uring(?, WEXITED) (recorded without stacks)",
        ),
        (ev.reap(3209 * MS, 4711, by=1, call="unseen"), {}, "by 1, at this time or earlier; its wait was not seen"),
        (
            REAP,
            {"reaper_pid": pd.NA, "reaper_id": pd.NA},
            "by a process that is not known with wait4(4711, WNOHANG) (recorded without stacks)",
        ),
    ],
)
def test_reaps(reap: ev.Row, columns: dict[str, Any], said: str) -> None:
    """Whose wait released it, at which line, with which call."""
    assert line(of_child(reap, **columns), "+3.209 reaped") == said


def test_other_releases() -> None:
    """Without a wait: the parent does not want to know, or the PID namespace died."""
    freed = "freed   by the kernel: 100 does not want to know of its children's ends"
    assert line(of_child(ev.autoreap(3209 * MS, 4711), reap_cause="autoreap-ignored"), "+3.209") == freed
    gone = [target(), ev.fork(MS, 500, by=100), ev.exit_(5 * MS, 500, disposition="ignored")]
    assert freed in told(recording(*gone))
    killed = of_child(ev.reap(3209 * MS, 4711, by=100, call="kernel"), reap_cause="pidns-exit")
    assert line(killed, "+3.209") == "removed by the kernel, with its PID namespace"


def test_an_orphan_that_its_adopter_reaps() -> None:
    """When the parent died, and who inherited it."""
    rows = [ev.fork(100 * MS, 300, by=100, comm="x"), ev.fork(110 * MS, 400, by=300), ev.exit_(200 * MS, 300, adopter=1)]
    rows += [ev.zombie(200 * MS, 300, parent=100), ev.exit_(500 * MS, 400, parent=1), ev.zombie(500 * MS, 400, parent=1)]
    made = recording(target(), *rows, ev.reap(900 * MS, 400, by=1, call="unseen"), END, closed=False)
    known(made, reap_cause={2: "parent-exit"})
    assert told(made, 2)[2:-1] == [
        "+0.200 lost    its parent 300, which ended; 1 inherited it",
        "+0.500 exited  0 after 390 ms",
        "+0.900 reaped  by 1, at this time or earlier; its wait was not seen",
        "why its parent 300 ended without waiting for it; 1 inherited it and reaped it (parent-exit)",
        "fix let 300 wait for it before it ends (300 lives as long as its children)",
    ]
    left = [*rows[:2], ev.exit_(150 * MS, 400), ev.zombie(150 * MS, 400, parent=300), *rows[2:4]]
    left += [ev.zombie(200 * MS, 400, parent=1), ev.reap(900 * MS, 400, by=1, call="unseen")]
    late = recording(target(), *left, END, closed=False)
    known(late, reap_cause={2: "parent-exit"}, created_by={2: "os-fork"})
    assert told(late, 2)[0] == "400 was a zombie for at least 50 ms"
    assert "let 300 wait" not in "".join(fixes(late, 2))
    assert "os.waitpid" in fixes(late, 2)[1]
    still = recording(target(), *rows, END, closed=False)
    known(still, reap_cause={2: "never"})
    assert line(still, "why", 2) == "300 ended without waiting for it; 1 inherited it and has not waited for it either (never)"
    assert fixes(still, 2) == ["fix let 300 wait for it before it ends (300 lives as long as its children)"]


def test_an_orphan_that_a_process_of_the_program_reaps() -> None:
    """A subreaper that reaps needs no init: it may do so oftener, at its line."""
    rows = [*child(300, 10, 200), *child(301, 20, 250, by=300)[:2], ev.zombie(250 * MS, 301, parent=100)]
    made = recording(target(), *rows, ev.reap(200 * MS, 300, by=100), ev.reap(900 * MS, 301, by=100, target="any"), END)
    table = made.lifecycles()
    assert table.loc[2, "reap_cause"] == "parent-exit"
    known(made, reap_site={2: "app.py:9 look"}, reap_stack={2: "/srv/app.py:9 look"}, reap_stack_status={2: "ok"})
    assert fixes(made, 2) == [
        "fix app.py:9, one of:",
        "- make this call more often (a zombie until the next call)",
        "- let 300 wait for it before it ends (300 lives as long as its children)",
    ]


def test_an_orphan_of_a_parent_outside() -> None:
    """The moment of a parent's death outside the recording is not known."""
    made = of_child(REAP, adopter_pid=1, parent_id=pd.NA, ppid=77)
    assert "lost    its parent 77, which ended; 1 inherited it" in told(made)


def test_the_command_itself() -> None:
    """forktrace is its parent."""
    rows = [ev.exit_(50 * MS, 100, parent=50), ev.zombie(50 * MS, 100, parent=50), ev.reap(51 * MS, 100, by=50)]
    made = recording(target(), *rows)
    assert line(made, "+0.051", 0) == "reaped  by 50 forktrace with wait4(100)"
    assert told(made, 0)[0] == "100 is the command itself; forktrace, its parent, waited for it"
    assert line(made, "why", 0) == "forktrace started the command, so forktrace waited for it (recorder)"
    assert text(made, None) == "No process of this recording was a zombie.\n"
    assert not [one for one in told(made, 0) if one.startswith("fix")]


def test_never_reaped() -> None:
    """Still a zombie: nobody waited; what helps depends on what made it."""
    said = "nobody has waited for it: neither join, nor poll, nor wait of 100 came before the recording ended (never)"
    assert line(of_child(reap_cause="never", **FORKED), "why") == said
    fixes = {name: told(of_child(reap_cause="never", **FORKED | {"created_by": name}))[-1] for name in CREATORS}
    assert fixes["subprocess"].startswith("- signal.signal(signal.SIGCHLD")
    assert (
        fixes["asyncio"]
        == "fix consumer.py:33: await wait() or communicate() on p, before asyncio.run() ends (only this task waits)"
    )
    assert fixes["pool"].startswith("fix consumer.py:33: leave the pool by close() and join(), or terminate()")
    assert fixes["native"] == "- set SIGCHLD to SIG_IGN in 100 (no zombies, but exit codes are lost)"


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_is_explained(cause: str) -> None:
    """Each cause has a sentence, and names itself; nothing of the texts' own braces is left."""
    lines = told(of_child(REAP, more=[ev.fork(3300 * MS, 4715, by=100)], reap_cause=cause, **FORKED, **REAPED))
    said = next(one for one in lines if one.startswith("why"))
    assert said.endswith(f"({cause})")
    assert len(said) > len(f"why  ({cause})") + 10
    assert not [one for one in lines if "{" in one or "}" in one]


NO_FIX = {"unknown", "recorder", "forkserver", "resource-tracker", "other-native"}


@pytest.mark.parametrize("cause", sorted(set(CAUSES) - NO_FIX))
def test_every_noticed_zombie_has_a_fix(cause: str) -> None:
    """What helps is named with its cost, at a line of the program."""
    lines = told(of_child(REAP, reap_cause=cause, **FORKED, **REAPED))
    (at,) = (number for number, one in enumerate(lines) if one.startswith("fix"))
    assert lines[at].startswith(("fix consumer.py:33", "fix consumer.py:50", "fix keep the event loop free"))
    for one in lines[at:] if not lines[at].endswith("one of:") else lines[at + 1 :]:
        assert one.endswith(")"), one


def test_a_short_zombie_needs_no_fix() -> None:
    """One that was reaped at once needs none, though that may have been luck."""
    rows = [target(), *child(4711, 1204, 1406), ev.reap(1407 * MS, 4711, by=100)]
    joined = known(recording(*rows), reap_cause={1: "join"})
    assert told(joined)[-2:] == ["why 100 joined it (join)", "fix none needed: it was reaped at once"]
    lucky = known(recording(*rows), reap_cause={1: "next-start"})
    assert told(known(lucky, created_by={1: "multiprocessing"}))[-1] == "fix none needed: it was reaped at once, by luck"
    late = of_child(REAP, reap_cause="join")
    assert line(late, "why") == "100 joined it; that join() came only then (join)"


def test_a_fix_is_for_what_made_the_child() -> None:
    """A Popen has neither a sentinel nor join()."""
    poll = of_child(REAP, reap_cause="poll", **FORKED, **REAPED)
    assert any("sentinel" in one for one in fixes(poll))
    popen = " ".join(fixes(known(poll, created_by={1: "subprocess"})))
    assert "make this call more often" in popen
    assert "keep p and call wait() on it" in popen
    assert "sentinel" not in popen
    assert "join" not in popen


def test_nobody_is_told_to_do_what_he_does() -> None:
    """Who waits with WNOHANG is not told to, nor who has a handler of SIGCHLD to make one."""
    blocking = ev.reap(3209 * MS, 4711, by=100)
    said = " ".join(fixes(of_child(blocking, reap_cause="os-wait", **FORKED, **REAPED)))
    assert "call it earlier" in said
    assert "os.waitpid(p, os.WNOHANG) in the loop" in said
    assert "a handler of SIGCHLD" in said
    said = " ".join(fixes(of_child(REAP, reap_cause="os-wait", **FORKED, **REAPED)))
    assert "make this call more often" in said
    assert "os.WNOHANG" not in said
    rows = [row | ({"disposition": "handler"} if row["kind"] == "exit" else {}) for row in (*CHILD, REAP, END)]
    handled = known(recording(*rows, closed=False), reap_cause={1: "os-wait"}, **{n: {1: v} for n, v in REAPED.items()})
    assert fixes(handled) == ["fix consumer.py:50: make this call more often (a zombie until the next call)"]


def in_package(path: str, **header: Any) -> Recording:
    """A child that a line in this file reaped late."""
    made = recording(*CHILD, REAP, END, closed=False, **header)
    site = {"reap_site": "rq/worker.py:9 work", "reap_stack": f"{path}:9 work", "reap_stack_status": "ok"}
    return known(made, reap_cause={1: "os-wait"}, **{name: {1: value} for name, value in site.items()})


def test_a_package_is_its_authors_to_mend() -> None:
    """A line in an installed package is not the user's, whatever makes it the site; what the user can set is said."""
    assert fixes(in_package(f"{PACKAGES}/rq/worker.py")) == [
        "fix rq/worker.py:9 is a line of rq: it is for its authors to mend",
        "you can: run jobs without a fork: rq worker --worker-class rq.SimpleWorker",
    ]
    assert fixes(in_package("/usr/lib/python3/dist-packages/rq/worker.py"))[0].endswith("for its authors to mend")
    for mine in ({"own": ["rq"]}, {"own": [f"{PACKAGES}/rq"]}):
        assert fixes(in_package(f"{PACKAGES}/rq/worker.py", **mine))[:2] == [
            "fix rq/worker.py:9, one of:",
            "- make this call more often (a zombie until the next call)",
        ]
    editable = fixes(in_package("/home/alice/src/rq/worker.py"))
    assert editable[0].startswith("fix rq/worker.py:9")
    assert "authors" not in " ".join(editable)


def test_nothing_is_to_mend_in_a_package_where_nothing_is_wrong() -> None:
    """A zombie that was reaped at once needs no words about whose line it is."""
    made = recording(*CHILD, ev.reap(1407 * MS, 4711, by=100), END, closed=False)
    site = {"reap_site": "rq/worker.py:9 work", "reap_stack": f"{PACKAGES}/rq/worker.py:9 work", "reap_cause": "os-wait"}
    assert fixes(known(made, **{name: {1: value} for name, value in site.items()})) == [
        "fix none needed: it was reaped at once"
    ]


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ("from multiprocessing.resource_tracker import main;main(3)", "the resource tracker"),
        ("from multiprocessing.forkserver import main; main(3, 4, ['__main__'], **{})", "the fork server"),
        ("from joblib.externals.loky.backend.resource_tracker import main; main(3, False)", "the resource tracker"),
    ],
)
def test_helpers_of_multiprocessing(argv: str, name: str) -> None:
    """They are named as such, are nobody's to mend, and never the headline; the fork server's children are none."""
    helper = [*child(4800, 10, 20), ev.exec_(11 * MS, 4800, ["python", "-c", argv]), *child(4801, 12, 30, by=4800)]
    rows = [*CHILD, REAP, *helper, ev.reap(3990 * MS, 4800, by=100), ev.reap(31 * MS, 4801, by=4800), END]
    made = recording(*rows, closed=False)
    table = made.lifecycles()
    ident = table.loc[table["pid"] == 4800, "id"].item()
    assert told(made, ident)[0] == f"4800, {name} of multiprocessing, was a zombie for 3.970 s"
    assert table.loc[worst(made), "pid"] == 4711
    assert "of multiprocessing" not in told(made, table.loc[table["pid"] == 4801, "id"].item())[0]
    known(made, reap_cause={ident: "next-start"})
    assert fixes(made, ident) == [f"fix {remedies.ASIDE.format(name)}"]


def test_an_unknown_cause_says_what_is_missing() -> None:
    """Without a stack the reason is why there is none; with one, that no rule knows it; an older trace says so."""
    assert (
        line(of_child(REAP, reap_stack_status="lost", reap_cause="unknown"), "why") == "not known (no line: its stack was lost)"
    )
    assert line(of_child(REAP, reap_cause="unknown", **REAPED), "why").startswith("no rule knows this way to reap")
    assert line(of_child(REAP, reap_cause=pd.NA), "why") == "not known (recorded without stacks)"


def test_an_inferred_start() -> None:
    """A trace without stacks tells by the order of calls which start swept it away; the note says that it is inferred."""
    made = of_child(REAP, ev.fork(3209 * MS + 1, 4715, by=100))
    assert made.lifecycles().at[1, "reap_cause"] == "unknown"
    assert line(made, "why").startswith("never joined; starting 4715 swept it away")
    assert line(made, "note") == "clearing start inferred"


def test_a_cause_of_the_users_own() -> None:
    """A rule of --causes may name a cause that has no text here."""
    made = of_child(REAP, **REAPED)
    made.lifecycles()["reap_cause"] = made.lifecycles()["reap_cause"].cat.add_categories(["mine\x1b"])
    assert line(known(made, reap_cause={1: "mine\x1b"}), "why") == r"a rule of your own names it so (mine\x1b)"


def stolen(made: Recording, **columns: Any) -> Recording:
    """Put a stolen reap of 4711 into the recording: by 100, from subprocess."""
    one = {"time_ns": 3209 * MS, "id": 1, "created_by": "subprocess", "thief_id": 0, "thief_tid": 100}
    one |= {"thief_site": "app.py:20 reap_all", "owner_site": SITE, "seen": "ECHILD"} | columns
    made.__dict__["_stolen"] = pd.DataFrame([one]).convert_dtypes()
    return made


def test_a_stolen_exit_status() -> None:
    """Both lines, and what the owner got to see; the fix is at the thief's line."""
    made = stolen(of_child(REAP, reap_cause="os-wait", **FORKED, **REAPED))
    lines = told(made)
    assert lines[4:6] == [
        "stolen by 100 at app.py:20 reap_all",
        f"from subprocess, which waits for it at {SITE}, and got ECHILD, no such child | p.start()",
    ]
    assert lines[-3:] == [
        "fix app.py:20, one of:",
        "- wait for your own children by number, never for any child (a call for each child)",
        "- leave the waiting to what made it (nothing: it waits anyway)",
    ]
    bare = stolen(of_child(REAP, **FORKED, **REAPED), created_by=None, thief_site=None, owner_site=None, seen=None)
    assert told(bare)[4:6] == ["stolen by 100 python", "from its owner, which waits for it"]


def test_a_thief() -> None:
    """The process that took an exit status is told of it."""
    assert line(stolen(of_child(REAP)), "thief", 0) == "100 took the exit status of 4711 from what waits for it"


POOL, SUBPROCESS = f"{LIBRARY}/multiprocessing/pool.py", f"{LIBRARY}/subprocess.py"
OK = {"stack_status": "ok"}
MAIN = "/srv/consumer.py:60 <module>"
LAUNCH = f"{MAIN};/srv/consumer.py:33 consume_task;{PROCESS}:121 start;{POPEN}:19 __init__;{POPEN}:66 _launch"
MANAGER = f"{LIBRARY}/threading.py:1002 _bootstrap;{LIBRARY}/threading.py:982 run;{POOL}:516 _handle_workers"


def with_stacks() -> Recording:
    """A trace as it is recorded: children that are swept, joined, of a pool, killed, and reaped by a thief."""

    def forked(fork_ms: int, exit_ms: int, pid: int, stack: str = LAUNCH, **more: Any) -> list[ev.Row]:
        exit_ = ev.exit_(exit_ms * MS, pid, 0, parent=100, exit_from="interpreter", stack=f"{LAUNCH};{POPEN}:69 _launch", **OK)
        rows = [ev.fork(fork_ms * MS, pid, by=100, comm="python", stack=stack, **OK | more), exit_]
        return [*rows, ev.zombie(exit_ms * MS, pid, parent=100)]

    def popen(fork_ms: int, exit_ms: int, pid: int, status: int = 0) -> list[ev.Row]:
        stack = f"{MAIN};/srv/consumer.py:80 run;{SUBPROCESS}:1024 __init__;{SUBPROCESS}:1899 _execute_child"
        rows = [ev.fork(fork_ms * MS, pid, by=100, flags=0x4111, call="vfork", stack=stack, **OK)]
        rows += [ev.exec_((fork_ms + 1) * MS, pid, ["sleep", "5"])]
        rows += [ev.exit_(exit_ms * MS, pid, status, parent=100, stack_status="not-python")]
        return [*rows, ev.zombie(exit_ms * MS, pid, parent=100)]

    join = f"{MAIN};/srv/consumer.py:70 wait_all;{PROCESS}:149 join;{POPEN}:43 wait;{POPEN}:27 poll"
    polls = f"{MAIN};/srv/consumer.py:65 wait_all;{PROCESS}:166 is_alive;{POPEN}:27 poll"
    kill = f"{MAIN};/srv/consumer.py:44 stop;{SUBPROCESS}:2143 terminate;{SUBPROCESS}:2135 send_signal"
    wait = f"{MAIN};/srv/consumer.py:81 run;{SUBPROCESS}:1264 wait;{SUBPROCESS}:2053 _wait;{SUBPROCESS}:2011 _try_wait"
    rows = [ev.fork(0, 100, by=50, origin="target", comm="python"), ev.exec_(1 * MS, 100, ["python", "consumer.py"])]
    rows += [ev.runtime(2 * MS, "/usr/lib/libpython3.11.so.1.0", "3.11.7", [LIBRARY])]
    rows += [ev.source(3 * MS, "/srv/consumer.py", 33, "p.start()"), ev.source(3 * MS, "/srv/consumer.py", 44, "p.terminate()")]
    rows += [*forked(1204, 1406, 4711), ev.reap(3209 * MS, 4711, by=100, options=1, stack=SWEEP, **OK)]
    rows += [*forked(3210, 3400, 4715), ev.reap(3500 * MS, 4715, by=100, options=1, empty=12, stack=join, **OK)]
    rows += forked(3600, 3700, 4720, f"{MANAGER};{POOL}:326 _repopulate_pool_static;{PROCESS}:121 start", by_tid=103)
    pool = f"{MANAGER};{POOL}:304 _join_exited_workers;{PROCESS}:149 join;{POPEN}:43 wait;{POPEN}:27 poll"
    rows += [ev.reap(3800 * MS, 4720, by=100, by_tid=103, options=1, stack=pool, **OK)]
    rows += [*popen(3850, 3901, 4730, 15), ev.signal(3900 * MS, 4730, 15, by=100, stack=kill, **OK)]
    rows += [
        *popen(3910, 3930, 4740),
        ev.reap(3950 * MS, 4740, by=100, target="any", stack=f"{MAIN};/srv/reaper.py:9 reap_all", **OK),
    ]
    rows += [ev.wait(3960 * MS, None, by=100, target="pid", target_pid=4740, result=10, stack=wait, **OK)]
    rows += [ev.waits(3970 * MS, 5, by=100, call="wait4", target="pid", flags=1, stack=polls, **OK)]
    return recording(*rows, END, closed=False)


def test_a_trace_with_stacks() -> None:
    """From the rows of a trace to the words, with nothing filled in by hand."""
    made = with_stacks()
    assert told(made, 1)[:6] == [
        "4711 was a zombie for 1.803 s",
        f"+1.204 forked  by 100 {SITE} | p.start()",
        "start   polled no child; forked (method fork); child set now 1",
        "+1.406 exited  0 after 202 ms, as its function had ended",
        f"+3.209 reaped  by 100 {SITE} > Process.start > _cleanup > poll > waitpid(4711, WNOHANG)",
        "why never joined; starting 4715 swept it away, since Process.start() first polls every child that has ended "
        "(next-start)",
    ]
    assert told(made, 2)[2:7] == [
        "start   polled 1 child, reaped 4711; forked (method fork); child set now 1",
        "+3.400 exited  0 after 190 ms, as its function had ended",
        "asked   12 times in vain at consumer.py:65 wait_all",
        "+3.500 reaped  by 100 consumer.py:70 wait_all > Process.join > wait > poll > waitpid(4715, WNOHANG)",
        "why 100 joined it; that join() came only then (join)",
    ]
    assert told(made, 3)[1:] == [
        "+3.600 forked  by thread 103 of 100, in its libraries: Pool._handle_workers > _repopulate_pool_static > Process.start",
        "start   polled no child; forked; child set now 1",
        "+3.700 exited  0 after 100 ms, as its function had ended",
        "+3.800 reaped  by thread 103 of 100, in its libraries: Pool._handle_workers > _join_exited_workers > "
        "Process.join > wait > poll > waitpid(4720, WNOHANG)",
        "why it was a worker of a pool; the pool reaps its workers from a thread of its own, or when it is joined or "
        "terminated (pool)",
        "fix leave the pool by close() and join(), or terminate() (join() blocks until the work is done; `with Pool()` "
        "terminates it)",
    ]
    assert told(made, 4)[:5] == [
        "4730 was still a zombie after 99 ms, when the recording ended",
        "+3.850 forked  by 100 consumer.py:80 run > Popen",
        "+3.851 ran     sleep 5",
        "+3.901 killed  by SIGTERM after 51 ms, sent by 100 consumer.py:44 stop > Popen.terminate > Popen.send_signal"
        " | p.terminate()",
        "why nobody has waited for it: neither join, nor poll, nor wait of 100 came before the recording ended (never)",
    ]


def test_a_program_without_python() -> None:
    """What forked and reaped has no lines; what helps is said for C."""
    rows = [*child(500, 10, 20), *child(501, 10, 20), ev.reap(90 * MS, 500, by=100, stack_status="not-python")]
    rows = [row | {"stack_status": "not-python"} if row["kind"] == "fork" else row for row in rows]
    made = recording(target(comm="make"), *rows)
    assert told(made, 1) == [
        "500 was a zombie for 70 ms",
        "+0.010 forked  by 100 make (not a Python program)",
        "+0.020 exited  0 after 10 ms",
        "+0.090 reaped  by 100 make with wait4(500) (not a Python program)",
        "why code that is not Python waited for it: a C library, or a program that has no Python in it (other-native)",
    ]
    assert told(made, 2)[-3:] == [
        "fix one of:",
        "- call waitpid() for it in 100 (blocks until it ends; with WNOHANG a zombie until the next call)",
        "- set SIGCHLD to SIG_IGN in 100 (no zombies, but exit codes are lost)",
    ]


def test_a_trace_with_a_theft() -> None:
    """The wait for any child that took what a Popen waited for."""
    made = with_stacks()
    assert told(made, 5)[4:] == [
        "+3.950 reaped  by 100 reaper.py:9 reap_all > waitpid(-1)",
        "stolen by 100 at reaper.py:9 reap_all",
        "from subprocess, which waits for it at consumer.py:81 run, and got returncode 0, whatever it was",
        "why 100 itself called a wait function of the os module (os-wait)",
        "fix reaper.py:9, one of:",
        "- wait for your own children by number, never for any child (a call for each child)",
        "- leave the waiting to what made it (nothing: it waits anyway)",
    ]


def test_names_cannot_steer_the_terminal() -> None:
    """Control characters, line breaks and markup from the trace are printed as what they are."""
    evil = "\x1b]0;x\x07\n[bold]\u202e"
    rows = [target(comm=evil[:15]), ev.source(0, f"/{evil}", 33, evil), *child(4711, 1204, 1406)]
    rows += [ev.exec_(1210 * MS, 4711, [evil]), REAP]
    made = recording(*rows, command=[evil])
    site = f"{evil}:33 {evil}"
    known(
        made, fork_site={1: site}, fork_stack={1: f"/{site}"}, reap_site={1: site}, reap_stack={1: f"/{site};x{evil}:1 {evil}"}
    )
    stolen(
        known(made, exit_site={1: site}, killer_site={1: site}, notes={1: evil}), thief_site=site, owner_site=site, seen=evil
    )
    for process in (0, 1):
        written = text(made, process, width=300)
        assert all(one.isprintable() for one in written.splitlines())
        assert r"\x1b]0;x\x07\n[bold]\u202e" in written


def test_calls_in_the_middle_are_left_out() -> None:
    """Of a long chain its two ends are shown."""
    stack = "/srv/a.py:1 main;" + ";".join(f"{LIBRARY}/x.py:{n} f{n}" for n in range(10))
    calls = recording(target()).calls(stack)
    assert calls_of("a.py:1 main", calls) == (True, ["f0", "f1", "...", "f7", "f8", "f9"])
    assert calls_of("gone.py:1 main", calls) == (True, [])


def test_a_handler_among_the_calls() -> None:
    """Where the interpreter ran a handler of a library on top of what it interrupted, the chain says so."""
    stack = f"/srv/a.py:1 main;<signal handler>:0 SIGCHLD;{LIBRARY}/asyncio/unix_events.py:9 _sig_chld"
    calls = recording(target()).calls(stack)
    assert calls_of("a.py:1 main", calls) == (True, ["handler of SIGCHLD", "_sig_chld"])
    assert calls_of("unix_events.py:9 _sig_chld", calls) == (False, ["handler of SIGCHLD", "_sig_chld"])


def test_packages_among_the_calls() -> None:
    """Where the chain comes into an installed package the file says which; after that its functions do."""
    packages = f"{LIBRARY}/site-packages"
    stack = f"/srv/a.py:1 main;{packages}/rq/worker.py:5 work;{packages}/rq/horse.py:6 fork;{LIBRARY}/pty.py:89 fork"
    made = of_child(REAP, **FORKED | {"fork_stack": stack, "fork_site": "a.py:1 main"})
    assert line(made, "+1.204 forked") == "by 100 a.py:1 main > rq/worker.py work > fork > pty.fork"
    calls = made.calls(stack)
    assert calls_of("rq/worker.py:5 work", calls) == (True, ["fork", "pty.fork"])
    assert [passes_a_package(site, calls) for site in ("a.py:1 main", "rq/horse.py:6 fork", "gone.py:1 x")] == [
        True,
        False,
        False,
    ]
    named = f"/srv/a.py:1 main;{packages}/pexpect/pty_spawn.py:3 wait;{packages}/ptyprocess/ptyprocess.py:4 f"
    assert calls_of("a.py:1 main", made.calls(named))[1] == ["pexpect.spawn.wait", "ptyprocess/ptyprocess.py f"]


def test_who_killed_it_through_a_library() -> None:
    """The chain from the line to the kill call, as of forks and reaps."""
    kill = f"/srv/a.py:1 main;{LIBRARY}/site-packages/rq/worker.py:5 kill_horse"
    rows = [target(), ev.fork(MS, 500, by=100), ev.signal(2 * MS, 500, 9, by=100, stack=kill, stack_status="ok")]
    made = recording(*rows, ev.exit_(3 * MS, 500, 9, parent=100), ev.zombie(3 * MS, 500, parent=100))
    assert line(made, "+0.003") == "killed  by SIGKILL after 2.0 ms, sent by 100 a.py:1 main > rq/worker.py kill_horse"


def test_the_innermost_of_equal_frames() -> None:
    """In a recursion the last of the equal frames is the site."""
    stack = "/srv/a.py:1 walk;/srv/a.py:1 walk;/usr/lib/python3.11/subprocess.py:1 wait"
    assert calls_of("a.py:1 walk", recording(target()).calls(stack)) == (True, ["Popen.wait"])


def test_two_files_of_one_name_have_no_text() -> None:
    """Which source line it is must be certain."""
    rows = [ev.source(0, "/a/x.py", 33, "p.start()"), ev.source(0, "/b/x.py", 33, "q.start()")]
    made = of_child(REAP, more=rows, **FORKED | {"fork_site": "x.py:33 f"})
    assert line(made, "+1.204").endswith("x.py:33 f")
    assert line(known(made, fork_site={1: "a/x.py:33 f"}), "+1.204").endswith("a/x.py:33 f | p.start()")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        *(("p.start()", "p"), ("self.workers[0].start()", "the Process"), ("self.worker.start()", "self.worker")),
        *(("Process(target=f).start()", "the Process"), ("pid = os.fork()", "pid"), ("if os.fork() == 0:", "the Process")),
        *(("p = subprocess.Popen(['x'])", "p"), ("if a == Popen(x):", "the Process"), (None, "the Process")),
        ("proc = await asyncio.create_subprocess_exec('x')", "proc"),
    ],
)
def test_what_the_program_calls_it(source: str | None, name: str) -> None:
    """The fix speaks of the variable that the source line names."""
    assert explanations.object_of(source, "the Process") == name


def test_the_texts_are_complete() -> None:
    """Every cause, creator, way to exit and status of a stack has its words; every remedy is of use, and names exist."""
    texts = explanations.texts()
    assert set(texts["cause"]) == set(CAUSES)
    assert set(texts["creator"]) == {*CREATORS, "orphan"}
    assert set(texts["exit-path"]) <= {*EXIT_PATHS, "failed"}
    assert set(texts["stack-count"]) == {*ev.STACK_STATUSES} - {"ok"}
    assert set(texts["stack-status"]) == {*texts["stack-count"], "denied", "ended"}  # of a running process there are more
    fixes = ("fix", "fix_nohang", "fix_inside")
    used = {name for kind in ("cause", "creator") for one in texts[kind].values() for key in fixes for name in one.get(key, [])}
    used |= {name for one in texts["cause"].values() for names in one.get("fix_of", {}).values() for name in names}
    assert {made for one in texts["cause"].values() for made in one.get("fix_of", {})} <= set(CREATORS)
    assert used | {"own-children", "leave-it"} == set(texts["remedy"])
    assert {one.get("at", "fork") for one in texts["cause"].values()} == {"fork", "reap", "none"}


def test_where_events_were_lost() -> None:
    """Nothing is said of a fork, an end or a release that nobody saw."""
    rows = [target(), ev.fork(MS, 500, by=100), *child(501, 10, 20), ev.exit_(30 * MS, 502, parent=100) | {"start_ns": 2 * MS}]
    rows += [ev.lost(40 * MS, 3, "reap"), ev.end(50 * MS, '{"still": {"at_ns": 40000000, "processes": [[100, 0, 0]]}}')]
    made = recording(*rows, closed=False)
    assert told(made, 1)[0] == "500* is gone; when it ended is not known"
    assert told(made, 3)[0] == "501* was a zombie; for how long is not known"
    assert "gone    some time later; its release was not seen" in told(made, 3)
    assert line(made, "+0.002", 2) == "began   by a fork that was not seen"


def test_what_no_recorder_says() -> None:
    """A hostile trace may name a thread alone, a source line without a text, and a child that was reaped before it was made."""
    stack = "/x.py:7 main;/usr/lib/python3.11/multiprocessing/popen_fork.py:66 _launch"
    silent = ev.source(MS, "/x.py", 7, "x") | {"detail": None}
    early = [ev.fork(9 * MS, 500, by=100, stack=stack, stack_status="ok"), ev.exit_(10 * MS, 500, parent=100)]
    early.append(
        ev.reap(10 * MS, 500, by=100, stack=stack.replace("66 _launch", "27 poll"), stack_status="ok") | {"time_ns": 8 * MS}
    )
    assert told(recording(target(), silent, *early))
    rows = [target(), *child(500, 10, 20), ev.reap(90 * MS, 500, by=100) | {"by_pid": None, "by_start_ns": 7, "by_tid": 9}]
    assert told(recording(*rows))
    assert "no line" in " ".join(told(of_child(fork_stack_status="ok")))


FULL = {"detail": "RLIMIT_NPROC", "count": 20}


def test_forks_that_failed() -> None:
    """Of who could not fork: when, why, how often, and the zombies that took the room."""
    rows = [
        *child(500, 10, 20),
        *(ev.fork_failed(at * MS, 100, 11, **FULL) for at in (30, 40)),
        ev.fork_failed(50 * MS, 100, 12),
    ]
    made = recording(target(), *rows, END, closed=False)
    said = [one for one in told(made, 0) if "could not fork" in one]
    assert said == [
        "+0.030 could not fork: EAGAIN (RLIMIT_NPROC of 20), 2 times from here on; 1 zombie counts against that limit then",
        "+0.050 could not fork: ENOMEM",
    ]


def test_the_damage_that_a_zombie_did() -> None:
    """Forks of its parent that met a limit while it was there; none of before and after, of other errors, of others."""
    rows = [*child(500, 10, 20), ev.fork_failed(15 * MS, 100, 11, **FULL), *child(501, 12, 14)]
    rows += [ev.fork_failed(at * MS, 100, 11, **FULL) for at in (30, 40)] + [ev.fork_failed(41 * MS, 100, 12)]
    rows += [ev.fork_failed(42 * MS, 501, 11, **FULL), ev.reap(50 * MS, 500, by=100), ev.fork_failed(60 * MS, 100, 11, **FULL)]
    said = [one for one in told(recording(target(), *rows, END, closed=False)) if one.startswith("damage")]
    assert said == ["damage meanwhile 2 forks of 100 failed with EAGAIN (RLIMIT_NPROC of 20); it counts against that limit"]


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "data").glob("*.arrows")), ids=lambda path: path.stem)
def test_made_for_whole_columns(path: Path) -> None:
    """What is said of all processes at once is what is said of each alone."""
    made = forktrace.read(path)
    table = made.lifecycles()
    chains = Chains(made, table)
    assert [chains.lines(row) for row in range(len(table))] == [chain(made, one) for one in table["id"]]


def test_a_line_knows_only_what_it_says_it_depends_on() -> None:
    """A section that looked at a column which it does not name could say of one process what is true of another."""
    row = namedtuple("row", ["stepped"])(stepped=True)
    with pytest.raises(AttributeError, match="sweeps"):
        list(Happened(Lookups(swept()), row).start())
