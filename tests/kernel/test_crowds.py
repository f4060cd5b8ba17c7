"""Many threads at once: each has working memory of its own, and of threads that end together one reports the end."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from recorded import BUILT, PATIENCE_S, WORKLOADS, Recorded, interpreters

pytestmark = pytest.mark.root

PYTHONS = {name: path for name, path in interpreters().items() if not name.startswith("2.")}
CHILDREN = 25
THREADS = 4 * (os.cpu_count() or 1)
ROUNDS, ENDING_TOGETHER = 1000, 64


@pytest.mark.parametrize("name", PYTHONS)
def test_each_stack_is_that_of_its_forker(record: Callable[..., Recorded], name: str) -> None:
    """Four threads for each processor fork at once; each child has the line of the thread that made it."""
    recorded = record([PYTHONS[name], "-B", str(WORKLOADS / "crowd.py"), str(THREADS), str(CHILDREN)])
    lines = recorded.of("crowd")
    assert len(lines) == THREADS * CHILDREN
    table = recorded.table.set_index("pid").loc[[line["pid"] for line in lines]]
    missing = table.loc[table["fork_site"].isna(), "fork_stack_status"]
    assert set(missing) <= {"read-fault"}  # another thread gets its copy of the page; the walk waits for 0.4 ms
    assert len(missing) <= (len(lines) // 10 if BUILT in os.environ else 0), "which an emulated processor may exceed"
    sites = table["fork_site"].dropna()
    wrong = [(line, sites[line["pid"]]) for line in lines if sites.get(line["pid"], line["site"]) != line["site"]]
    assert not wrong, f"{len(wrong)} of {len(lines)}: {wrong[:5]}"
    assert not any(recorded.recording.lost().values())


def test_threads_that_end_together(record: Callable[..., Recorded], workload: Callable[[str], str]) -> None:
    """64 threads end at once, 1,000 times: each process exits exactly once, and is a zombie after that."""
    recorded = record([workload("leaving"), str(ROUNDS), str(ENDING_TOGETHER)], timeout_s=5 * PATIENCE_S)
    pids = [line["pid"] for line in recorded.of("leaving")]
    assert len(pids) == ROUNDS
    raw = recorded.raw
    for kind in ("fork", "exit", "zombie", "reap"):
        found = raw[(raw["kind"] == kind) & raw["pid"].isin(pids)]
        assert found.groupby(["pid", "start_ns"]).size().eq(1).all(), kind
        assert len(found) == ROUNDS, kind
    table = recorded.table[recorded.table["pid"].isin(pids)]
    assert (table["exit_ns"] <= table["zombie_ns"]).all()
    assert (table["exit_code"] == 0).all()
