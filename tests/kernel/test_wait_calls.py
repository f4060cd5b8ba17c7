"""Every way to wait, and what is not a reap."""

import pytest
from recorded import Recorded

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("case", "count"),
    [
        ("wait4", 7),
        ("waitid", 9),
        ("no-result", 9),
        ("efault", 6),
        ("stops", 3),
        ("peeks", 2),
        ("traced-by-parent", 3),
        ("blocking", 2),
    ],
)
def test_reap(suite: Recorded, case: str, count: int) -> None:
    """Call, target and options of a reap are those that the reaper used, whatever the kernel told it."""
    lines = suite.of(case, "waits")
    assert len(lines) == count
    suite.assert_agrees(lines)


def test_stops_are_no_reaps(suite: Recorded) -> None:
    """3 stops and 3 continues are wait events; the one reap is that of the exit, with a status pointer or without."""
    for line in suite.of("stops", "waits")[:2]:
        waits = suite.events_of(line["pid"], "wait")
        assert len(waits) == line["stops"] + line["continues"]
        assert len(suite.events_of(line["pid"], "reap")) == 1


def test_stops_are_signals(suite: Recorded) -> None:
    """Each SIGSTOP is in signals(), with its sender, and killed nobody."""
    signals = suite.recording.signals()
    for line in suite.of("stops", "waits"):
        own = signals[signals["id"] == suite.id_of(line["pid"])]
        assert own["signal"].tolist() == ["SIGSTOP"] * line["stops"]
        assert own["sender_pid"].tolist() == [line["reaper_pid"]] * line["stops"]
        assert not own["fatal"].any()


def test_peeks_are_no_reaps(suite: Recorded) -> None:
    """waitid with WNOWAIT leaves the zombie: it lasts until the wait4."""
    for line in suite.of("peeks", "waits"):
        assert suite.row(line["pid"])["zombie_ms"] >= 20
        reaper = suite.raw["by_pid"] == line["reaper_pid"]
        peeks = suite.raw[
            reaper & (suite.raw["kind"] == "wait") & (suite.raw["flags"].fillna(0).astype("int64") & 0x1000000 != 0)
        ]
        assert len(peeks) == 2 * line["peeks"]


def test_empty_waits_of_a_child(suite: Recorded) -> None:
    """Calls for one child that found it alive are counted in its row."""
    (line,) = suite.of("empty-child", "waits")
    suite.assert_agrees([line])
    waits = suite.recording.waits()
    assert waits.loc[waits["id"] == suite.id_of(line["reaper_pid"]), "empty"].sum() == line["empty_waits"]


def test_empty_waits_for_any(suite: Recorded) -> None:
    """Calls for any child or a group that found nothing are counted by place: empty and ECHILD apart."""
    (line,) = suite.of("empty-any", "waits")
    suite.assert_agrees([line])
    waits = suite.recording.waits()
    own = waits[waits["id"] == suite.id_of(line["reaper_pid"])]
    by_target = own.groupby("target", observed=True)[["empty", "no_child"]].sum()
    assert by_target.loc["any"].tolist() == [line["empty_any"], line["no_child"]]
    assert by_target.loc["pgid"].tolist() == [line["empty_pgid"], 0]


def test_interrupted_waits(suite: Recorded) -> None:
    """A wait that a signal interrupts is counted as such, not as an error."""
    (line,) = suite.of("interrupted", "waits")
    suite.assert_agrees([line])
    waits = suite.recording.waits()
    assert waits.loc[waits["id"] == suite.id_of(line["reaper_pid"]), "interrupted"].sum() == line["interrupted"]


def test_io_uring(suite: Recorded) -> None:
    """A reap by io_uring's waitid, without a wait system call, is seen with its reaper."""
    lines = suite.of("io_uring", "uring")
    if not lines:
        assert any("io_uring" in lack for lack in suite.recording.header["lacks"])
        pytest.skip("this kernel's io_uring has no waitid")
    assert len(lines) == 3
    suite.assert_agrees(lines)


def test_under_strace(suite: Recorded) -> None:
    """A tracer's wait is no reap: every child of a traced program is reaped once, by its real parent."""
    lines = [line for line in suite.lines if line.get("program") == "strace" and "reaper_pid" in line]
    if not lines:
        pytest.skip("strace is not installed")
    assert len(lines) == 25
    suite.assert_agrees(lines)
    for line in lines:
        assert len(suite.events_of(line["pid"], "reap")) == 1
