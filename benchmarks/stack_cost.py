"""What Python stacks cost in the kernel and in the trace: `python benchmarks/stack_cost.py`, as root, on a quiet machine.

The kernel's own statistics (sysctl kernel.bpf_stats_enabled) say how long the probes ran while children were forked, left and
were reaped from a stack of 2, 64 and 1,000 frames: three walks a child. What a walk costs is the difference to a recording
without stacks, what a frame costs the difference between depths. Bytes are those of a trace of 1,000 children that a
consumer starts, with stacks and without, divided by the stacks.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
from slowdown import OURS, WITHOUT, WORKLOADS, interpreters, row, shown, tracers

from forktrace.system.machine import this_machine
from forktrace.trace import stream

STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
PROG_GET_NEXT_ID, PROG_GET_FD_BY_ID = 11, 13  # enum bpf_cmd
CHILDREN, WALKS, RUNS = 50, 3, 20
DEPTHS = (2, 64, 1000)
MESSAGES = 1000


@contextlib.contextmanager
def statistics_on() -> Iterator[None]:
    """The kernel measures every program."""
    before = STATISTICS.read_text()
    STATISTICS.write_text("1")
    try:
        yield
    finally:
        STATISTICS.write_text(before)


def bpf(command: int, identity: int) -> tuple[int, int]:
    """Call bpf(2) with the id of a program; return its result, and the next id."""
    attributes = ctypes.create_string_buffer(struct.pack("<III", identity, 0, 0), 12)
    result = ctypes.CDLL(None, use_errno=True).syscall(this_machine().calls["BPF"], command, attributes, 12)
    return result, struct.unpack("<III", attributes.raw)[1]


def programs() -> dict[int, int]:
    """Return the ids of all BPF programs, and for how many ns each has run."""
    found, identity = {}, 0
    while bpf(PROG_GET_NEXT_ID, identity)[0] == 0:
        identity = bpf(PROG_GET_NEXT_ID, identity)[1]
        descriptor = bpf(PROG_GET_FD_BY_ID, identity)[0]
        if descriptor >= 0:
            text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
            found[identity] = int(re.findall(r"run_time_ns:\s*(\d+)", text)[0])
            os.close(descriptor)
    return found


def storms(prefix: list[str], interpreter: str) -> dict[int, list[float]]:
    """Return for each depth the us that the probes ran for a child, once a run."""
    before = programs().keys()
    found: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
    command = [*prefix, interpreter, "-S", str(WORKLOADS / "fork_storm.py"), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as recorder:
        assert recorder.stdin is not None
        assert recorder.stdout is not None
        for run in range(RUNS + 1):  # the first sends what is new
            for depth in DEPTHS:
                began = sum(ns for one, ns in programs().items() if one not in before)
                recorder.stdin.write(f"{CHILDREN} {depth}\n".encode())
                recorder.stdin.flush()
                recorder.stdout.readline()
                spent = sum(ns for one, ns in programs().items() if one not in before) - began
                found[depth] += [spent / CHILDREN / 1000] if run else []
        recorder.stdin.close()
    return found


def walks(folder: Path) -> None:
    """Print the cost of a walk and of a frame."""
    row("interpreter", "frames", "us a walk [95 % interval]", "ns a further frame")
    row("---", "---", "---", "---")
    for version, interpreter in interpreters().items():
        bare, ours = (storms(tracers(folder)[tracer], interpreter) for tracer in (WITHOUT, OURS))
        walk = {depth: [(a - b) / WALKS for a, b in zip(ours[depth], bare[depth], strict=True)] for depth in DEPTHS}
        for depth in DEPTHS:
            further = (depth - DEPTHS[0]) or 1
            frame = shown([(a - b) * 1000 / further for a, b in zip(walk[depth], walk[DEPTHS[0]], strict=True)], 0)
            row(version, depth, shown(walk[depth], 1), "" if depth == DEPTHS[0] else frame)


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
