"""What one Process.start() costs as living children grow in number: `python benchmarks/start_cost.py [--pairs N] [--png FILE]`.

Every start first asks for every child that multiprocessing knows, and each that lives answers in vain. Measured is the CPU time
of the thread that starts, once while multiprocessing knows of the living children and once while it does not, in turn, beside
the same children; printed are medians and their 95 % intervals by order statistics, and of a recording (as root) how many
calls at the line of the start came back empty. The table is Markdown, for docs/fixes.md; `--png` draws it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from slowdown import OURS, WORKLOADS, median_interval, row, shown, tracers

from forktrace.analysis.recording import read

LIVING = (0, 1, 10, 100, 250, 500, 750, 1000)
ROUNDS = 5  # through all of them, so that a busy minute does not fall on one alone
RECORDED_PAIRS = 6
WARM_UP = 4  # the first starts fill caches

Pair = tuple[float, float]  # us of a start that knows the living children, and of one that does not


def storm(living: int, pairs: int) -> list[str]:
    """Return the command that measures."""
    return [sys.executable, str(WORKLOADS / "start_storm.py"), str(living), str(pairs)]


def measured(living: int, pairs: int) -> list[Pair]:
    """Return the pairs of starts beside that many living children."""
    lines = subprocess.run(storm(living, pairs + WARM_UP), check=True, capture_output=True, text=True).stdout.splitlines()
    return [(float(known), float(unknown)) for known, unknown in map(str.split, lines[WARM_UP:])]


def empty_polls(folder: Path, living: int) -> float:
    """Return how many empty calls a recording counts for each start that knows the living children."""
    subprocess.run([*tracers(folder)[OURS], *storm(living, RECORDED_PAIRS)], check=True, capture_output=True)
    waits = read(folder / "x.arrows").waits()
    swept = waits[waits["site"].str.endswith(" start_us") & (waits["options"] == "WNOHANG")]
    return float(swept["empty"].sum()) / RECORDED_PAIRS


def draw(found: dict[int, list[Pair]], path: str) -> None:
    """Draw the medians and their intervals over the number of living children."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    series = (("known to multiprocessing", 0, "o", "#d55e00"), ("not known to it", 1, "s", "#0072b2"))
    for label, side, marker, colour in series:
        each = [median_interval([pair[side] / 1000 for pair in pairs]) for pairs in found.values()]
        middles = [middle for middle, _, _ in each]
        bars = [[middle - low for middle, low, _ in each], [high - middle for middle, _, high in each]]
        axes.errorbar(list(found), middles, bars, marker=marker, color=colour, capsize=3, label=label)
    axes.set_xlabel("living children")
    axes.set_ylabel("CPU time of one Process.start(), ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(title="the living children are", frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60, help="pairs of starts for each number of living children")
    parser.add_argument("--png", metavar="FILE", help="draw the table, too")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("recording needs root")
    row(
        "living children",
        "one start, none known, us",
        "more when all are known, us",
        "ns a living child",
        "empty polls a start",
    )
    row(*["---"] * 5)
    found: dict[int, list[Pair]] = {living: [] for living in LIVING}
    for _ in range(ROUNDS):
        for living, pairs in found.items():
            pairs += measured(living, chosen.pairs // ROUNDS)
    with tempfile.TemporaryDirectory() as name:
        for living, pairs in found.items():
            more = [known - unknown for known, unknown in pairs]
            each = shown([one / living * 1000 for one in more], 0) if living >= 100 else ""
            polls = f"{empty_polls(Path(name), living):g}"
            row(living, shown([unknown for _, unknown in pairs], 0), shown(more, 0), each, polls)
    if chosen.png:
        draw(found, chosen.png)


if __name__ == "__main__":
    main()
