"""Children that outlive their parents, and large families."""

import pytest
from inheritance import last_parents
from recorded import Recorded

pytestmark = pytest.mark.root

RELEASED_NS = 1_000_000_000  # the kernel frees the last of a process 5 to 45 ms after its reap, later on a busy machine


AMID_THE_EXIT = [("amid-the-exit", 1), ("ignored-amid-the-exit", 1), ("ignored-twice", 1)]
ADOPTED = [("subreaper", 3), ("handed-over", 5), ("handed-to-ignorer", 5), *AMID_THE_EXIT]


@pytest.mark.parametrize(("case", "count"), ADOPTED)
def test_adopted_by_a_subreaper(suite: Recorded, case: str, count: int) -> None:
    """An orphan, dead, dying or alive, comes to the subreaper, which reaps it or has it released."""
    lines = suite.of(case, "families")
    assert len(lines) == count
    suite.assert_agrees(lines)
    for line in lines:
        assert suite.row(line["pid"])["adopter_id"] == suite.id_of(line["adopter_pid"])


def test_released_before_its_parent_dies(suite: Recorded) -> None:
    """A child that its parent ignores is nobody's orphan, though the kernel frees the last of it when the parent has died."""
    (line,) = suite.of("ignored-then-alone", "families")
    suite.assert_agrees([line])
    assert suite.row(line["pid"])["reap_ns"] <= suite.row(line["ppid"])["exit_ns"]


def test_adopted_by_an_outsider(suite: Recorded) -> None:
    """A reap by PID 1 is inferred: it is no earlier than the exit, and comes soon after the process left /proc."""
    lines = suite.of("orphans", "families")
    assert len(lines) == 2
    suite.assert_agrees(lines)
    ended_ns = suite.raw.loc[suite.raw["kind"] == "end", "time_ns"].item()
    for line in lines:
        row = suite.row(line["pid"])
        assert row["reaper_pid"] == line["adopter_pid"]
        at_the_end = row["reap_ns"] >= ended_ns - RELEASED_NS  # where no probe runs in pid 1 its release may be missed, too
        assert row["exit_ns"] <= row["reap_ns"]
        assert row["reap_ns"] <= line["gone_ns"] + RELEASED_NS or (at_the_end and row["reap_call"] == "unseen")
        if row["reap_call"] == "unseen":
            assert not row["complete"]
            assert row["notes"]


@pytest.mark.parametrize("case", ["handed-over", "handed-to-ignorer"])
def test_a_zombie_is_handed_over(suite: Recorded, case: str) -> None:
    """When a parent dies, its zombies are notified a second time; their zombie time began with the first."""
    for line in suite.of(case, "families"):
        zombies = suite.events_of(line["pid"], "zombie")
        parents = zombies["parent_pid"].tolist()
        assert parents[0] == line["ppid"]
        assert parents[1:] in ([line["adopter_pid"]], [] if case == "handed-to-ignorer" else None)
        assert suite.row(line["pid"])["zombie_ns"] == zombies["time_ns"].iloc[0]


def test_an_inherited_zombie_is_ignored(suite: Recorded) -> None:
    """The adopter ignores SIGCHLD: an autoreap after a zombie, at the death of the parent."""
    for line in suite.of("handed-to-ignorer", "families"):
        parent = suite.row(line["ppid"])
        assert suite.row(line["pid"])["reap_ns"] >= parent["exit_ns"]


def test_the_probes_and_the_table_agree(suite: Recorded) -> None:
    """The last parent that the probes name, as nobody waited, is the one that the table finds by itself."""
    found = last_parents(suite.recording.trace)
    orphans = {line["pid"] for case in ("handed-to-ignorer", "orphans") for line in suite.of(case, "families")}
    assert orphans & {pid for pid, _, _ in found}
    assert not [one for one in found if one[1] != one[2]]


def test_generations(suite: Recorded) -> None:
    """2 children with 3 children with 5 children each: every row knows its parent."""
    lines = suite.of("generations", "families")
    assert len(lines) == 38
    suite.assert_agrees(lines)
    for line in lines:
        assert suite.row(line["pid"])["parent_id"] == suite.id_of(line["ppid"])


def test_burst(suite: Recorded) -> None:
    """997 children that are zombies at once are all there, and counted so for their parent."""
    lines = suite.of("burst", "families")
    assert len(lines) == 997
    suite.assert_agrees(lines)
    counts = suite.recording.zombie_count()
    own = counts[counts["parent_id"] == suite.id_of(lines[0]["reaper_pid"])]
    assert own["zombies"].iloc[-1] == 0
    assert own["zombies"].max() == 997
