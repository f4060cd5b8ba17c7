"""Zombies from /proc: who has them, how old they are, how they grow, and how much room they leave."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from proctree import Clocks, Now, Tree

from forktrace.errors import MachineLacks
from forktrace.now.limits import RESERVED_PIDS
from forktrace.now.zombies import Watcher
from forktrace.system import procfs
from forktrace.system.procfs import TaskClocks
from forktrace.trace.snapshot import HalfDead, Parent, Snapshot, Zombie


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A machine with its first process."""
    made = Tree(tmp_path / "proc")
    made.add(1, 0, comm="init", uid=0)
    return made


class Watched:
    """A watcher of a tree whose clock is moved by hand."""

    def __init__(self, tree: Tree, seconds: float = 100) -> None:
        self.now = Now(seconds)
        self.watcher = Watcher(tree, Clocks(tree), self.now)

    def look(self, after_s: float = 0) -> Snapshot:
        """Look again, some seconds later."""
        self.now.seconds += after_s
        return self.watcher.look()


def only(seen: Snapshot) -> Parent:
    """The one parent."""
    (parent,) = seen.parents
    return parent


def ages(parent: Parent) -> list[tuple[Any, ...]]:
    """What is known of the zombies' ages."""
    return [(one.pid, one.age_s, one.age_is, one.age_least_s, one.age_most_s) for one in parent.zombies]


def test_by_parent(tree: Tree) -> None:
    """Zombies are grouped by parent, those with most first, and in a group the oldest is the first."""
    tree.add(10, argv=("python", "a b.py"), start_s=2, uid=12345)
    tree.add(20, 1)
    tree.add(11, 10, "Z", start_s=50, ran_s=89)
    tree.add(21, 20, "Z", ran_s=98)
    tree.add(22, 20, "Z", ran_s=59)
    tree.add(23, 20, "R")
    seen = Watched(tree).look()
    assert (seen.processes, seen.zombies, seen.unreadable, seen.others_hidden) == (7, 3, 0, False)
    assert [(p.pid, [z.pid for z in p.zombies]) for p in seen.parents] == [(20, [22, 21]), (10, [11])]
    parent = seen.parents[1]
    assert (parent.argv, parent.uid, parent.user, parent.elapsed_s) == (("python", "a b.py"), 12345, "12345", 98)
    assert parent.zombies == (Zombie(11, "python", 50, 10, "estimated", 0, 50, 0, None, False),)


def test_a_dead_main_thread_is_no_zombie(tree: Tree) -> None:
    """While other threads live, /proc says Z, but nobody can reap it; what has such a parent has a parent all the same."""
    tree.add(10, 1, "Z", threads=3)
    tree.add(11, 10, "Z")
    seen = Watched(tree).look()
    parent = only(seen)
    assert (parent.pid, parent.state, len(parent.zombies)) == (10, "Z", 1)
    assert seen.half_dead == (HalfDead(10, "python", 1, 2),)


def test_whose_init_a_parent_is(tree: Tree) -> None:
    """The innermost of the numbers of a process is its own; where it is 1, it inherits orphans."""
    tree.add(10, 1, ns_pids="10\t1")
    tree.add(11, 10, "Z")
    tree.add(20, 1, ns_pids="20")
    tree.add(21, 20, "Z")
    tree.add(30, 1)
    tree.add(31, 30, "Z")
    assert {one.pid: one.ns_pid for one in Watched(tree).look().parents} == {10: 1, 20: 20, 30: None}


def test_zombies_that_come_and_go_foretell_nothing(tree: Tree) -> None:
    """A parent that reaps late always has a young zombie: a forecast needs one that two looks have seen."""
    tree.write("sys/kernel/pid_max", str(RESERVED_PIDS + 500 + 60))
    tree.add(10, 1)
    tree.add(11, 10, "Z")
    watched = Watched(tree)
    watched.look()
    for number in range(3):
        tree.add(20 + number, 10, "Z")
        seen = watched.look(1)
        assert (only(seen).growth, only(seen).fails_in_s) == (1, None)
        tree.remove(20 + number)


def test_hostile_names(tree: Tree) -> None:
    """A name may hold brackets, newlines, escapes and what looks like the rest of the line."""
    for pid, comm in [(10, ") Z 1 1"), (11, "a) R 1 (b\n\x1b[2J")]:
        tree.add(pid, 1, "Z", comm=comm)
    assert {one.comm for one in only(Watched(tree).look()).zombies} == {") Z 1 1", "a) R 1 (b\n\x1b[2J"}


