"""How true `zombie_ms` is: `python tests/witness/zombie_times.py`, as root, prints the table of docs/reliability.md.

The witness (ends.c) takes its own clock on both sides: a child right before it leaves, its parent when SIGCHLD has come and
around its wait call. The zombie began and ended between those, so `zombie_ms` has to lie between what the inner and the outer
pair say. A second witness, which nobody told anything, looks at /proc every millisecond.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from comparison import Comparison, Rows, number, with_samples
from recorded import CLOCKS_NS, TICK_NS, Recorded, forktrace_command
from straced import Bounds
from watched import Watcher

CHILDREN: Final = 200
STORMS: Final = 2


class Witnessed(NamedTuple):
    """One recording of ends.c: what its parent said of each child, what /proc showed, and the lifecycle table."""

    lines: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    table: pd.DataFrame
    end_ns: int


def witnessed(watcher: Watcher, children: int, storms: int) -> Witnessed:
    """Record ends.c while the sampler looks at /proc every millisecond."""
    with watcher.sampling(1000) as samples:
        recorded = watcher.record([watcher.built("ends"), str(children), str(storms)])
    assert recorded.returncode == 0, recorded.stderr
    return Witnessed(recorded.lines, samples, recorded.table, recorded.recording.end_ns)


def compare(seen: Witnessed) -> Comparison:
    """The beginning and the end of each zombie lie within the witness's own clocks, and where /proc shows them."""
    found, rows = Comparison(), Rows(seen.table)
    for line in seen.lines:
        row = rows.at(line["pid"], line["told_ns"])
        found.check("seen", f"pid {line['pid']}", row is not None, True)
        if row is None:
            continue
        zombie_ns, reap_ns = number(row.zombie_ns), number(row.reap_ns)
        shortest, longest = (line["before_ns"] - line["told_ns"]) / 1e6, (line["after_ns"] - line["left_ns"]) / 1e6
        slack_ms = 2 * CLOCKS_NS / 1e6
        found.within("zombie", f"pid {line['pid']}", zombie_ns, Bounds(line["left_ns"], line["told_ns"]))
        found.within("reap", f"pid {line['pid']}", reap_ns, Bounds(line["before_ns"], line["after_ns"]))
        right = shortest - slack_ms <= row.zombie_ms <= longest + slack_ms
        found.check("zombie_ms", f"pid {line['pid']}: {row.zombie_ms} ms, not in {shortest} .. {longest}", right, True)
    found.add(with_samples(seen.table, seen.end_ns, seen.samples))
    return found


def errors(seen: Witnessed) -> pd.DataFrame:
    """One row a child, ms: how far each moment and the length are from what the two witnesses say; and whether it is big."""
    rows = Rows(seen.table)
    sampled = {(sample["pid"], sample["starttime"]): sample for sample in seen.samples}
    found = pd.DataFrame([_errors(rows.at(line["pid"], line["told_ns"]), line, sampled) for line in seen.lines])
    return found.assign(big=[line["big"] for line in seen.lines])


def _errors(row: Any, line: Mapping[str, Any], sampled: Mapping[tuple[int, int], Mapping[str, Any]]) -> dict[str, float]:
    zombie_ns, reap_ns = int(row.zombie_ns), int(row.reap_ns)
    shortest_ns, longest_ns = line["before_ns"] - line["told_ns"], line["after_ns"] - line["left_ns"]
    off_ns = max(reap_ns - zombie_ns - shortest_ns, longest_ns - (reap_ns - zombie_ns))
    found = {
        "it begins after the child left by": zombie_ns - line["left_ns"],
        "it begins before SIGCHLD was there by": line["told_ns"] - zombie_ns,
        "it ends after the wait call began by": reap_ns - line["before_ns"],
        "it ends before the wait call was back by": line["after_ns"] - reap_ns,
        "`zombie_ms` is off by at most": off_ns,
    }
    sample = sampled.get((int(row.pid), int(row.fork_ns) // TICK_NS))
    if sample and sample["alive_ns"] and sample["zombie_ns"] and sample["gone_ns"]:
        began, ended = (sample["alive_ns"] + sample["zombie_ns"]) / 2, (sample["there_ns"] + sample["gone_ns"]) / 2
        found["`zombie_ms` minus what /proc showed"] = reap_ns - zombie_ns - (ended - began)
    return {name: ns / 1e6 for name, ns in found.items()}


def distribution(name: str, measured: pd.DataFrame) -> Iterable[str]:
    """The distribution as rows of Markdown, ms."""
    for what in measured:
        values = measured[what].dropna()
        parts = [f"{np.quantile(values, part):.3f}" for part in (0, 0.5, 0.99, 1)]
        yield f"| {name} | {what} | " + " | ".join([*parts, str(len(values))]) + " |"


def plain_record(folder: Path) -> Callable[..., Recorded]:
    """`record` as the fixture of that name has it, for a script."""

    def record(command: Sequence[str]) -> Recorded:
        path = folder / "ends.arrows"
        line = forktrace_command("record", "-q", "--force", "-o", str(path), "--", *command)
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        return Recorded(path, done.returncode, done.stdout, done.stderr)

    return record


def main() -> None:
    """Measure idle and under a storm, print the distributions and what does not fit."""
    print("| machine | ms | least | median | 99 % | most | zombies |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watcher = Watcher(plain_record(folder), folder)
        for load, storms in (("idle", 0), (f"storm of {STORMS}", STORMS)):
            seen = witnessed(watcher, CHILDREN, storms)
            measured = errors(seen)
            for size, part in measured.groupby("big"):
                print("\n".join(distribution(f"{load}{', 64 MiB' if size else ''}", part.drop(columns="big"))), flush=True)
            found = compare(seen)
            print("\n".join([f"{load}: {found}", *found.differences]), file=sys.stderr)


if __name__ == "__main__":
    main()
