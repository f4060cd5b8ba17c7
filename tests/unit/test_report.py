"""The report, as it looks on 80 columns."""

from __future__ import annotations

import io
import re

import pandas as pd
import pytest
from rich.console import Console
from traces import BOOT_NS, MS, child, consumer, known, recording, target

from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.trace.words import NO_PROCESS, count, duration
from forktrace.views.text.report import report
from forktrace.views.words import some


def text(made: Recording, width: int = 80, **console: object) -> str:
    """Return the report as it is printed into a pipe."""
    file = io.StringIO()
    report(made, Console(file=file, width=width, **console))
    return file.getvalue()


def after(title: str, report: str) -> str:
    """Return the part of a report below a title, up to the next."""
    return report.partition(f"{title}\n")[2].partition("\n\n")[0].rstrip("\n")


def test_both_phenomena_in_words() -> None:
    """One at a time: until the next start. A burst: cleared together by one start. Never reaped: the age so far."""
    rows = [target(), *child(4711, 100, 200), ev.reap(2003 * MS, 4711, by=100, options=1), *child(4715, 2003, 2100)]
    burst = [*(range(4720, 4725)), 4715]
    rows += [row for pid in burst[:-1] for row in child(pid, 2150 + pid - 4720, 2300 + pid - 4720)]
    rows += [ev.reap(3210 * MS + pid, pid, by=100, options=1) for pid in burst] + [ev.fork(3211 * MS, 4730, by=100)]
    rows += [*child(4731, 3300, 3400), ev.exit_(5000 * MS, 100, 0), ev.reap(5001 * MS, 100, by=50)]
    written = text(recording(*rows))
    assert after("Never reaped", written) == "  4731 was never reaped: zombie for 1.601 s so far, the parent is 100 python."
    assert after("What happened", written).splitlines() == [
        "  4711 was a zombie for 1.803 s, until 4715 was started.",
        "  4715, 4720, 4721 and 3 more were zombies for up to 1.110 s and were cleared",
        "  together when 4730 was started by 100.",
    ]


def test_summary() -> None:
    """The first line says how the command fared, the second how bad the zombies were."""
    rows = [target(), *child(500, 10, 20), *child(501, 11, 21), ev.reap(60 * MS, 500, by=100)]
    rows += [ev.reap(90 * MS, 501, by=100), ev.exit_(2500 * MS, 100, 9), ev.reap(2501 * MS, 100, by=50)]
    assert text(recording(*rows)).splitlines()[:3] == [
        "python consumer.py ran for 2.500 s and was killed by SIGKILL; 3 processes in the",
        "recording.",
        "2 zombies lasted longer than 10 ms (longest 69 ms), at most 2 at once.",
    ]


def test_attached() -> None:
    """A program that ran already ran for longer than the recording; a zombie time that is no exact one says so."""
    rows = [
        ev.fork(90 * MS, pid, parent=1, origin="attached", start_ns=start, call=None) for pid, start in ((100, 1), (500, 5))
    ]
    rows += [ev.exit_(60 * MS, 500, parent=100, detail=ev.FOUND_DEAD[1]), ev.end(3090 * MS)]
    written = text(recording(*rows, start_ns=90 * MS, target_start_ns=None, attached=[100]))
    assert written.startswith("python consumer.py, which ran already, was recorded for 3.000 s; 2 processes in\nthe recording.")
    assert re.search(r"500 +\S+ +exited 0 +~3.030 s \+", written)


def test_without_zombies() -> None:
    """A recording without a zombie worth a word says so, and has no table of them."""
    rows = [target(), *child(500, 10, 20), ev.reap(22 * MS, 500, by=100), ev.exit_(50 * MS, 100), ev.reap(50 * MS, 100, by=50)]
    written = text(recording(*rows, ev.zombie(50 * MS, 100, parent=50)))
    assert "ran for 50 ms and exited 0; 2 processes in the recording." in written
    assert "No zombie lasted longer than 10 ms (longest 2.0 ms)." in written
    assert "Longest zombies" not in written
    assert after("Not known for sure", written).startswith("  Recorded without Python stacks")
    assert len(after("Not known for sure", written).splitlines()) == 2