def test_how_it_ended(tree: Tree) -> None:
    """The wait status, decoded; a 0 that may be one that is kept from us is nothing."""
    for pid, status in [(10, 0), (11, 3 << 8), (12, 9), (13, 11 | 0x80), (14, 0)]:
        tree.add(pid, 1, "Z", status=status)
    tree.status_denied = {11, 14}
    found = {one.pid: (one.exit_code, one.term_signal, one.core_dumped) for one in only(Watched(tree).look()).zombies}
    assert found == {
        10: (0, None, False),
        11: (3, None, False),
        12: (None, "SIGKILL", False),
        13: (None, "SIGSEGV", True),
        14: (None, None, None),
    }


def test_age_of_one_look(tree: Tree) -> None:
    """Estimated where the scheduler says when it last ran, else unknown; between no time at all and that since its start."""
    tree.add(10, 1, "Z", start_s=40, ran_s=69)
    tree.add(11, 1, "Z", start_s=41)
    tree.add(12, 1, "Z", start_s=42, ran_s=69, processor=1)  # its clock cannot be compared
    tree.add(13, 1, "Z", start_s=95, ran_s=69)  # cannot be: before its start
    tree.add(14, 1, "Z", start_s=43, ran_s=1000)  # nor can this: in the future
    assert sorted(ages(only(Watched(tree).look()))) == [
        (10, 30, "estimated", 0, 60),
        (11, None, "unknown", 0, 59),
        (12, None, "unknown", 0, 58),
        (13, 5, "estimated", 0, 5),
        (14, 0, "estimated", 0, 57),
    ]


def test_ages_become_known(tree: Tree) -> None:
    """What ends between two looks has a known age; what was there before the first is at least that old."""
    tree.add(10, 1, "Z", start_s=40, ran_s=69)
    tree.add(11, 1, "Z", start_s=40)
    tree.add(12, 1)
    watched = Watched(tree)
    watched.look()
    tree.add(12, 1, "Z", ran_s=100.5)
    tree.add(13, 1, "Z", start_s=101)  # nothing but the looks: the middle
    assert sorted(ages(only(watched.look(2)))) == [
        (10, 32, "estimated", 2, 62),
        (11, None, "unknown", 2, 62),
        (12, 0.5, "seen", 0, 2),
        (13, 0.5, "seen", 0, 1),
    ]
    assert sorted(ages(only(watched.look(30))))[2:] == [(12, 30.5, "seen", 30, 32), (13, 30.5, "seen", 30, 31)]
    tree.add(14, 1, "Z")
    assert ages(only(watched.look(100)))[-1] == (14, 50, "estimated", 0, 100)  # looks so far apart tell little


def test_a_number_that_is_used_again(tree: Tree) -> None:
    """Another process of that number is another zombie."""
    tree.add(10, 1, "Z", start_s=40, ran_s=69)
    watched = Watched(tree)
    watched.look()
    tree.add(10, 1, "Z", start_s=101, ran_s=101)
    assert ages(only(watched.look(10))) == [(10, 8, "seen", 0, 9)]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ("default", 0, False)),
        ({"caught": "10000"}, ("handled", 0, False)),
        ({"ignored": "10000"}, ("ignored", 0, False)),
        ({"caught": "ffffffffeffff", "ignored": "8000"}, ("default", 0, False)),
        ({"threads": 3, "blocking": 2, "pending": "10000"}, ("default", 2, True)),
    ],
)
def test_sigchld(tree: Tree, more: dict[str, Any], expected: tuple[str, int, bool]) -> None:
    """Its disposition, how many threads block it, and whether one is pending."""
    tree.add(10, 1, **more)
    tree.add(19, 10, "Z")
    parent = only(Watched(tree).look())
    assert (parent.sigchld, parent.sigchld_blocked_threads, parent.sigchld_pending) == expected


def test_processes_vanish(tree: Tree) -> None:
    """What is gone when it is read is not there; a zombie whose parent went meanwhile has the next one."""
    tree.add(10, 1, "Z")
    tree.add(11, 1)
    tree.remove(11)
    tree.add(12, 99, "Z")
    tree.add(13, 99, "Z")
    first = tree.stat

    def stat(pid: int) -> Any:
        found = first(pid)
        if tree.looked_at.count(pid) == 1:
            if pid == 12:
                tree.add(12, 1, "Z")
            if pid == 13:
                tree.remove(13)
        return found

    tree.stat = stat  # type: ignore[method-assign]
    assert sorted(one.pid for one in only(Watched(tree).look()).zombies) == [10, 12]


