"""What a lossy trace says, held against the same recording without a loss: unknown perhaps, but never untrue."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from traces import HEADER, MS

from forktrace.analysis.recording import Recording
from forktrace.trace import events as ev
from forktrace.trace import stream

DATA = Path(__file__).parents[1] / "data"
FROM_THE_RING = ("fork", "fork-failed", "exec", "exit", "zombie", "wait", "reap", "autoreap", "signal", "oom")
FLUSH_NS = 200 * MS
# These the trace says outright: they are true or missing, also where a row is not complete.
EVIDENCE = ["exit_ns", "exit_code", "term_signal", "reap_ns", "reaper_pid", "reaper_tid", "reap_call", "fork_call", "origin"]
IDS = ["parent_id", "cleared_by_id", "killer_id", "reaper_id", "adopter_id"]
Key = tuple[int, int]


class World:
    """Processes that fork, run programs, kill each other, die and are reaped, or not; `rows` is what a recorder sees of it."""

    def __init__(self, seed: int, steps: int) -> None:
        self.dice = random.Random(seed)
        self.now = MS
        self.rows: list[ev.Row] = [ev.fork(0, 100, by=50, origin="target", comm="python", by_start_ns=None)]
        self.parent: dict[Key, Key] = {(100, 0): (50, -1)}
        self.alive: list[Key] = [(100, 0)]
        self.zombies: list[Key] = []
        for _ in range(steps):
            self.now += self.dice.randrange(1, 12 * MS)
            self.dice.choices([self.fork, self.run, self.end, self.reap], (6, 2, 5, 5))[0]()
        still = [[*one, 0] for one in self.alive] + [[*one, 1] for one in self.zombies]
        self.still = {"at_ns": self.now, "processes": still}

    def fork(self) -> None:
        """Somebody forks."""
        used = {pid for pid, _ in (*self.alive, *self.zombies)}
        free = [one for one in range(200, 240) if one not in used]
        if not free:
            return
        pid, by = self.dice.choice(free), self.dice.choice(self.alive)
        child = (pid, self.now)
        self.parent[child] = by
        self.alive.append(child)
        self.rows.append(ev.fork(self.now, pid, by=by[0], by_start_ns=by[1], comm="python"))

    def run(self) -> None:
        """Somebody runs another program."""
        pid, start_ns = self.dice.choice(self.alive)
        self.rows.append(ev.exec_(self.now, pid, ["prog", str(self.now)], start_ns=start_ns))

    def end(self) -> None:
        """Somebody ends, killed or not; the target inherits its children."""
        one = self.dice.choice(self.alive)
        if one == (100, 0):
            return
        by, about = self.dice.choice(self.alive), {"pid": one[0], "start_ns": one[1]}
        killed = self.dice.random() < 0.3
        if killed:
            self.rows.append(ev.signal(self.now - 900, one[0], 15, by=by[0], by_start_ns=by[1], start_ns=one[1]))
        self.alive.remove(one)
        parent, ignored = self.parent[one], self.dice.random() < 0.2
        adopter = (100, 0)
        said = {"parent": parent[0], "parent_start_ns": parent[1], "disposition": "ignored" if ignored else "default"}
        ended = ev.exit_(self.now, one[0], 15 if killed else 256, adopter=adopter[0], adopter_start_ns=adopter[1], **said)
        self.rows.append(ended | about)
        if ignored:
            self.rows.append(ev.autoreap(self.now + 10, one[0]) | about)
        else:
            self.rows.append(ev.zombie(self.now + 10, one[0], **said) | about)
            self.zombies.append(one)
        for child in [child for child, whose in self.parent.items() if whose == one]:
            self.parent[child] = adopter
        del self.parent[one]
        if not ignored:
            self.parent[one] = parent

    def reap(self) -> None:
        """A parent reaps a child."""
        ready = [one for one in self.zombies if self.parent[one] in self.alive]
        if not ready:
            return
        one = self.dice.choice(ready)
        by = self.parent.pop(one)
        self.zombies.remove(one)
        found = ev.reap(self.now, one[0], by=by[0], by_start_ns=by[1], options=1, target="pid")
        self.rows.append(found | {"start_ns": one[1]})


def made_of(rows: list[ev.Row], still: dict[str, Any], header: dict[str, Any], path: Path, lost: Counter[str]) -> Recording:
    """Return the recording of `rows`, closed as the recorder closes it."""
    forks = sum(row["kind"] == "fork" for row in rows) + lost["fork"]
    totals: dict[str, Any] = {"processes": forks, "lost": dict(lost)} | ({"still": still} if lost else {})
    sink = io.BytesIO()
    writer = stream.Writer(sink, header)
    writer.write(stream.batch_of(sorted(rows, key=lambda row: row["time_ns"])))
    writer.write(stream.batch_of([ev.end(max(row["time_ns"] for row in rows), json.dumps(totals))]))
    writer.close()
    path.write_bytes(sink.getvalue())
    return Recording(stream.read(path))


def with_losses(rows: list[ev.Row], dice: random.Random) -> tuple[list[ev.Row], Counter[str]]:
    """Return `rows` without some that the ring had no room for, and with what the kernel counted of them at each flush."""
    until = dice.choice((0.3, 0.6, 1.0)) * rows[-1]["time_ns"]
    share = {int(at): dice.choice((0.0, 0.0, 0.1, 0.5, 1.0)) for at in range(int(until // FLUSH_NS) + 1)}
    kept, dropped = [], Counter[tuple[int, str]]()
    for row in rows:
        flush = row["time_ns"] // FLUSH_NS
        if row["kind"] in FROM_THE_RING and dice.random() < share.get(flush, 0):
            dropped[flush, row["kind"]] += 1
        else:
            kept.append(row)
    kept += [ev.lost((flush + 1) * FLUSH_NS, count, kind) for (flush, kind), count in dropped.items()]
    lost = Counter[str]()
    for (_, kind), count in dropped.items():
        lost[kind] += count
    return kept, lost


def keyed(table: pd.DataFrame) -> pd.DataFrame:
    """Return a lifecycle table by (pid, fork_ns), and with these in place of ids."""
    keys = (table["pid"].astype(str) + " of " + table["fork_ns"].astype(str)).astype(object)
    table = table.assign(**{name: table[name].map(keys).astype(object) for name in IDS})
    return table.set_index(keys).drop(columns=["id"])


def untruths(lossy: Recording, true: Recording) -> list[str]:
    """Return what `lossy` says that is not so in `true`."""
    said, truth = keyed(lossy.lifecycles()), keyed(true.lifecycles())
    wrong = [f"{key} was never there" for key in said.index if key not in truth.index]
    for key in said.index.intersection(truth.index):
        row, fact = said.loc[key], truth.loc[key]
        columns = [name for name in said.columns if name not in ("complete", "notes")] if row["complete"] else EVIDENCE
        wrong += [
            f"{key}: {name} is {row[name]}, in truth {fact[name]}"
            for name in columns
            if row[name] is not None and pd.notna(row[name]) and not (pd.notna(fact[name]) and row[name] == fact[name])
        ]
        if not row["complete"] and pd.isna(row["notes"]):
            wrong.append(f"{key}: not complete without a note")
        if row["zombie_open"] > fact["zombie_open"] or (row["state"] != "gone" and row["state"] != fact["state"]):
            wrong.append(f"{key}: {row['state']}, in truth {fact['state']}")
    for name in ("reparent", "reap", "autoreap", "exit"):
        wrong += [f"{one}: an event that was not" for one in happened(lossy, name) - happened(true, name)]
    return wrong


def happened(made: Recording, kind: str) -> set[tuple[Any, ...]]:
    """Return the events of a kind, by whom they are about and who acted; of those that are derived, without their times."""
    table, keys = made.events(), keyed(made.lifecycles()).index
    table = table[(table["kind"] == kind) & table["id"].notna()]
    return {(kind, keys[one], by) for one, by in zip(table["id"], table["by_pid"].astype(object).fillna(0), strict=True)}


def counted(lossy: Recording, true: Recording, lost: Counter[str]) -> None:
    """The balance of a lossy recording comes out, and so does that of the whole."""
    whole, balance = true.balance(), lossy.balance()
    assert whole.holds
    assert whole.lost == 0
    assert balance.holds, balance
    assert balance.started == whole.started
    assert balance.lost >= lost["fork"]


@pytest.mark.parametrize("seed", range(25))
def test_losses_of_a_made_up_world(tmp_path: Path, seed: int) -> None:
    """Whatever is lost, what is said is true, or its row is not complete and has a note; nothing is made up."""
    world, dice = World(seed, steps=150), random.Random(seed)
    rows = sorted(world.rows, key=lambda row: row["time_ns"])
    true = made_of(rows, world.still, HEADER, tmp_path / "true.arrows", Counter())
    assert true.lifecycles()["complete"].sum() > 30
    for _ in range(6):
        kept, lost = with_losses(rows, dice)
        lossy = made_of(kept, world.still, HEADER, tmp_path / "lossy.arrows", lost)
        assert untruths(lossy, true) == []
        counted(lossy, true, lost)


@pytest.mark.parametrize("scene", ["exits", "fixes", "join", "kafka", "methods", "start", "stolen"])
def test_losses_of_a_recording(tmp_path: Path, scene: str) -> None:
    """The same holds of real recordings."""
    trace = stream.read(DATA / f"{scene}.arrows")
    rows = [{name: value for name, value in row.items() if value is not None} for row in trace.table.to_pylist()]
    rows = [row for row in rows if row["kind"] != "end"]
    true = made_of(rows, {}, trace.header, tmp_path / "true.arrows", Counter())
    table, dice = true.lifecycles(), random.Random(scene)
    there = table[table["state"] != "gone"]
    here = [
        [int(pid), int(ns), int(state == "zombie")]
        for pid, ns, state in zip(there["pid"], there["fork_ns"], there["state"], strict=True)
    ]
    still = {"at_ns": true.end_ns + 1, "processes": here}
    for _ in range(4):
        kept, lost = with_losses(rows, dice)
        lossy = made_of(kept, still, trace.header, tmp_path / "lossy.arrows", lost)
        assert untruths(lossy, true) == []
        counted(lossy, true, lost)


@pytest.mark.parametrize(("kind", "is_whole"), [(ev.NOT_RUN, False), ("exec", False), ("reap", True)])
def test_a_probe_that_was_not_run(tmp_path: Path, kind: str, is_whole: bool) -> None:
    """It may have been any event of anybody, an exec too: then it is not certain what a child runs that was forked after it."""
    rows = [
        ev.fork(0, 100, by=50, origin="target", comm="python", by_start_ns=None),
        ev.fork(MS, 101, by=100, comm="python"),
        ev.lost(2 * MS, 3, kind),
        ev.fork(3 * MS, 102, by=100, comm="python"),
    ]
    still = {"at_ns": 4 * MS, "processes": [[100, 0, 0], [101, MS, 0], [102, 3 * MS, 0]]}
    recording = made_of(rows, still, HEADER, tmp_path / "run.arrows", Counter({kind: 3}))
    assert recording.lost() == {kind: 3}
    assert recording.lifecycles()["complete"].tolist() == [False, False, is_whole]