def test_without_forks() -> None:
    """A program that forked nothing has no lines to miss."""
    rows = [target(), ev.exit_(50 * MS, 100), ev.zombie(50 * MS, 100, parent=50), ev.reap(50 * MS, 100, by=50)]
    assert "stacks" not in text(recording(*rows))


def test_of_nothing() -> None:
    """Of an empty recording there is one thing to say: why it is empty."""
    written = text(recording(ev.end(5 * MS), closed=False))
    assert written == "Nothing was recorded: the command never began.\n"
    cut = text(recording(closed=False), width=200)
    assert cut == "Nothing was recorded: the recording was not closed: its last event is missing.\n"


def test_tables() -> None:
    """The longest zombies with who reaped them by which call, and how many were reaped which way."""
    rows = [target(), *child(500, 10, 20, status=3 << 8), *child(501, 10, 20, status=0x8B), *child(502, 10, 20, status=15)]
    rows += [*child(503, 10, 20), *child(504, 10, 20), ev.exec_(11 * MS, 504, ["sh", "-c", "x y"])]
    rows += [ev.reap(50 * MS, 500, by=100, options=1), ev.reap(80 * MS, 501, by=100, call="waitid", target="any", options=4)]
    rows += [ev.autoreap(70 * MS, 502), ev.reap(60 * MS, 503, by=100, call="unseen"), ev.end(100 * MS)]
    written = text(recording(*rows, closed=False), 120)
    assert [line.split() for line in after("Longest zombies", written).splitlines()[2:]] == [
        ["504", "sh", "-c", "'x", "y'", "exited", "0", "80", "ms", "+", "nobody", "yet", "never"],
        ["501", "child", "SIGSEGV,", "core", "dumped", "60", "ms", "100", "waitid(any,", "WEXITED)", "unknown"],
        ["502", "child", "SIGTERM", "50", "ms", "nobody:", "SIGCHLD", "ignored", "autoreap-ignored"],
        ["500", "child", "exited", "3", "30", "ms", "100", "wait4(pid,", "WNOHANG)", "unknown"],
        ["503", "child", "exited", "0", "<40", "ms", "100,", "wait", "not", "seen", "unknown"],
    ]
    assert [line.split("  ")[-1].strip() for line in after("Who reaped them", written).splitlines()[2:]] == [
        "30 ms",
        "60 ms",
        "50 ms",
        "40 ms",
        "80 ms",
    ]


def test_failed_forks_and_signals() -> None:
    """Failed forks with the reason and the first time; who killed whom."""
    rows = [
        target(),
        ev.fork_failed(1204 * MS, 100, 11, detail="pids.max", count=20),
        ev.fork_failed(1300 * MS, 100, 11, detail="pids.max", count=20),
    ]
    rows += [row for pid in range(500, 506) for row in child(pid, 10, 2000, status=15)]
    rows += [ev.signal(1990 * MS, pid, 15, by=100) for pid in range(500, 506)]
    rows += [*child(600, 10, 2000, status=9), ev.signal(1990 * MS, 600, 9, sent_by="kernel"), ev.oom(1991 * MS, 600)]
    rows += child(601, 10, 2000, status=31)
    written = text(recording(*rows))
    assert " ".join(after("Failed forks", written).splitlines()[-1].split()) == (
        "2 EAGAIN (pids.max of 20) ? 100 python +1.204 s 0"
    )
    assert after("Killed by a signal", written).splitlines() == [
        "  500, 501, 502 and 3 more by SIGTERM, sent by 100 python.",
        "  600 by SIGKILL, by the OOM killer: memory ran out.",
        "  601 by SIGSYS, sender not known.",
    ]


def test_what_is_not_known() -> None:
    """Losses and a cut trace are near the top; rows that are not complete are counted by their reason."""
    rows = [target(), *child(500, 10, 20), ev.reap(40 * MS, 500, by=100, call="unseen"), ev.lost(50 * MS, 3, "exit")]
    written = text(recording(*rows, closed=False))
    assert "The trace is not whole: the recording was not closed" in written.split("What happened")[0]
    above = " ".join(written.split("What happened")[0].split())
    assert "Events were lost: 3 exit. What they may have touched is marked *: numbers are then lower bounds." in above
    assert "2 processes* in the recording. 1 zombie* was reaped outside the recording or unseen, after at most 20 ms" in above
    assert "no other zombie* lasted longer than 10 ms" in above
    assert "500* was a zombie for at most 20 ms, until 100*" in " ".join(written.split())
    doubts = after("Not known for sure", written)
    assert "1 process: reap not seen; time is an upper bound; events were lost while it\n  lived." in doubts


