"""What Python stacks cost in the kernel and in the trace: `python benchmarks/stack_cost.py`, as root.

The kernel's own statistics (sysctl kernel.bpf_stats_enabled) say how long all of the recorder's probes ran while 200 children
were forked, left and were reaped from a stack of 2, 64 and 1,000 frames: three walks a child. What a walk costs is the
difference to a recording without stacks, what a frame costs the difference between depths. Bytes are those of a trace of
1,000 children that a consumer starts, with stacks and without, divided by the stacks.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
from slowdown import OURS, WITHOUT, WORKLOADS, interpreters, tracers

from forktrace.trace import stream

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
CHILDREN, WALKS, RUNS = 200, 3, 5
DEPTHS = (2, 64, 1000)
MESSAGES = 1000


@contextlib.contextmanager
def statistics_on() -> Iterator[None]:
    """The kernel measures every program."""
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    yield
    STATISTICS.write_text(before)


def probes_ns(pid: int) -> int:
    """Return how long the BPF programs that a process and its children hold have run (/proc/PID/fdinfo)."""
    pids = [str(pid), *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    programs = {}
    for holder in pids:
        for path in Path(f"/proc/{holder}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                found = dict(re.findall(r"^(prog_id|run_time_ns):\s*(\d+)$", path.read_text(), re.MULTILINE))
                if len(found) == 2:
                    programs[found["prog_id"]] = int(found["run_time_ns"])
    return sum(programs.values())


def child_ns(prefix: list[str], interpreter: str, depth: int) -> float:
    """Return the probes' time for one child of a storm, the program's start and end left out."""
    spent = []
    for count in (0, CHILDREN):
        command = [*prefix, interpreter, "-S", str(WORKLOADS / "fork_storm.py"), str(count), str(depth)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as recorder:
            assert recorder.stdout is not None
            assert recorder.stdin is not None
            recorder.stdout.readline()
            spent.append(probes_ns(recorder.pid))
            recorder.stdin.close()
    return (spent[1] - spent[0]) / CHILDREN


def walks(folder: Path) -> None:
    """Print the cost of a walk and of a frame."""
    print("| interpreter | frames | us a walk | ns a further frame |\n|---|---|---|---|", flush=True)
    for version, interpreter in interpreters().items():
        bare = statistics.median(child_ns(tracers(folder)[WITHOUT], interpreter, 2) for _ in range(RUNS))
        last = 0.0
        for depth in DEPTHS:
            spent = statistics.median(child_ns(tracers(folder)[OURS], interpreter, depth) for _ in range(RUNS))
            walk = (spent - bare) / WALKS
            frame = (walk - last) / (depth - DEPTHS[max(DEPTHS.index(depth) - 1, 0)]) if last else float("nan")
            print(f"| {version} | {depth} | {walk / 1000:.1f} | {frame:.0f} |", flush=True)
            last = walk


def trace_bytes(folder: Path, prefix: list[str]) -> tuple[int, int]:
    """Return the size of a recording of the messages, and how many stacks are in it."""
    subprocess.run([*prefix, sys.executable, str(WORKLOADS / "messages.py"), str(MESSAGES)], check=True)
    path = folder / "x.arrows"
    table = stream.read(path).table
    return path.stat().st_size, int(pc.sum(pc.is_valid(table.column("stack"))).as_py())


def main() -> None:
    """Print both."""
    if os.geteuid() != 0:
        sys.exit("recording needs root")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with statistics_on():
            walks(folder)
        (with_stacks, stacks), (without, none) = (trace_bytes(folder, tracers(folder)[each]) for each in (OURS, WITHOUT))
        assert stacks
        assert not none
        print(f"\ntrace of {MESSAGES} messages: {with_stacks} bytes, {without} without stacks: ", end="")
        print(f"{(with_stacks - without) / stacks:.1f} bytes for each of {stacks} stacks")


if __name__ == "__main__":
    main()
