"""The number of zombies of each parent over time."""

from __future__ import annotations

from traces import MS, cells, child, recording, target

from forktrace.analysis.tables.zombies import branches, total_zombies
from forktrace.trace import events as ev


def test_zombies_come_and_go() -> None:
    """A zombie counts from its notification to its reap; one that is never reaped is never taken off."""
    rows = [target(), *child(500, 1, 10), *child(501, 2, 20), ev.reap(30 * MS, 500, by=100)]
    table = recording(*rows).zombie_count()
    assert cells(table) == [(10 * MS, 0, 1), (20 * MS, 0, 2), (30 * MS, 0, 1)]
    assert table.dtypes.astype(str).to_dict() == {"time_ns": "int64", "parent_id": "Int64", "zombies": "int64"}


def test_a_zombie_moves_to_the_adopter() -> None:
    """When the parent dies its zombie counts for the adopter, here one outside the recording, until that reaps it."""
    rows = [target(), ev.fork(1 * MS, 200, by=100), *child(500, 2, 10, by=200), ev.exit_(20 * MS, 200, parent=100, adopter=1)]
    rows += [ev.zombie(20 * MS - 5, 500, parent=1), ev.zombie(20 * MS, 200, parent=100), ev.reap(30 * MS, 500, by=1)]
    rows += [ev.reap(40 * MS, 200, by=100)]
    assert cells(recording(*rows).zombie_count()) == [
        (10 * MS, 1, 1),
        (20 * MS, 0, 1),
        (20 * MS, 1, 0),
        (20 * MS, None, 1),
        (30 * MS, None, 0),
        (40 * MS, 0, 0),
    ]


def test_who_dies_after_the_handing_over() -> None:
    """A child that was reparented alive is never a zombie of its first parent."""
    rows = [target(), ev.fork(1 * MS, 200, by=100), ev.fork(2 * MS, 500, by=200), ev.exit_(20 * MS, 200, parent=100, adopter=1)]
    rows += [ev.reap(25 * MS, 200, by=100), ev.exit_(30 * MS, 500, parent=1), ev.zombie(30 * MS, 500, parent=1)]
    assert cells(recording(*rows).zombie_count()) == [(20 * MS, 0, 1), (25 * MS, 0, 0), (30 * MS, None, 1)]


def test_changes_of_one_moment_are_one_row() -> None:
    """Two at one moment are one change; a zombie that lasts no time is none."""
    rows = [target(), *child(500, 1, 10), *child(501, 1, 10), *child(502, 1, 12), ev.autoreap(12 * MS, 502, "nocldwait")]
    assert cells(recording(*rows).zombie_count()) == [(10 * MS, 0, 2)]


def test_no_zombies() -> None:
    """Without zombies the table is empty, with its columns."""
    table = recording(target()).zombie_count()
    assert table.empty
    assert list(table.columns) == ["time_ns", "parent_id", "zombies"]
    assert total_zombies(table).empty


def test_part_of_the_time() -> None:
    """What was there before a stretch begins is a row at its beginning."""
    rows = [target(), *child(500, 1, 10), *child(501, 2, 20), ev.reap(30 * MS, 500, by=100), ev.reap(40 * MS, 501, by=100)]
    table = recording(*rows).between(25 * MS, 35 * MS).zombie_count()
    assert cells(table) == [(25 * MS, 0, 2), (30 * MS, 0, 1)]


def test_total_of_all_parents() -> None:
    """The zombies of all parents together; reparenting changes nothing."""
    rows = [target(), ev.fork(1 * MS, 200, by=100), *child(500, 2, 10, by=200), *child(501, 3, 15)]
    rows += [ev.exit_(20 * MS, 200, parent=100, adopter=1), ev.reap(30 * MS, 501, by=100)]
    table = total_zombies(recording(*rows).zombie_count())
    assert cells(table) == [(10 * MS, 1), (15 * MS, 2), (20 * MS, 3), (30 * MS, 2)]


# 200 has two zombies at once and then one more, and so has its child 201 a zombie, whom an outsider inherits; 300 has nothing.
BRANCHES = [
    *(target(), ev.fork(1 * MS, 200, by=100), ev.fork(1 * MS + 1, 300, by=100), ev.fork(2 * MS, 201, by=200)),
    *(*child(500, 3, 10, by=200), *child(501, 4, 15, by=200), *child(502, 5, 30, by=201), *child(503, 6, 40, by=200)),
    *(ev.reap(20 * MS, 500, by=200), ev.reap(20 * MS, 501, by=200), ev.exit_(35 * MS, 201, parent=200, adopter=1)),
    *(ev.autoreap(35 * MS, 201), ev.reap(40 * MS, 502, by=1), ev.end(45 * MS)),
]


def test_branches() -> None:
    """All that descends from a child counts for it, also an orphan; not the child itself, and not what was never a zombie."""
    made = recording(*BRANCHES, closed=False)
    assert cells(made.branches()) == [(1, 5, 4, 10 + 5 + 10 + 5, 10.0, 2, 1), (2, 0, 0, 0.0, 0.0, 0, 0)]
    assert set(made.branches().dtypes.astype(str).to_dict().items()) == {
        *((name, "int64") for name in ("id", "processes", "zombies", "most", "open")),
        *((name, "float64") for name in ("zombie_ms", "longest_ms")),
    }


def test_branches_of_another_process() -> None:
    """Any process can be the root; of a selected one it is that one, whatever stretch of time is selected too."""
    made = recording(*BRANCHES, closed=False)
    of_200 = [(3, 1, 1, 10.0, 10.0, 1, 0), *((one, 0, 0, 0.0, 0.0, 0, 0) for one in (4, 5, 7))]
    assert cells(made.branches(1)) == cells(made.of(1).between(40 * MS).branches()) == of_200
    assert cells(made.branches(2)) == []


def test_branches_of_a_deep_family() -> None:
    """A chain of any depth belongs to its first link."""
    chain = [ev.fork(number * MS, 100 + number, by=99 + number) for number in range(1, 2000)]
    assert cells(recording(target(), *chain).branches(), "id", "processes") == [(1, 1998)]


def test_parents_in_a_circle() -> None:
    """A table that makes no sense has an end all the same."""
    table = recording(target(), *child(500, 1, 10), *child(501, 2, 10, by=500)).lifecycles()
    table.loc[[1, 2], "parent_id"] = [2, 1]
    assert cells(branches(table, 0)) == []