def test_a_full_trace_says_why_it_ended() -> None:
    """With the size as it was typed; what else may stand there is none."""
    for full, words in [(100 << 20, "because the trace was full: --max-size 100M."), (65537, "--max-size 65537.")]:
        rows = [target(), ev.end(50 * MS, f'{{"full": {full}}}')]
        assert words in text(recording(*rows, closed=False))
    for full in ("null", "true", '"x"'):
        assert "full" not in text(recording(target(), ev.end(50 * MS, f'{{"full": {full}}}'), closed=False))


@pytest.mark.parametrize(
    ("step_ns", "words"),
    [(3_600_000_000_000, "set forward by 1 h 00 min during"), (-2_500 * MS, "set back by 2.500 s during"), (900 * MS, None)],
)
def test_a_clock_that_was_set(step_ns: int, words: str | None) -> None:
    """Is told, as times of day are those of the clock at the start."""
    rows = [target(), ev.end(50 * MS, f'{{"clock_offset_ns": {BOOT_NS + step_ns}}}')]
    doubts = " ".join(text(recording(*rows, closed=False, clock_offset_ns=BOOT_NS)).split())
    assert words in doubts if words else "clock" not in doubts


def test_what_the_kernel_does_not_give() -> None:
    """A kernel that lacks something is named with it, at the end; one that lacks nothing is not."""
    lacks = ["stacks at a crash", "reaps through io_uring"]
    said = " ".join(text(recording(target(), ev.exit_(9 * MS, 100), lacks=lacks)).split())
    assert "does not give: stacks at a crash; reaps through io_uring." in said
    assert "does not give" not in text(recording(target(), ev.exit_(9 * MS, 100), lacks=[]))
    refused = [f"Python stacks ({NO_PROCESS}: Cannot fork)"]
    said = " ".join(text(recording(target(), ev.exit_(9 * MS, 100), lacks=refused)).split())
    assert "Not recorded: Python stacks (no process could be started for them: Cannot fork)." in said
    assert "does not give" not in said


def test_an_interpreter_that_is_not_walked() -> None:
    """It is named, with the reason."""
    met = (
        ev.runtime(2 * MS, "/opt/pypy3.11", "", [], "it is PyPy"),
        ev.runtime(3 * MS, "/usr/bin/python3", "3.11.2", ["/usr/lib"]),
    )
    said = text(recording(target(), *met, ev.exit_(9 * MS, 100)))
    assert "The stacks of /opt/pypy3.11 are not walked: it is PyPy." in said
    assert said.count("not walked") == 1


def test_balance_is_only_shown_when_it_does_not_hold() -> None:
    """A sum that does not come out is told; one that does is not."""
    rows = [target(), *child(500, 10, 20)]
    assert "were started" not in text(recording(*rows, ev.end(30 * MS, '{"processes": 2}'), closed=False))
    written = text(recording(*rows, ev.end(30 * MS, '{"processes": 3}'), closed=False))
    assert "3 processes were started, but known are 0 reaped, 0 autoreaped, 1 zombies, 1\n  running and 0 lost." in written


def test_part() -> None:
    """A report of a part says so."""
    made = recording(*consumer(10), closed=False)
    part = text(made.between(600 * MS, 800 * MS).of(3))
    assert "when the recording ended; 11\nprocesses in the recording." in part
    assert "Only a part is shown: 1 of 11 processes, from +0.600 s, until +0.800 s." in part


LINES = {"fork_stack_status": "ok", "reap_stack_status": "ok", "created_by": "multiprocessing"}


