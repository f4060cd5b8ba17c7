"""Tries what `doctor` cannot know by looking: loads the probes one by one, and records a child from its fork to its reap."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from forktrace.errors import ForktraceError
from forktrace.kernel import bpf
from forktrace.kernel.btf import Btf
from forktrace.kernel.facts import facts_of
from forktrace.kernel.loading import GONE, TASKS, find_object, programs_of, verify
from forktrace.launcher.recorder_process import own_command
from forktrace.system.machine import this_machine

# Forks at line 2 and reaps at line 4, as a program would whose zombies are asked for.
PROGRAM: Final = "import os\npid = os.fork()\npid or os._exit(3)\nos.waitpid(pid, 0)\n"
LINES: Final[Mapping[str, str]] = {"fork": "<string>:2 <module>", "reap": "<string>:4 <module>"}
WANTED: Final = ("fork", "exit", "zombie", "reap")
PATIENCE_S: Final = 120
WITHOUT_TRACEPOINT: Final = {TASKS: "the tasks that run already", GONE: "releases that no probe saw"}


class Tried(NamedTuple):
    """One thing that was tried: whether it worked, its name, and what came of it."""

    good: bool
    name: str
    found: str


def try_programs() -> Iterator[Tried]:
    """Load the probes that this kernel has a use for, one by one; nothing is attached.

    Raises:
        ForktraceError: there is no BTF, or no compiled probes.
    """
    facts = facts_of(Btf(), this_machine())
    probes = find_object(facts.names)
    for name, tracepoints in programs_of(facts).items():
        at = ", ".join(tracepoints) or WITHOUT_TRACEPOINT[name]
        try:
            yield Tried(True, name, f"{verify(probes, facts, name):,} instructions verified, for {at}")
        except bpf.Refused as error:
            said = error.log.strip().splitlines()
            yield Tried(False, name, f"refused by the kernel: {error.strerror}{f': {said[-1]}' if said else ''}")
        except (ForktraceError, OSError) as error:
            yield Tried(False, name, f"cannot be loaded: {error}")
    for lack in facts.lacks:
        yield Tried(True, "lacks", f"this kernel does not give: {lack}")


def try_recording() -> Tried:
    """Record a Python program that forks and reaps a child, as `record` does, and say what came."""
    from forktrace.trace.stream import read

    line = [*own_command(), "record", "-q", "-o", "-", "--", sys.executable, "-I", "-c", PROGRAM]
    # In memory, as a container may have no place for files; handed over open, as under sudo `record` is its caller's.
    with open(os.memfd_create("forktrace-trace"), "wb") as trace:
        try:
            done = subprocess.run(line, stdout=trace, stderr=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return Tried(False, "recording", f"record did not come to its end: {error}")
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("forktrace: ")]
            return Tried(False, "recording", (said or ["record failed"])[0].removeprefix("forktrace: "))
        return judge(
            read(f"/proc/self/fd/{trace.fileno()}").table.select(["kind", "pid", "origin", "stack", "call"]).to_pylist()
        )


def judge(rows: list[dict[str, object]]) -> Tried:
    """Say what came of the child, by the rows of the recording."""
    children = [row["pid"] for row in rows if row["kind"] == "fork" and row["origin"] == "forked"]
    if len(children) != 1:
        return Tried(False, "recording", f"of one fork {len(children)} came")
    found = {str(row["kind"]): row for row in rows if row["pid"] == children[0]}
    if missing := [kind for kind in WANTED if kind not in found]:
        return Tried(False, "recording", f"of a child did not come: {', '.join(missing)}")
    without = [kind for kind, line in LINES.items() if not str(found[kind]["stack"] or "").endswith(line)]
    if without:
        return Tried(False, "recording", f"of a child all came, but no Python line of its {' and '.join(without)}")
    return Tried(True, "recording", "fork, exit, zombie and reap of a child came, with the Python lines of fork and reap")
