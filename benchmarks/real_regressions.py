"""What `forktrace diff` tells of real recordings of scene `fixes`: `python benchmarks/real_regressions.py RUN.arrows...`.

Each recording holds the ten ways of the scene, and seven messages for each. Compared are all ways of which one is worse than
the other, with one run a side and with all, and each way with itself. Prints how many changes were told from chance.

    for i in 1 2 3 4 5; do forktrace record -q -o run$i.arrows -- python -m forktrace.scenes.fixes; done
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import combinations, permutations
from typing import Final

from forktrace.analysis.comparison.changes import compare, parse_rise_limit
from forktrace.analysis.recording import Recording, read

BADNESS: Final = {"nothing": 2, "active-per-message": 2, "double-fork": 2, "active-children": 1}  # of the others 0
RISE: Final = parse_rise_limit("zombie-seconds+10%")


def ways(path: str) -> dict[str, Recording]:
    """Return the part of each way in a recording."""
    made = read(path)
    branches = made.lifecycles().loc[made.branches()["id"]]
    return {str(one.argv).split()[-1]: made.of(one.id) for one in branches.itertuples()}


def told(old: Sequence[Recording], new: Sequence[Recording], worse: bool) -> tuple[bool, bool]:
    """Return whether the change is told from chance and in the right direction, and whether the gate knows that direction."""
    total = compare(old, new).figure("zombie-seconds")
    return total.sure and (total.new > total.old) == worse, RISE.met(total) == worse


def main() -> None:
    """Print a line for each."""
    runs = [ways(path) for path in sys.argv[1:]]
    pairs = [(a, b) for a, b in permutations(runs[0], 2) if BADNESS.get(a, 0) != BADNESS.get(b, 0)]
    sides = {f"one run a side, {len(runs)} times": [[run] for run in runs], f"{len(runs)} runs a side": [runs]}
    for words, several in sides.items():
        found = [
            told([run[a] for run in part], [run[b] for run in part], BADNESS.get(b, 0) > BADNESS.get(a, 0))
            for part in several
            for a, b in pairs
        ]
        sure, met = (sum(column) for column in zip(*found, strict=True))
        print(f"{words}: {sure} of {len(found)} changes told from chance, {met} told right by --fail-if {RISE.text}")
    same = [compare([old[way]], [new[way]]) for old, new in combinations(runs, 2) for way in old]
    rows = [row.sure for one in same for row in one.rows]
    print(f"{len(same)} pairs of runs of the same way: {sum(rows)} of {len(rows)} rows called different")


if __name__ == "__main__":
    main()