def with_lines() -> Recording:
    """Three children of two lines, reaped at two others, one of them never."""
    rows = [target(), *child(500, 10, 20), *child(501, 10, 20), *child(502, 10, 20), *child(503, 10, 20)]
    rows += [ev.reap(90 * MS, 500, by=100, options=1), ev.fork(91 * MS, 504, by=100), ev.reap(80 * MS, 501, by=100)]
    made = recording(*rows, ev.reap(60 * MS, 503, by=100, target="any"), ev.end(100 * MS), closed=False)
    known(made, **{name: dict.fromkeys(range(1, 6), value) for name, value in LINES.items()})
    known(made, fork_site={1: "a.py:1 f", 2: "a.py:1 f", 3: "b\x1b.py:2 g", 4: "a.py:1 f", 5: "a.py:1 f"})
    known(made, reap_site={1: "a.py:1 f", 2: "c.py:3 h", 4: "c.py:3 h"}, cleared_by_id={1: 5})
    return known(made, reap_cause={1: "next-start", 2: "join", 3: "never", 4: "join"})


def test_lines_of_the_program() -> None:
    """Which line reaped how many and why, which line started them, and the lines in the sentences."""
    written = text(with_lines())
    assert after("Never reaped", written).splitlines() == [
        r"  502 was never reaped: zombie for 80 ms so far, the parent is 100 python,",
        r"  started at b\x1b.py:2.",
    ]
    assert after("What happened", written).splitlines() == [
        "  500 was a zombie for 70 ms, until 504 was started at a.py:1.",
        "  501 was a zombie for 60 ms, until 100 reaped it at c.py:3 (joined).",
        "  503 was a zombie for 40 ms, until 100 reaped it at c.py:3 (joined).",
    ]
    assert [line.split() for line in after("Longest zombies", text(with_lines(), 120)).splitlines()[2:4]] == [
        ["502", "child", r"b\x1b.py:2", "exited", "0", "80", "ms", "+", "nobody", "yet", "never"],
        ["500", "child", "a.py:1", "exited", "0", "70", "ms", "100", "a.py:1", "next-start"],
    ]
    assert [line.split() for line in after("Why they were reaped", written).splitlines()[2:]] == [
        ["2", "join", "joined", "60", "ms", "100", "ms"],
        ["1", "never", "never", "reaped", "80", "ms", "80", "ms"],
        ["1", "next-start", "swept", "by", "the", "next", "start", "70", "ms", "70", "ms"],
    ]
    assert [line.split() for line in after("Who reaped them", written).splitlines()[2:]] == [
        ["2", "100", "python", "c.py:3", "h", "60", "ms"],
        ["1", "100", "python", "a.py:1", "f", "70", "ms"],
        ["1", "nobody", "yet", "80", "ms"],
    ]
    assert [line.split() for line in after("Where they were started", written).splitlines()[2:]] == [
        ["4", "a.py:1", "f", "multiprocessing", "70", "ms"],
        ["1", r"b\x1b.py:2", "g", "multiprocessing", "80", "ms"],
    ]
    assert "Not known" not in written.replace(after("Not known for sure", written), "").replace("Not known for sure", "")


def test_many_lines_are_summed_up() -> None:
    """Ten rows of a table, and one for all the rest."""
    rows = [target(), *(row for pid in range(500, 513) for row in child(pid, 10, 20))]
    made = recording(*rows, *(ev.reap(90 * MS + pid, pid, by=100) for pid in range(500, 513)))
    sites = {number: f"a.py:{number} f" for number in range(1, 14)}
    known(made, fork_site=sites, reap_site=sites, created_by=dict.fromkeys(sites, "subprocess"))
    written = text(made)
    assert after("Who reaped them", written).splitlines()[-1].split() == ["3", "in", "3", "other", "ways", "70", "ms"]
    assert after("Where they were started", written).splitlines()[-1].split() == ["3", "at", "3", "other", "lines", "70", "ms"]
    assert len(after("Where they were started", written).splitlines()) == 13


def test_a_swept_group_names_the_line() -> None:
    """Those that one start cleared together are told with the line of that start."""
    rows = [target(), *child(500, 10, 20), *child(501, 10, 20), ev.reap(90 * MS, 500, by=100, options=1)]
    made = recording(*rows, ev.reap(90 * MS, 501, by=100, options=1), ev.fork(91 * MS, 504, by=100))
    known(made, reap_site={1: "a.py:1 f", 2: "a.py:1 f"}, cleared_by_id={1: 3, 2: 3})
    assert after("What happened", text(made, 200)) == (
        "  500 and 501 were zombies for up to 70 ms and were cleared together when 504 was started by 100 at a.py:1."
    )


