"""Records a mixed load of forks at full speed on both processors: `python soak.py SECONDS [--rotate 5s]`, as root.

Prints how many processes and events there were, what was lost, how much memory the recorder had at the beginning and at the
end, how large the trace is and how long it takes to open. Ends with 1 if anything was lost or is not accounted for, or if the
memory grew; then it says which processes these are, and keeps the recording.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from counted import Difference, compared, made_by
from recorded import WORKLOADS, children, forktrace_command

import forktrace
from forktrace.trace import rotation

EVERY_S = 0.2
MOST_DOUBTS = 1e-4  # of the rows, that the trace itself says are not complete
GROWTH_MB = 16  # that is no leak: what is kept of the stacks of a recording, and what was freed but not given back


@dataclass(frozen=True)
class Soak:
    """What came of it; memory in MB: the most in the first and in the last third of the time, after the first seconds."""

    seconds: float
    difference: Difference
    processes: int
    events: int
    lost: dict[str, int]
    doubts: dict[str, int]  # notes of the rows that are not complete
    balanced: bool
    cut: str | None
    first_mb: float
    last_mb: float
    files: int
    trace_mb: float
    opens_s: float
    opens_mb: float

    def failures(self) -> list[str]:
        """What is not as it should be."""
        wrong = {
            f"lost: {self.lost}": bool(self.lost),
            f"rows that are not complete: {self.doubts}": sum(self.doubts.values()) > self.processes * MOST_DOUBTS,
            "the balance does not hold": not self.balanced,
            f"the trace is not whole: {self.cut}": self.cut is not None,
            f"the memory grew from {self.first_mb:.0f} to {self.last_mb:.0f} MB": self.last_mb > self.first_mb + GROWTH_MB,
        }
        return [text for text, so in wrong.items() if so] + self.difference.texts()


def soak(seconds: float, reaps: str, folder: Path, rotate: str | None = None) -> Soak:
    """Record, to one file or to many; `reaps` is the compiled program of that name."""
    trace = folder / ("soak" if rotate else "soak.arrows")
    load = [sys.executable, str(WORKLOADS / "mixed.py"), str(seconds), reaps, str(folder)]
    line = forktrace_command("record", "-q", "-o", str(trace), *(("--rotate", rotate) if rotate else ()), "--", *load)
    sampled: list[tuple[float, float]] = []
    with subprocess.Popen(line, stdout=subprocess.DEVNULL) as launcher:
        while launcher.poll() is None:
            if (recorder := next(iter(children(launcher.pid)), None)) and trace.exists():
                sampled.append((time.monotonic(), resident_mb(recorder)))
            time.sleep(EVERY_S)
    assert launcher.returncode == 0, f"status {launcher.returncode}"
    begin = time.monotonic()
    recording = forktrace.read(trace)
    table = recording.lifecycles()
    opens_s = time.monotonic() - begin
    opens_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    third = (sampled[-1][0] - sampled[0][0]) / 3
    return Soak(
        seconds=sampled[-1][0] - sampled[0][0],
        difference=compared(table, made_by(folder)),
        processes=len(table),
        events=len(recording.trace.table),
        lost=recording.lost(),
        doubts={str(note): int(count) for note, count in table.loc[~table["complete"], "notes"].value_counts().items()},
        balanced=recording.balance().holds,
        cut=recording.cut,
        first_mb=max(mb for at, mb in sampled if at < sampled[0][0] + third),
        last_mb=max(mb for at, mb in sampled if at > sampled[-1][0] - third),
        files=len(rotation.find(trace).files) if rotate else 1,
        trace_mb=sum(path.stat().st_size for path in (trace.iterdir() if rotate else [trace])) / 1e6,
        opens_s=opens_s,
        opens_mb=opens_mb,
    )


def resident_mb(pid: int) -> float:
    """The resident memory of a process; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


def main() -> None:
    """Say what came of it."""
    folder = Path(tempfile.mkdtemp(prefix="forktrace-soak-"))
    reaps = folder / "reaps"
    subprocess.run(["gcc", "-O1", "-pthread", "-o", reaps, WORKLOADS / "reaps.c"], check=True)
    done = soak(float(sys.argv[1]), str(reaps), folder, sys.argv[3] if "--rotate" in sys.argv else None)
    counted = ", ".join(f"{way} {count:,}" for way, count in done.difference.made.items())
    print(f"{done.seconds:.0f} s: {done.processes:,} processes, {done.events:,} events, lost: {done.lost or 0}")
    print(f"the load made itself and, by way: {counted}")
    print(f"rows that are not complete: {done.doubts or 0}; the balance {'holds' if done.balanced else 'does not hold'}")
    print(f"recorder: at most {done.first_mb:.0f} MB resident in the first third, {done.last_mb:.0f} MB in the last")
    print(f"{done.files} files: {done.trace_mb:.1f} MB; opens in {done.opens_s:.1f} s, with {done.opens_mb:.0f} MB")
    if failures := done.failures():
        sys.exit("\n".join([*failures, f"the recording is in {folder}"]))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