def test_a_parent_that_cannot_be_seen(tree: Tree) -> None:
    """Outside of the namespace, or hidden: its zombies are there, and nothing is said of it."""
    tree.add(10, 0, "Z")
    tree.add(12, 11, "Z")
    seen = Watched(tree).look()
    assert [(p.pid, p.comm, p.state, p.sigchld, p.limits) for p in seen.parents] == [
        (0, None, None, None, ()),
        (11, None, None, None, ()),
    ]


def test_what_is_hidden(tree: Tree) -> None:
    """Processes that may not be read are counted; that others are not even listed is known from the first one's absence."""
    tree.add(10, 1)
    tree.denied = {1}
    seen = Watched(tree).look()
    assert (seen.processes, seen.unreadable, seen.others_hidden) == (1, 1, False)
    tree.denied = set()
    (Path(tree.root) / "1").rename(Path(tree.root) / "x")
    seen = Watched(tree).look()
    assert (seen.processes, seen.unreadable, seen.others_hidden) == (1, 0, True)


def limits(tree: Tree, **more: Any) -> list[tuple[Any, ...]]:
    """The limits of process 10, which has a zombie."""
    tree.add(10, 1, **more)
    tree.add(19, 10, "Z", uid=more.get("uid", 54321))
    found = {parent.pid: parent for parent in Watched(tree).look().parents}[10].limits
    return [(one.name, one.where, one.limit, one.used, one.left, one.used_is_least) for one in found]


def test_limits_of_the_machine(tree: Tree) -> None:
    """pid_max, of which some numbers are not given again, and threads-max: the kernel counts the threads itself."""
    tree.write("sys/kernel/pid_max", "1000\n")
    tree.write("sys/kernel/threads-max", "600\n")
    machine = [("threads-max", "", 600, 500, 100, False), ("pid_max", "", 1000, 500, 500 - RESERVED_PIDS, False)]
    assert limits(tree, threads=4) == machine
    (Path(tree.root) / "self/ns").mkdir(parents=True)
    (Path(tree.root) / "self/ns/pid").symlink_to("pid:[4026531999]")
    assert limits(tree, threads=4)[1] == ("pid_max", "", 1000, 6, 994 - RESERVED_PIDS, True)
    assert Watched(tree).look().outside_hidden


def test_limit_of_the_user(tree: Tree) -> None:
    """RLIMIT_NPROC counts the threads of the real user; root and two capabilities are exempt, unless they are a container's."""
    tree.add(30, 1, threads=5)
    tree.add(31, 1, uid=2000, threads=7)
    assert limits(tree, nproc=10) == [("RLIMIT_NPROC", "54321", 10, 7, 3, False)]
    assert limits(tree, nproc="unlimited") == []
    assert limits(tree, nproc=10, uid=0) == []
    assert limits(tree, nproc=10, uid=0, uid_map="0 100000 65536") == [("RLIMIT_NPROC", "root", 10, 3, 7, False)]
    assert limits(tree, nproc=10, capabilities="1000000") == []
    assert limits(tree, nproc=10, capabilities="200000") == []
    assert limits(tree, nproc=10, capabilities="80000") != []
    tree.denied = {31}
    assert limits(tree, nproc=5) == [("RLIMIT_NPROC", "54321", 5, 7, 0, True)]