def test_causes_that_only_the_kernel_tells() -> None:
    """Without any cause there is no table of them, and no column."""
    rows = [target(), *child(500, 10, 20), ev.reap(90 * MS, 500, by=100)]
    written = text(known(recording(*rows), reap_cause={1: pd.NA}))
    assert "Why they were reaped" not in written
    assert "why" not in written
    assert "Where they were started" not in written


def test_stolen() -> None:
    """Whose line took whose exit status, and what the other line got to see."""
    made = recording(target(), *child(500, 10, 20), *child(501, 10, 20))
    one = {"time_ns": MS, "thief_id": 0, "thief_tid": 100, "created_by": "subprocess"}
    one |= {"thief_site": "a.py:1 f", "owner_site": "b.py:2 \x1b", "seen": "ECHILD"}
    made.__dict__["_stolen"] = pd.DataFrame([one | {"id": 1}, one | {"id": 2}]).convert_dtypes()
    assert after("Stolen exit statuses", text(made, 200)) == (
        r"  500 and 501: 100 python at a.py:1 f took what subprocess waits for at b.py:2 \x1b, which got ECHILD, no such child."
    )
    nothing = dict.fromkeys(("created_by", "thief_site", "owner_site", "seen"))
    made.__dict__["_stolen"] = pd.DataFrame([one | nothing | {"id": 1}]).convert_dtypes()
    assert after("Stolen exit statuses", text(made, 200)) == "  500: 100 python took what its owner waits for."
    by_hand = nothing | {"created_by": "os-fork"}
    made.__dict__["_stolen"] = pd.DataFrame([one | by_hand | {"id": 1}, one | by_hand | {"id": 2}]).convert_dtypes()
    assert after("Stolen exit statuses", text(made, 200)) == "  500 and 501: 100 python took what their owner waits for."
    assert "Stolen" not in text(recording(target()))


def test_lines_of_failed_forks_and_of_killers() -> None:
    """The line that could not fork, and the line that killed."""
    rows = [target(), ev.fork_failed(MS, 100, 11), ev.fork_failed(2 * MS, 100, 11), *child(500, 10, 20, status=9)]
    made = known(
        recording(*rows), killer_kind={1: "process"}, killer_id={1: 0}, killer_pid={1: 100}, killer_site={1: "k.py:5 g"}
    )
    made.failed_forks()["site"] = pd.array(["a.py:1 f", "b.py:2 \x1b"], dtype="string")
    assert [" ".join(line.split()) for line in after("Failed forks", text(made)).splitlines()[2:]] == [
        "1 EAGAIN a.py:1 f 100 python +0.001 s -",
        r"1 EAGAIN b.py:2 \x1b 100 python +0.002 s -",
    ]
    assert after("Killed by a signal", text(made)) == "  500 by SIGKILL, sent by 100 python at k.py:5 g."


def test_zombies_at_a_failed_fork() -> None:
    """How many zombies took places under the limit that was met; of another error they are not to blame."""
    rows = [target(), *child(500, 10, 20), *child(501, 10, 20), ev.fork_failed(30 * MS, 100, 11, detail="pids.max")]
    rows += [ev.reap(40 * MS, 500, by=100), ev.fork_failed(50 * MS, 100, 11, detail="RLIMIT_NPROC", count=2)]
    rows += [ev.fork_failed(60 * MS, 100, 12)]
    assert [" ".join(line.split()) for line in after("Failed forks", text(recording(*rows))).splitlines()[2:]] == [
        "1 EAGAIN (pids.max) ? 100 python +0.030 s 2",
        "1 EAGAIN (RLIMIT_NPROC of 2) ? 100 python +0.050 s 1",
        "1 ENOMEM ? 100 python +0.060 s -",
    ]


