"""Who has the other end of a pipe, by the descriptors of all processes: /proc/PID/fd names each pipe by a number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final

from forktrace.system.procfs import Proc
from forktrace.trace.inquiry import OtherProcess

_ACCESS: Final = os.O_ACCMODE


def holders(proc: Proc, pid: int, ends: Iterable[tuple[int, str]]) -> dict[str, tuple[OtherProcess, ...]]:
    """Return for each pipe among `ends`, descriptors of process `pid` with their names, who has its other end open."""
    pipes = {name: _access(proc, pid, number) for number, name in ends if name.startswith("pipe:[")}
    found: dict[str, list[OtherProcess]] = {name: [] for name in pipes}
    for other in proc.pids() if pipes else ():
        for name in dict.fromkeys(_ends_of(proc, other, pipes)):
            found[name].append(describe(proc, other))
    return {name: tuple(several) for name, several in found.items()}


def describe(proc: Proc, pid: int) -> OtherProcess:
    """Return what is known of another process."""
    stat = proc.one_of(pid)
    return OtherProcess(pid, proc.argv(pid) or (proc.comm(pid),), stat.state if stat else None, tuple(proc.children(pid)))


def _ends_of(proc: Proc, pid: int, pipes: dict[str, int | None]) -> Iterator[str]:
    """The pipes of which a process has the end that `pipes` are not: who reads waits for who can write."""
    for number in proc.descriptors(pid):
        name = proc.link(f"{pid}/fd/{number}") or ""
        if name in pipes and _access(proc, pid, number) != pipes[name]:
            yield name


def _access(proc: Proc, pid: int, number: int) -> int | None:
    """Whether a descriptor is for reading or writing (open(2)); None: it cannot be told."""
    lines = (proc.read(f"{pid}/fdinfo/{number}") or "").splitlines()
    flags = next((line.split()[1] for line in lines if line.startswith("flags:")), None)
    return None if flags is None else int(flags, 8) & _ACCESS
