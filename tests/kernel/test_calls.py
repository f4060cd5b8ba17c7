"""Every call that makes a process."""

import pytest
from recorded import TICK_NS, Recorded

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("case", "count"), [("fork", 3), ("vfork", 5), ("clone", 2), ("clone3", 7), ("clone-parent", 3)])
def test_call(suite: Recorded, case: str, count: int) -> None:
    """A child's call, parent, forker, start, status and reaper are those that the parent saw."""
    lines = suite.of(case, "calls")
    assert len(lines) == count
    suite.assert_agrees(lines)


def test_posix_spawn(suite: Recorded) -> None:
    """posix_spawn is the clone that the C library makes of it, with the program that it ran."""
    lines = suite.of("posix_spawn", "calls")
    assert len(lines) == 5
    suite.assert_agrees(lines)
    for line in lines:
        row = suite.row(line["pid"])
        assert row["fork_call"] in ("clone3", "clone", "vfork")
        assert row["fork_ns"] < row["exec_ns"] < row["exit_ns"]


def test_clone_parent(suite: Recorded) -> None:
    """With CLONE_PARENT the forker is not the parent, and its own wait finds no child."""
    for line in suite.of("clone-parent", "calls"):
        row = suite.row(line["pid"])
        assert row["forker_pid"] != row["ppid"]
        assert row["parent_id"] == suite.id_of(line["ppid"])
    waits = suite.recording.waits()
    assert waits.loc[waits["id"] == suite.id_of(line["forker_pid"]), "no_child"].sum() == 1


@pytest.mark.parametrize(("case", "count"), [("os-fork", 2), ("subprocess", 3), ("multiprocessing", 5)])
def test_python(suite: Recorded, case: str, count: int) -> None:
    """Children of Python's own libraries are recorded like any other, with the program's lines."""
    lines = suite.of(case, "python")
    assert len(lines) == count
    suite.assert_agrees(lines)
    for line in lines:
        sites = suite.row(line["pid"])[["fork_site", "reap_site"]].tolist()
        assert [str(site).partition(":")[0] for site in sites] == ["libraries.py"] * 2


def test_accounts(suite: Recorded) -> None:
    """CPU time and memory are what wait4 told the parent, less the teardown of up to 52 MiB and what a tick has not counted."""
    lines = suite.of("rusage", "python")
    assert len(lines) == 3
    suite.assert_agrees(lines)
    for line in lines:
        row = suite.row(line["pid"])
        assert 40 <= row["utime_ms"] + row["stime_ms"] <= line["cpu_ms"] + 0.01
        assert abs(row["max_rss_kb"] - line["rss_kb"]) <= 1024


def test_long_arguments(suite: Recorded) -> None:
    """Arguments beyond 4 KiB are cut, and the row says so."""
    (line,) = suite.of("long-argv", "python")
    suite.assert_agrees([line])
    argv = suite.row(line["pid"])["argv"]
    assert argv.startswith("/bin/true long xxx")
    assert 4000 <= len(argv) <= 4096


def test_starts_are_those_of_proc(suite: Recorded) -> None:
    """`fork_ns` is field 22 of /proc/PID/stat, in nanoseconds, for every child whose parent looked."""
    lines = [line for line in suite.lines if "starttime" in line]
    assert len(lines) > 60
    for line in lines:
        assert suite.row(line["pid"], line["starttime"])["fork_ns"] // TICK_NS == line["starttime"]


def test_every_case_process(suite: Recorded) -> None:
    """The processes that run the cases are recorded too, with their parent and their ending."""
    suite.assert_agrees([line for line in suite.lines if line.get("what") == "case"])


def test_only_descendants(suite: Recorded) -> None:
    """Nothing but the target and its descendants is in the table: every row but the first has its parent there."""
    table = suite.table
    assert table["origin"].tolist() == ["target", *["forked"] * (len(table) - 1)]
    assert table["parent_id"].isna().tolist() == [True, *[False] * (len(table) - 1)]