def test_the_same_failure_in_many_processes() -> None:
    """Nine processes that met one limit at one line are one row."""
    rows = [target(), *(row for pid in range(500, 509) for row in child(pid, 10, 200))]
    rows += [ev.fork_failed((30 + pid) * MS, pid, 11, detail="pids.max", count=20) for pid in range(500, 509)]
    made = recording(*rows)
    made.failed_forks()["site"] = pd.array(["a.py:1 f"] * 9, dtype="string")
    (row,) = after("Failed forks", text(made)).splitlines()[2:]
    assert " ".join(row.split()) == "9 EAGAIN (pids.max of 20) a.py:1 f 9 processes +0.530 s 9"
    assert "9 forks failed; " in text(made)


def test_the_command_itself_is_accused_of_nothing() -> None:
    """forktrace is its parent: how long it took to reap it is in no sentence and no table."""
    rows = [target(), ev.exit_(50 * MS, 100, parent=50), ev.zombie(50 * MS, 100, parent=50), ev.reap(90 * MS, 100, by=50)]
    for more in ([], [*child(500, 10, 20), ev.reap(22 * MS, 500, by=100)]):
        written = text(recording(*rows, *more))
        assert "lasted longer than 10 ms" in written
        assert "40 ms" not in written
        assert "forktrace" not in written
        assert "recorder" not in written
    assert "No zombie lasted longer than 10 ms." in text(recording(*rows))
    open_ = text(recording(*rows[:-1], ev.end(95 * MS), closed=False))
    assert "never reaped" not in open_


def orphaning(pid: int, fork_ms: int, exit_ms: int) -> list[ev.Row]:
    """Return a child whose own children init inherits when it exits."""
    made, exit_, zombie = child(pid, fork_ms, exit_ms)
    return [made, exit_ | {"adopter_pid": 1}, zombie]


def test_upper_bounds_never_lead() -> None:
    """What was reaped unseen does not come before what is known; what init inherited counts until then."""
    rows = [target(), *orphaning(500, 10, 100), *child(501, 20, 60, by=500), ev.reap(150 * MS, 500, by=100)]
    rows += [*child(502, 30, 40), ev.reap(2000 * MS, 502, by=100, call="unseen")]
    rows += [ev.zombie(100 * MS, 501, parent=1), ev.reap(1900 * MS, 501, by=1), ev.exit_(2100 * MS, 100)]
    written = text(recording(*rows), 200)
    assert "2 zombies lasted longer than 10 ms (longest 50 ms)" in written
    assert "1 more zombie was reaped outside the recording or unseen, after at most 1.960 s." in written
    assert [line.split(" was")[0].strip() for line in after("What happened", written).splitlines()] == ["500", "501", "502"]
    assert [line.split()[0] for line in after("Longest zombies", written).splitlines()[2:]] == ["500", "501", "502"]
    assert "501 was a zombie for 40 ms, until its parent 500 child ended without a wait." in written
    assert "502 was a zombie for at most 1.960 s" in written


@pytest.mark.parametrize("call", ["unseen", "wait4"])
def test_zombies_that_their_parent_left(call: str) -> None:
    """A consumer that never waits had them until it ended, whoever reaped them then, when, and seen or not."""
    rows = [target(), *orphaning(500, 5, 900)]
    for pid, exit_ms in ((501, 20), (502, 30), (503, 899)):
        rows += [*child(pid, 10, exit_ms, by=500), ev.zombie(900 * MS, pid, parent=1)]
        rows.append(ev.reap(1900 * MS, pid, by=1, call=call))
    rows += [ev.reap(900 * MS, 500, by=100), ev.exit_(2100 * MS, 100)]
    written = " ".join(text(recording(*rows), 200).split())
    assert "2 zombies lasted longer than 10 ms (longest 880 ms), at most 3 at once; 1 more zombie was reaped outside" in written
    assert "501 and 502 were zombies for up to 880 ms, until their parent 500 child ended without a wait." in written
    assert (">880 ms" in written) == (call == "unseen")


def test_many_reapers_of_one_kind() -> None:
    """Who reaped is told by line, or by program and call, and not by number, where there are several."""
    rows = [target()]
    for pid in (500, 510, 520):
        rows += [*child(pid, 10, 900), *child(pid + 1, 20, 30, by=pid), ev.reap(40 * MS + pid, pid + 1, by=pid, target="any")]
        rows += [*child(pid + 2, 20, 30, by=pid), ev.reap(41 * MS + pid, pid + 2, by=pid)]
    made = recording(*rows)
    table = made.lifecycles()
    known(made, reap_site=dict.fromkeys(table["id"][table["pid"].mod(10) == 2], "a.py:1 f"))
    written = [" ".join(line.split()) for line in after("Who reaped them", text(made)).splitlines()[2:]]
    assert "3 child wait4(any) of 3 processes 10 ms" in written
    assert "3 a.py:1 f of 3 processes 11 ms" in written


