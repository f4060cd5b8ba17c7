"""The report, as it looks on 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from traces import MS, child, consumer, recording, target

from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.views.report import report
from forktrace.views.words import count, duration, some


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
    assert after("What happened", text(recording(*rows))).splitlines() == [
        "  4731 was never reaped: zombie for 1.601 s so far, the parent is 100 python.",
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
        "2 zombies outlived 10 ms, the longest with 69 ms; at most 2 at once.",
    ]


def test_without_zombies() -> None:
    """A recording without a zombie worth a word says so, and has no table of them."""
    rows = [target(), *child(500, 10, 20), ev.reap(22 * MS, 500, by=100), ev.exit_(50 * MS, 100), ev.reap(50 * MS, 100, by=50)]
    written = text(recording(*rows, ev.zombie(50 * MS, 100, parent=50)))
    assert "ran for 50 ms and exited 0; 2 processes in the recording." in written
    assert "No zombie outlived 10 ms; the longest was one for 2.0 ms." in written
    assert "Longest zombies" not in written
    assert "Not known" not in written


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
    written = text(recording(*rows, closed=False))
    assert [line.split() for line in after("Longest zombies", written).splitlines()[2:]] == [
        ["504", "sh", "-c", "'x", "y'", "exited", "0", "80", "ms", "+", "nobody", "yet"],
        ["501", "child", "SIGSEGV,", "core", "dumped", "60", "ms", "100", "waitid(any,", "WEXITED)"],
        ["502", "child", "SIGTERM", "50", "ms", "nobody:", "SIGCHLD", "ignored"],
        ["503", "child", "exited", "0", "40", "ms", "100,", "wait", "not", "seen"],
        ["500", "child", "exited", "3", "30", "ms", "100", "wait4(pid,", "WNOHANG)"],
    ]
    assert [line.split("  ")[-1].strip() for line in after("How they were reaped", written).splitlines()[2:]] == [
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
        ev.fork_failed(1204 * MS, 100, 11, detail="pids.max"),
        ev.fork_failed(1300 * MS, 100, 11, detail="pids.max"),
    ]
    rows += [row for pid in range(500, 506) for row in child(pid, 10, 2000, status=15)]
    rows += [ev.signal(1990 * MS, pid, 15, by=100) for pid in range(500, 506)]
    rows += [*child(600, 10, 2000, status=9), ev.signal(1990 * MS, 600, 9, sent_by="kernel"), ev.oom(1991 * MS, 600)]
    rows += child(601, 10, 2000, status=31)
    written = text(recording(*rows))
    assert after("Failed forks", written) == "  2 forks of 100 python failed with EAGAIN (pids.max), first at +1.204 s."
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
    assert "Events were lost: 3 exit. Processes that lived then are not complete." in written.split("What happened")[0]
    doubts = after("Not known for sure", written)
    assert "1 process: reap not seen; time is an upper bound; events were lost while it\n  lived." in doubts


def test_balance_is_only_shown_when_it_does_not_hold() -> None:
    """A sum that does not come out is told; one that does is not."""
    rows = [target(), *child(500, 10, 20)]
    assert "were started" not in text(recording(*rows, ev.end(30 * MS, '{"processes": 2}'), closed=False))
    written = text(recording(*rows, ev.end(30 * MS, '{"processes": 3}'), closed=False))
    assert "3 processes were started, but known are 0 reaped, 0 autoreaped, 1 zombies, 1\n  running and 0 lost." in written


def test_part() -> None:
    """A report of a part says so."""
    made = recording(*consumer(10), closed=False)
    assert "Only a part is shown: 1 process, from +0.100 s, until +0.900 s." in text(made.between(100 * MS, 900 * MS).of(3))


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
    assert after("What happened", text(recording(*rows), width=200)).splitlines()[0] == (
        "  501 was a zombie for 100 ms, until 1, which had adopted it, reaped it; that was not seen and may have been earlier."
    )


def test_names_cannot_steer_the_terminal() -> None:
    """Control characters, line breaks and markup from the trace are printed as what they are."""
    evil = "\x1b]0;x\x07\n[bold]\u202e"
    rows = [target(comm=evil[:15]), ev.exec_(MS, 100, [evil], file=evil), *child(500, 10, 20), ev.exec_(11 * MS, 500, [evil])]
    written = text(recording(*rows, command=[evil]), width=200)
    assert all(line.isprintable() for line in written.splitlines())
    assert r"\x1b]0;x\x07\n[bold]\u202e" in written


@pytest.mark.parametrize("children", [0, 3, 30, 300])
def test_fits(children: int) -> None:
    """No line is wider than the terminal, at 80 columns and at 50; colours only where there is a terminal."""
    made = recording(*(consumer(children) if children else [target()]), closed=False)
    for width in (50, 80):
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
