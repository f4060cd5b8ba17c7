"""A recording, its parts, and its balance."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pandas as pd
import pytest
from traces import BOOT_NS, MS, cells, child, consumer, recording, target

import forktrace
from forktrace.analysis.recording import Balance
from forktrace.analysis.selection import parse_time
from forktrace.errors import UsageError
from forktrace.trace import events as ev

FAMILY = [target(), *child(500, 10, 20), ev.reap(30 * MS, 500, by=100), *child(600, 40, 50), ev.fork(45 * MS, 700, by=600)]


@pytest.fixture
def an_hour_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose time zone is an hour east of Greenwich."""
    monkeypatch.setenv("TZ", "XXX-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_public_names() -> None:
    """The package has the names that it promises, and no others."""
    for name in forktrace.__all__:
        assert getattr(forktrace, name) is not None
    with pytest.raises(AttributeError):
        _ = forktrace.nothing


def test_between_takes_who_lived_then() -> None:
    """Of a stretch of time a process counts if it lived or was a zombie at any moment of it, with its whole row."""
    whole = recording(*FAMILY)
    assert whole.between(31 * MS, 39 * MS).lifecycles()["pid"].tolist() == [100]
    assert whole.between(30 * MS, 40 * MS).lifecycles()["pid"].tolist() == [100, 500, 600]
    assert whole.between(until_ns=10 * MS).lifecycles()["pid"].tolist() == [100, 500]
    assert whole.between(25 * MS, 26 * MS).lifecycles().loc[1, "zombie_ms"] == 10.0
    assert whole.lifecycles()["pid"].tolist() == [100, 500, 600, 700]


def test_between_takes_the_events_within() -> None:
    """Of the other tables those rows count whose moment lies in the stretch, its ends included."""
    part = recording(*FAMILY, ev.fork_failed(31 * MS, 100, 11), ev.signal(32 * MS, 100, 15, by=100)).between(20 * MS, 31 * MS)
    assert cells(part.events(), "time_ns", "kind") == [
        (20 * MS, "exit"),
        (20 * MS, "zombie"),
        (30 * MS, "reap"),
        (31 * MS, "fork-failed"),
    ]
    assert len(part.failed_forks()) == 1
    assert part.signals().empty
    assert part.starts().empty


def test_of_takes_a_process_and_its_descendants() -> None:
    """A process is shown with all that it and its children started, and what it did itself."""
    whole = recording(*FAMILY)
    assert whole.of(2).lifecycles()["pid"].tolist() == [600, 700]
    assert whole.of(1).lifecycles()["id"].tolist() == [1]
    assert cells(whole.of(3).events(), "kind", "id") == [("fork", 3)]
    assert whole.of(0).events()["kind"].tolist() == [kind for kind in whole.events()["kind"] if kind != "end"]
    assert cells(whole.of(1).zombie_count()) == [(20 * MS, 0, 1), (30 * MS, 0, 0)]


def test_seconds_count_from_the_start_of_the_target() -> None:
    """A column of ns becomes seconds, exact to the ns after years of uptime; what is not known is NaN, before or after."""
    years_ns = 2**60
    made = recording(target(years_ns), *child(500, years_ns // MS + 1500, years_ns // MS + 1700))
    moments = pd.Series([years_ns, years_ns + 1, years_ns - 1, pd.NA], dtype="Int64")
    seconds = made.seconds(moments)
    assert seconds.dtype == "float64"
    assert seconds[:3].tolist() == [0, 1e-9, -1e-9]
    assert seconds.isna().tolist() == [False, False, False, True]
    assert made.seconds(made.events()["time_ns"]).iloc[0] == 0


def test_parts_combine() -> None:
    """A part of a part keeps both limits."""
    part = recording(*FAMILY).between(41 * MS, 100 * MS).of(0)
    assert part.lifecycles()["pid"].tolist() == [100, 600, 700]
    assert part.of(2).between(0, 44 * MS).lifecycles()["pid"].tolist() == [600]


def test_find_process() -> None:
    """A number or #id names a process; a number that several had lists them."""
    whole = recording(target(), *child(500, 10, 20), ev.reap(30 * MS, 500, by=100), *child(500, 40, 50))
    assert whole.find_process("100") == 0
    assert whole.find_process("#2") == 2
    with pytest.raises(UsageError, match="2 processes had the number 500") as caught:
        whole.find_process("500")
    assert caught.value.hint == "name one of them:\n  #1  22:13:20.010 UTC  child\n  #2  22:13:20.040 UTC  child"
    for wrong in ("7", "#7", "", "x", "-1", "#"):
        with pytest.raises(UsageError):
            whole.find_process(wrong)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0.9s", 900_000_000),
        ("900ms", 900_000_000),
        ("1.5m", 90 * 10**9),
        ("2h", 7200 * 10**9),
        ("7us", 7000),
        ("-1s", -(10**9)),
        ("+0.000000001s", 1),
        ("2023-11-14T22:13:21Z", 10**9),
        ("2023-11-14 23:13:20.5", 500_000_000),
        ("23:13:22.25", 2_250_000_000),
        ("00:13:20", 3600 * 10**9),
    ],
)
@pytest.mark.usefixtures("an_hour_east")
def test_parse_time(text: str, ns: int) -> None:
    """TIME counts from the target's start, or is a wall clock of this machine's zone: the first such time from then on."""
    assert parse_time(text, origin_ns=0, clock_offset_ns=BOOT_NS) == ns
    later = parse_time(text, origin_ns=5 * 10**9, clock_offset_ns=BOOT_NS - 5 * 10**9)
    assert later == ns + 5 * 10**9


@pytest.mark.parametrize("text", ["", "x", "5", "1.2.3s", "25:00:00", "2023-13-01", "9" * 40 + "s", "99999-01-01"])
def test_no_time(text: str) -> None:
    """What is no time is a usage error with an example."""
    with pytest.raises(UsageError) as caught:
        parse_time(text, origin_ns=0, clock_offset_ns=BOOT_NS)
    assert "0.9s" in caught.value.hint


def test_lost_counts_by_kind() -> None:
    """Losses add up per kind; none is an empty dictionary."""
    rows = [ev.lost(1 * MS, 2, "exit"), ev.lost(2 * MS, 3, "exit"), ev.lost(3 * MS, 1, "fork"), ev.lost(4 * MS, 0, "wait")]
    assert recording(target(), *rows).lost() == {"exit": 5, "fork": 1}
    assert recording(target()).lost() == {}


def test_balance() -> None:
    """Every process that was started was reaped, autoreaped, is a zombie or runs, or its fork was counted as lost."""
    rows = [*FAMILY, ev.fork(60 * MS, 800, by=100), ev.exit_(61 * MS, 800, disposition="ignored"), ev.autoreap(62 * MS, 800)]
    rows += [ev.lost(63 * MS, 2, "fork")]
    closed = recording(*rows, ev.end(64 * MS, '{"processes": 7}'), closed=False).balance()
    assert closed == Balance(started=7, reaped=1, autoreaped=1, zombie=1, running=2, lost=2)
    assert closed.holds
    assert not recording(*rows, ev.end(64 * MS, '{"processes": 8}'), closed=False).balance().holds
    assert recording(*rows, closed=False).balance() == closed


def test_a_consumer_is_in_balance() -> None:
    """The synthetic consumer of the other tests has reaped all children but the last."""
    made = recording(*consumer(30), closed=False)
    assert made.balance() == Balance(started=31, reaped=29, autoreaped=0, zombie=1, running=1, lost=0)
    assert made.start_ns == 0
    assert made.end_ns == made.trace.table["time_ns"][-1].as_py()