def test_what_matters_most_comes_first() -> None:
    """Stolen, never reaped, and only then the longest zombie: in the second line, and in the order of what follows."""
    rows = [target(), *child(500, 10, 20), *child(501, 10, 90), *child(502, 10, 20), ev.reap(800 * MS, 502, by=100)]
    made = recording(*rows, ev.reap(21 * MS, 500, by=100, target="any"))
    one = {"time_ns": MS, "thief_id": 0, "thief_tid": 100, "created_by": "subprocess", "id": 1}
    one |= {"thief_site": "a.py:1 f", "owner_site": "b.py:2 g", "seen": "ECHILD"}
    made.__dict__["_stolen"] = pd.DataFrame([one]).convert_dtypes()
    written = text(made, 200)
    second = "1 exit status was stolen; 1 zombie was never reaped; 2 zombies lasted longer than 10 ms (longest 780 ms)"
    assert written.splitlines()[1].startswith(second)
    titles = [line for line in written.splitlines() if line in ("Stolen exit statuses", "Never reaped", "What happened")]
    assert titles == ["Stolen exit statuses", "Never reaped", "What happened"]


def test_missing_stacks_are_counted() -> None:
    """By reason, most first; a release without a wait has no stack to miss."""
    made = with_lines()
    known(made, fork_stack_status={1: "not-python", 2: "not-python", 3: "truncated"}, reap_stack_status={1: "lost", 3: pd.NA})
    assert (
        "No or not the whole Python stack of 4 forks and reaps: 2 not a Python program, "
        "1 too deep: the outermost frames are missing, 1 lost on the way." in text(made, 200)
    )
    assert "Python stack" not in text(with_lines())


def test_a_narrow_terminal() -> None:
    """Where a table does not fit, its rows stand one below the other, and no number is cut."""
    made = with_lines()
    narrow = text(made, 40)
    assert max(map(len, narrow.splitlines())) <= 40
    assert after("Longest zombies", narrow).splitlines() == [
        *("pid         502", "command     child", r"started at  b\x1b.py:2", "ended       exited 0"),
        *("zombie      80 ms +", "reaped by   nobody yet", "why         never"),
    ]
    for width in (40, 50, 60, 80):
        assert {"500", "501", "502", "503"} <= set(text(made, width).replace(":", " ").split())


def test_long_lines_are_cut_from_the_left() -> None:
    """The end of a path tells more than its beginning."""
    made = known(with_lines(), reap_site={1: f"{'folder/' * 9}a.py:1 f"})
    assert "100 python ...er/folder/folder/folder/folder/a.py:1  " in text(made, 120)


@pytest.mark.parametrize(("since_ms", "until_ms"), [(100_000, None), (None, -5), (1700, 1800)])
def test_an_empty_part(since_ms: int | None, until_ms: int | None) -> None:
    """Where nothing lies in the part that was asked for, that is all there is to say, and where there is something."""
    times = [None if ms is None else ms * MS for ms in (since_ms, until_ms)]
    nothing = "Nothing lies in the part that was asked for: the recording goes from +0.000 to +1.618 s.\n"
    assert text(recording(*consumer(10), closed=False).between(*times), width=100) == nothing


def test_a_part_without_the_process() -> None:
    """A process that did not live then is nothing."""
    made = recording(*consumer(10), closed=False)
    assert text(made.between(100 * MS, 500 * MS).of(3)).startswith("Nothing lies in the part that was asked for: ")


def test_a_reap_that_was_not_seen() -> None:
    """Who reaped, as whose adopter, and that the time is not known, in words."""
    rows = [target(), *child(500, 10, 100), *child(501, 20, 60, by=500), ev.reap(101 * MS, 500, by=100)]
    rows += [ev.zombie(100 * MS, 501, parent=1), ev.reap(160 * MS, 501, by=1, call="unseen", target=None)]
    (said,) = after("What happened", text(recording(*rows), width=200)).splitlines()[:1]
    assert said.startswith("  501 was a zombie for at most 100 ms, until 1, which had adopted it, reaped it; that was not seen")


