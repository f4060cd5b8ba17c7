"""How processes end, who killed them, and those that nobody waits for."""

import pytest
from recorded import Recorded

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("case", "count"), [("codes", 5), ("killed", 5), ("self-killed", 5), ("timer", 3), ("pdeathsig", 3), ("caught", 3)]
)
def test_ending(suite: Recorded, case: str, count: int) -> None:
    """Code or signal, core dump and killer are those of the wait status and of who sent the signal."""
    lines = suite.of(case, "endings")
    assert len(lines) == count
    suite.assert_agrees(lines)


def test_a_caught_signal_is_not_fatal(suite: Recorded) -> None:
    """A SIGTERM that the process caught is in signals(), with its sender, and killed nobody."""
    signals = suite.recording.signals()
    for line in suite.of("caught", "endings"):
        own = signals[signals["id"] == suite.id_of(line["pid"])]
        assert own["signal"].tolist() == ["SIGTERM"]
        assert own["sender_pid"].tolist() == [line["sender_pid"]]
        assert not own["fatal"].any()


def test_a_thread_that_kills(suite: Recorded) -> None:
    """The sender of a signal is named with its thread."""
    signals = suite.recording.signals()
    line = suite.of("killed", "endings")[-1]
    own = signals[(signals["id"] == suite.id_of(line["pid"])) & signals["fatal"]]
    assert own["sender_pid"].tolist() == [line["killer_pid"]]
    assert own["sender_tid"].tolist() != [line["killer_pid"]]


def test_exit_signals(suite: Recorded) -> None:
    """Another exit signal marks the zombie like SIGCHLD; with none it begins at the exit, and the row says so."""
    lines = suite.of("exit-signals", "endings")
    assert len(lines) == 8
    suite.assert_agrees(lines)
    for line in lines:
        row = suite.row(line["pid"])
        assert (row["zombie_ns"] == row["exit_ns"]) == (line["exit_signal"] == 0)
        assert ("no exit signal" in str(row["notes"])) == (line["exit_signal"] == 0)
    assert suite.row(lines[6]["pid"])["zombie_ms"] >= 20


@pytest.mark.parametrize(("case", "count"), [("ignored", 5), ("nocldwait", 3)])
def test_autoreap(suite: Recorded, case: str, count: int) -> None:
    """Nobody waits for the children of a parent that ignores SIGCHLD or set SA_NOCLDWAIT; which of the two is recorded."""
    lines = suite.of(case, "endings")
    assert len(lines) == count
    suite.assert_agrees(lines)
    for line in lines:
        assert suite.events_of(line["pid"], "autoreap")["disposition"].tolist() == [line["how"]]
        assert not suite.row(line["pid"])["zombie_ms"] > 1
    waits = suite.recording.waits()
    assert waits.loc[waits["id"] == suite.id_of(line["ppid"]), "no_child"].sum() == 1


@pytest.mark.parametrize("case", ["ignored-amid-exit", "ignored-by-a-dying-parent"])
def test_ignored_amid_exit(suite: Recorded, case: str) -> None:
    """A parent that begins to ignore SIGCHLD while its child dies is the one that releases it, also while it dies itself."""
    lines = suite.of(case, "endings")
    assert len(lines) == 1
    suite.assert_agrees(lines)
    assert suite.events_of(lines[0]["pid"], "autoreap")["disposition"].tolist() == ["ignored"]


def test_ignored_no_more(suite: Recorded) -> None:
    """The adopter's disposition of SIGCHLD when it inherits a zombie decides, not the one a moment before."""
    (line,) = suite.of("ignored-no-more", "endings")
    row = suite.row(line["pid"])
    assert (row["ppid"], row["exit_code"]) == (line["ppid"], 42)
    assert row["reap_call"] in ("unseen", "wait4")
    told = suite.events_of(line["pid"], "zombie")["parent_pid"].tolist()
    assert told == [line["ppid"], line["heir"]]


def test_ignored_too_late(suite: Recorded) -> None:
    """Ignoring SIGCHLD does not release a child that is a zombie already."""
    lines = suite.of("ignored-too-late", "endings")
    assert len(lines) == 1
    suite.assert_agrees(lines)
