"""`forktrace ps --at` beside the real `ps`, which looked at the same moment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from recorded import WORKLOADS, Recorded, forktrace_command

pytestmark = pytest.mark.root

Row = tuple[int, int, bool, str]


@pytest.fixture(scope="module")
def family(record: Callable[..., Recorded]) -> Recorded:
    """The recording of a family that was looked at three times."""
    if not shutil.which("ps"):
        pytest.fail("needs ps (apt-get install procps)")
    recorded = record([sys.executable, str(WORKLOADS / "moments.py")])
    assert recorded.returncode == 0, recorded.stderr
    return recorded


def seconds(elapsed: str) -> int:
    """`[[DD-]hh:]mm:ss` in seconds."""
    days, _, clock = elapsed.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    return int(days or 0) * 86400 + sum(part * 60**place for place, part in enumerate(reversed(parts)))


def parsed(lines: list[list[str]]) -> tuple[dict[int, Row], dict[int, int]]:
    """What each process is, and how old it is."""
    rows = {int(pid): (int(pid), int(ppid), stat[0] == "Z", args.strip()) for pid, ppid, stat, _, args in lines}
    return rows, {int(line[0]): seconds(line[3]) for line in lines}


@pytest.mark.parametrize(("moment", "zombies", "processes"), [("first", 1, 4), ("second", 1, 3), ("third", 0, 1)])
def test_what_ps_shows(family: Recorded, moment: str, zombies: int, processes: int) -> None:
    """The same processes with the same parents, ages and command lines, the same of them zombies, as the real `ps` saw."""
    (line,) = family.of(moment)
    at = f"{line['now_ns'] - family.recording.start_ns}ns"
    done = subprocess.run(
        forktrace_command("ps", str(family.path), "--at", at), capture_output=True, text=True, check=True, timeout=100
    )
    heading, *shown = done.stdout.splitlines()
    assert heading.split() == ["PID", "PPID", "STAT", "ELAPSED", "COMMAND"]
    ours, our_ages = parsed([row.split(None, 4) for row in shown])
    ending = {one["pid"] for one in family.of("orphan")} if moment == "third" else set()
    followed = set(family.table["pid"]) - ending
    ours = {pid: row for pid, row in ours.items() if pid not in ending}
    real, ages = parsed([row for row in line["shown"] if int(row[0]) in followed])
    assert ours == real
    assert (len(ours), sum(row[2] for row in ours.values())) == (processes, zombies)
    # `ps` counts whole seconds from the boot, and comes some time later
    assert all(-1 <= ages[pid] - our_ages[pid] <= 10 for pid in ours)


def test_the_orphan_has_its_new_parent(family: Recorded) -> None:
    """The parent of a moment is the one of then, not the one at the fork."""
    (orphan,) = family.of("orphan")
    (line,) = family.of("first")
    then = family.recording.processes_at(line["now_ns"])
    row = then[then["pid"] == orphan["pid"]].iloc[0]
    assert family.row(orphan["pid"])["ppid"] != row["ppid"] == orphan["adopter"]