def cgroup(folder: Path, most: str, used: int) -> None:
    """Make a cgroup."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pids.max").write_text(f"{most}\n")
    (folder / "pids.current").write_text(f"{used}\n")


@pytest.mark.parametrize(
    ("kind", "options", "line"),
    [("cgroup2", "rw", "0::{}"), ("cgroup", "rw,pids", "3:freezer:/x\n8:pids:{}\n0::/none")],
)
def test_limits_of_cgroups(tree: Tree, tmp_path: Path, kind: str, options: str, line: str) -> None:
    """The tightest of a cgroup and all around it, in both versions; `max` is none, nor has the root one."""
    top = tmp_path / "cg roup"
    cgroup(top / "a", "100", 40)
    cgroup(top / "a/b", "max", 30)
    cgroup(top / "a/b/c", "90", 31)
    cgroup(tmp_path / "other", "5", 1)
    mounted = str(top).replace(" ", "\\040")
    tree.write("self/mountinfo", f"39 31 0:36 / {mounted} rw,relatime shared:1 - {kind} {kind} {options}\n")
    found = [("pids.max", "/a/b/c", 90, 31, 59, False), ("pids.max", "/a", 100, 40, 60, False)]
    assert limits(tree, cgroup=line.format("/a/b/c") + "\n") == found
    assert limits(tree, cgroup=line.format("/a/b") + "\n") == found[1:]
    assert limits(tree, cgroup=line.format("/a/gone (deleted)") + "\n") == found[1:]
    assert limits(tree, cgroup=line.format("/") + "\n") == []
    assert limits(tree, cgroup=line.format("/../other") + "\n") == []
    tree.write("self/mountinfo", f"39 31 0:36 /a {mounted}/a rw,relatime - {kind} {kind} {options}\n")
    assert limits(tree, cgroup=line.format("/a/b/c") + "\n") == found
    assert limits(tree, cgroup=line.format("/q") + "\n") == []


def test_growth_and_when_forks_fail(tree: Tree) -> None:
    """Growth is counted over the last minute, and a limit is shared by all who grow below it."""
    tree.write("sys/kernel/pid_max", str(RESERVED_PIDS + 500 + 60))
    tree.add(10, 1)
    tree.add(20, 1, nproc=43)
    tree.add(30, 1)
    for pid in (11, 31, 32):
        tree.add(pid, pid // 10 * 10, "Z")
    watched = Watched(tree)
    assert {(one.growth, one.growth_s, one.fails_in_s) for one in watched.look().parents} == {(None, None, None)}
    for pid in (12, 13, 21):
        tree.add(pid, pid // 10 * 10, "Z")
    tree.remove(32)
    young = watched.look(5).parents
    assert forecast(young) == {10: (None, None), 20: (None, None), 30: (None, None)}  # these may be gone at the next look
    found = {parent.pid: parent for parent in watched.look(5).parents}
    assert {pid: (one.growth, one.growth_s) for pid, one in found.items()} == {10: (2, 10), 20: (1, 10), 30: (-1, 10)}
    # 60 more numbers at 2 + 1 - 1 in 10 s; 43 - 8 threads of the user at 1 in 10 s
    assert forecast(found.values()) == {
        10: (300, "pid_max"),
        20: (300, "pid_max"),
        30: (None, None),
    }
    tree.add(20, 1, nproc=13)
    assert forecast(watched.look(0).parents)[20] == (50, "RLIMIT_NPROC")
    assert only_growth(watched.look(45)) == {10: (2, 55), 20: (1, 55), 30: (-1, 55)}
    assert only_growth(watched.look(30)) == {10: (0, 30), 20: (0, 30), 30: (0, 30)}


def forecast(parents: Iterable[Parent]) -> dict[int, tuple[Any, Any]]:
    """When forks of each parent fail, and by which limit."""
    return {one.pid: (one.fails_in_s, one.fails_at and one.fails_at.name) for one in parents}


def only_growth(seen: Snapshot) -> dict[int, tuple[Any, Any]]:
    """The growth of each parent."""
    return {parent.pid: (parent.growth, parent.growth_s) for parent in seen.parents}


def test_growth_of_rare_looks(tree: Tree) -> None:
    """Two looks are always compared, however far apart."""
    tree.add(10, 1)
    tree.add(11, 10, "Z")
    watched = Watched(tree)
    watched.look()
    tree.add(12, 10, "Z")
    assert only_growth(watched.look(300)) == {10: (1, 300)}


def test_no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc is missing or not mounted, "no zombies" would be a lie; nor does another system have its clock."""
    (tmp_path / "proc").mkdir()
    for root in (tmp_path / "proc", tmp_path / "none"):
        with pytest.raises(MachineLacks, match="lists no processes"):
            Watcher(procfs.Proc(str(root))).look()
    monkeypatch.delattr("time.CLOCK_BOOTTIME")
    with pytest.raises(MachineLacks, match="CLOCK_BOOTTIME"):
        Watcher().look()


def test_task_clocks_are_compared_on_their_processors(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clock is read while running on its processor alone; afterwards this thread may run where it might before."""
    home, seen = os.sched_getaffinity(0), []

    def last_run_ms(pid: int | str) -> float:
        seen.append((pid, os.sched_getaffinity(0)))
        return 5000.0

    monkeypatch.setattr(tree, "last_run_ms", last_run_ms)
    monkeypatch.setattr(procfs, "boottime_ns", lambda: 7 * 10**9)
    clocks = TaskClocks(tree)
    clocks.compare({*home, 10_000})
    assert seen == [("thread-self", {one}) for one in sorted(home)]
    assert os.sched_getaffinity(0) == home
    assert clocks.boottime_ns(min(home), 1000.0) == 3 * 10**9
    assert clocks.boottime_ns(10_000, 1000.0) is None
