"""A ring buffer that is far too small: events are lost, and what is said is true all the same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from recorded import MARK, PATIENCE_S, WORKLOADS

import forktrace
from forktrace.views.formats.export import TABLES

pytestmark = pytest.mark.root

# Two pages, looked at five times a second: room for some forty records where thousands come.
SMALL_RING = """
import sys
from forktrace import cli
from forktrace.kernel import loading
from forktrace.recorder import service
loading.Loading.__init__.__defaults__ = (8192,)
service.READ_EVERY_S = 0.2
sys.argv[0] = "forktrace"
cli.main()
"""


@pytest.mark.parametrize("stacks", [[], ["--no-stacks"]])
def test_a_ring_that_overflows_loses_events_never_truth(
    open_folder: Path, environment: Mapping[str, str], stacks: list[str]
) -> None:
    """Each row is true or says that it is not complete; nothing is invented; the sum of all processes comes out."""
    path = open_folder / f"lossy{len(stacks)}.arrows"
    command = ["record", *stacks, "-o", str(path), "--", sys.executable, str(WORKLOADS / "storm.py")]
    done = subprocess.run(
        [sys.executable, "-c", SMALL_RING, *command],
        env=dict(environment) | {MARK: path.name},
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=True,
    )
    said = json.loads(done.stdout)
    codes, target = dict(map(tuple, said["children"])), said["pid"]
    recording = forktrace.read(path)
    table, lost = recording.lifecycles(), recording.lost()
    assert sum(lost.values()) > 500, lost
    assert "were lost" in done.stderr
    children = table[table["pid"] != target]
    assert set(children["pid"]) <= set(codes)
    assert 0 < len(children) < len(codes)
    known = children[children["exit_code"].notna()]
    assert known["exit_code"].tolist() == [codes[pid] for pid in known["pid"]]
    assert set(children.loc[children["origin"].notna(), "ppid"]) == {target}
    assert set(children["reaper_pid"].dropna()) <= {target, 1} | set(children["adopter_pid"].dropna())
    whole = children[children["complete"]]
    assert (whole["exit_code"].notna() & (whole["state"] == "gone")).all()
    assert table.loc[~table["complete"], "notes"].notna().all()
    assert not table["zombie_open"].any() or table.loc[table["zombie_open"], "pid"].tolist() == [said["children"][-1][0]]
    balance = recording.balance()
    assert balance.holds, balance
    assert balance.started == len(codes) + 1
    assert balance.lost >= lost["fork"]
    assert all(len(make(recording)) >= 0 for make in TABLES.values())
    report = subprocess.run(
        [sys.executable, "-m", "forktrace", "report", str(path)],
        env=dict(environment),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1,500 processes were started:" in report.stdout
    assert "marked *" in " ".join(report.stdout.split())
