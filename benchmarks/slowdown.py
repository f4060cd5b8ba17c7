"""What recording costs: `python benchmarks/slowdown.py [--pairs N] [--rival-pairs N] [--only NAME]`, as root.

Each ratio is of two runs one right after the other, bare and traced, taking turns in which comes first; printed is the median of
the ratios and its 95 % interval by order statistics. Every workload prints the seconds that it took itself, so a tracer's
start-up does not count. The tables are Markdown, for docs/limits.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from forktrace.trace import stream

WORKLOADS = Path(__file__).parent / "workloads"
FORKTRACE = [sys.executable, "-m", "forktrace"]
IDLE_S = 15.0
STARTS = 10
GETPPID_CALLS = 4_000_000
ROUND_TRIPS = 60_000
LONG_STORM = ["2", "60000"]
POINTS = [
    "task:task_newtask",
    "sched:sched_process_exec",
    "sched:sched_process_exit",
    "sched:sched_process_free",
    "signal:signal_generate",
    "syscalls:sys_exit_wait4",
    "syscalls:sys_exit_waitid",
]
# perf and bpftrace want tracefs where they look for it: mounted there for them alone
WITH_TRACEFS = ["unshare", "--mount", "sh", "-c", 'mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null; exec "$@"', "sh"]
BPFTRACE = ",".join(f"tracepoint:{point}" for point in POINTS) + ' { printf("%llu %d %s %s\\n", nsecs, pid, comm, probe); }'
HEAVY = ["pyarrow", "pandas", "matplotlib", "bcc"]


def workloads(folder: Path) -> dict[str, list[str]]:
    """Compile the C programs into `folder` and return each workload's command."""
    for name in ("storm", "calls"):
        subprocess.run(["gcc", "-O2", "-static", "-o", folder / name, WORKLOADS / f"{name}.c"], check=True)
    storm, python = str(folder / "storm"), sys.executable
    return {
        "C fork+exit+wait, 1 worker": [storm, "1", "2500"],
        "C fork+exit+wait, 2 workers": [storm, "2", "3000"],
        "C fork+exec+wait, 1 worker": [storm, "1", "1200", "exec"],
        "C fork+exec+wait, 2 workers": [storm, "2", "1200", "exec"],
        "Python os.fork": [python, str(WORKLOADS / "fork_storm.py"), "700"],
        "Python subprocess.run": [python, str(WORKLOADS / "run_loop.py"), "350"],
    }


def tracers(folder: Path) -> dict[str, list[str]]:
    """Return what each tracer puts before a command."""
    quoted = WITH_TRACEFS + ["sh", "-c", 'program=$1 out=$2; shift 2; exec bpftrace -q -o "$out" -c "$*" -e "$program"', "sh"]
    events = [word for point in POINTS for word in ("-e", point)]
    return {
        "forktrace": [*FORKTRACE, "record", "-q", "--force", "--user", "root", "-o", str(folder / "x.arrows"), "--"],
        "strace -f": ["strace", "-f", "-e", "trace=process", "-o", str(folder / "strace.txt")],
        "bpftrace": [*quoted, BPFTRACE, str(folder / "bpftrace.txt")],
        "perf record": [*WITH_TRACEFS, "perf", "record", "-q", "-a", "-o", str(folder / "perf.data"), *events, "--"],
    }


def elapsed_s(command: Sequence[str]) -> float:
    """Run `command` and return the seconds that it prints as its last line."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0 or not done.stdout.strip():
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return float(done.stdout.split()[-1])


def pairs(count: int, bare: Callable[[], float], traced: Callable[[], float]) -> list[tuple[float, float]]:
    """Return `count` pairs (bare, traced) of runs right after each other; every second pair begins with the traced one."""
    found = []
    for number in range(count):
        if number % 2:
            slow, fast = traced(), bare()
        else:
            fast, slow = bare(), traced()
        found.append((fast, slow))
    return found


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the order statistics that enclose the true one with 95 % certainty; the range below 6 values."""
    ranked, count = sorted(values), len(values)
    below, cut = 0.0, 0
    while (below := below + math.comb(count, cut) / 2**count) <= 0.025:
        cut += 1
    first = max(cut - 1, 0)
    return statistics.median(ranked), ranked[first], ranked[count - 1 - first]


def shown(values: Sequence[float], digits: int = 2) -> str:
    """Return `1.02 [0.99, 1.05]`; fewer than 6 values have a range and no interval."""
    middle, low, high = median_interval(values)
    about = "" if len(values) >= 6 else "range "
    return f"{middle:.{digits}f} [{about}{low:.{digits}f}, {high:.{digits}f}]"


def row(*cells: object) -> None:
    """Print one line of a Markdown table."""
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


def trace_facts(path: Path) -> tuple[dict[str, int], int, int, int]:
    """Return from a trace: losses by kind, processes, bytes, batches that are not empty."""
    last = stream.read(path).table.slice(-1) if False else stream.read(path).table
    end = json.loads(last.column("detail")[last.num_rows - 1].as_py())
    with pa.ipc.open_stream(path) as reader:
        batches = sum(batch.num_rows > 0 for batch in reader)
    return end["lost"], end["processes"], path.stat().st_size, batches


def slowdowns(folder: Path, count: int, rival_count: int, only: str) -> None:
    """Print the table of ratios, one line for each workload and tracer."""
    row("workload", "tracer", "pairs", "slowdown [95 % interval]", "bare, s", "events lost", "trace, bytes a process (batches)")
    row(*["---"] * 7)
    commands, prefixes = workloads(folder), tracers(folder)
    for name in [name for name in prefixes if only in name or any(only in workload for workload in commands)]:
        try:
            elapsed_s([*prefixes[name], str(folder / "storm"), "1", "10"])
        except (OSError, RuntimeError) as error:
            print(f"{name} cannot run here, skipped: {error}", file=sys.stderr)
            del prefixes[name]
    for workload, command in commands.items():
        for name, prefix in prefixes.items():
            if only not in workload and only not in name:
                continue
            lost, sizes = 0, []

            def traced(name: str = name, prefix: list[str] = prefix, command: list[str] = command) -> float:
                nonlocal lost
                seconds = elapsed_s([*prefix, *command])
                if name == "forktrace":
                    losses, processes, size, batches = trace_facts(folder / "x.arrows")
                    lost += sum(losses.values())
                    sizes.append((size / processes, batches, processes))
                return seconds

            both = pairs(
                count if name == "forktrace" else rival_count, lambda command=command: elapsed_s(command), traced
            )
            bare = statistics.median(fast for fast, _ in both)
            size = ""
            if sizes:
                each, batches, processes = (statistics.median(column) for column in zip(*sizes, strict=True))
                size = f"{each:.0f} ({batches:.0f} batches, {processes:.0f} processes)"
            ratio = shown([slow / fast for fast, slow in both])
            row(workload, name, len(both), ratio, f"{bare:.2f}", lost if sizes else "not counted", size)
