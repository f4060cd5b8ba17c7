"""Runs `forktrace record` again and again with probes that are compiled once: for tests that kill recorders by the hundred.

Reads a JSON list a line, the arguments of forktrace; starts it, prints its number, and `ended` when it has. An empty line then
says that all that it recorded has ended too: what the probes still hold of it is thrown away. Ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable

# All that a recording needs is imported here, not in every child.
from forktrace import cli
from forktrace.kernel import loading, probes
from forktrace.kernel.bpf_maps import Map
from forktrace.kernel.objects import MapSpec
from forktrace.launcher import command, running  # noqa: F401

_ARRAY = 2  # enum bpf_map_type
FREED_S = 5  # that the kernel takes to free the last process, which is an event of its own


def main() -> None:
    """Serve."""
    warm = probes.Probes(loading.Loading())
    losses = Map(warm._descriptors["losses"], "<u4", "<u8", MapSpec("losses", _ARRAY, 4, 8, len(probes.LOSSES), 0))

    def loaded(_: object, meanwhile: Callable[[], None]) -> probes.Probes:
        meanwhile()
        return warm

    loading.Loading = lambda **_: None  # type: ignore[assignment, misc]
    probes.Probes = loaded  # type: ignore[assignment, misc]
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(os.devnull, os.O_RDWR), 0)
            os.dup2(0, 1)
            sys.argv[1:] = json.loads(line)
            cli.main()
        print(pid, flush=True)
        os.waitpid(pid, 0)
        print("ended", flush=True)
        sys.stdin.readline()
        deadline = time.monotonic() + FREED_S
        while len(left := warm._followed.items()[0]) and time.monotonic() < deadline:
            time.sleep(0.01)
        for signal in left:
            warm._followed.delete(signal)
        warm.read()
        warm.questions()
        for place in range(len(probes.LOSSES)):
            losses.set(place, 0)


if __name__ == "__main__":
    main()