def test_names_cannot_steer_the_terminal() -> None:
    """Control characters, line breaks and markup from the trace are printed as what they are."""
    evil = "\x1b]0;x\x07\n[bold]\u202e"
    rows = [target(comm=evil[:15]), ev.exec_(MS, 100, [evil], file=evil), *child(500, 10, 20), ev.exec_(11 * MS, 500, [evil])]
    written = text(recording(*rows, command=[evil]), width=200)
    assert all(line.isprintable() for line in written.splitlines())
    assert r"\x1b]0;x\x07\n[bold]\u202e" in written


@pytest.mark.parametrize("children", [0, 3, 30, 300])
def test_fits(children: int) -> None:
    """No line is wider than the terminal, at 80 columns at 50 and at 40; colours only where there is a terminal."""
    made = recording(*(consumer(children) if children else [target()]), closed=False)
    for width in (40, 50, 80):
        assert max(map(len, text(made, width).splitlines())) <= width
    assert "\x1b" not in text(made)
    assert "\x1b[1m" in text(made, force_terminal=True)


def test_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR is obeyed on a terminal too."""
    made = recording(*consumer(3), closed=False)
    assert "\x1b[31m" in text(made, force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in text(made, force_terminal=True)


def test_same_number_twice() -> None:
    """Processes that had the same number are told apart by #id."""
    rows = [target(), *child(500, 10, 20), ev.reap(60 * MS, 500, by=100), *child(500, 70, 80)]
    written = text(recording(*rows, ev.end(200 * MS), closed=False))
    assert "500#1 was a zombie for 40 ms" in written
    assert "500#2 was never reaped" in written


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        *((0.031, "0.03 ms"), (4.2, "4.2 ms"), (9.96, "10 ms"), (345.4, "345 ms"), (999.6, "1.000 s"), (1803, "1.803 s")),
        *((59_999.6, "1 min 00 s"), (725_000, "12 min 05 s"), (3_599_600, "1 h 00 min"), (10_920_000, "3 h 02 min")),
    ],
)
def test_duration(ms: float, words: str) -> None:
    """A duration has about four digits."""
    assert duration(ms) == words


def test_counts_and_lists() -> None:
    """Counts have plurals, long lists an end."""
    assert [count(n, "process") for n in (0, 1, 1234)] == ["0 processes", "1 process", "1,234 processes"]
    names = ["1", "2", "3", "4"]
    assert [some(names[:n], n) for n in (1, 2, 4)] == ["1", "1 and 2", "1, 2, 3 and 4"]
    assert some(names, 7) == "1, 2, 3 and 4 more"


def test_what_a_trace_does_not_say() -> None:
    """A reap without its call, a failed fork without its error: no recorder writes them, and they are read all the same."""
    rows = [target(), *child(500, 10, 20), ev.reap(90 * MS, 500, by=100) | {"call": None}]
    assert "100 called ?(pid)" in text(recording(*rows))
    failed = ev.fork_failed(MS, 100, 11) | {"result": None}
    assert "an unknown error" in after("Failed forks", text(recording(target(), failed)))


def test_who_is_gone_and_when_is_not_known() -> None:
    """Lost releases are no zombies that nobody reaped; the command itself has ended, too; sums are marked."""
    rows = [target(), *child(500, 10, 20), ev.fork(MS, 501, by=100), ev.reap(9 * MS, 501, by=100), ev.lost(30 * MS, 3, "reap")]
    rows += [ev.end(50 * MS, '{"processes": 3, "still": {"at_ns": 40000000, "processes": []}}')]
    written = text(recording(*rows, closed=False))
    assert "python consumer.py ended; when and how is not known; 3 processes* in" in written
    assert "never reaped" not in written
    assert "processes*   reaped by" in written
    assert "longest zombie*" in written
    assert "3 processes were started: 1 reaped, 0 autoreaped, 0 zombies, 0 running and 2\n  lost." in written
