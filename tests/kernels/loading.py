"""Prints, as JSON, what this kernel makes of the probes: instructions verified of each program, and seconds to load all."""

from __future__ import annotations

import json
import statistics
import time

from forktrace.kernel.btf import Btf
from forktrace.kernel.facts import facts_of
from forktrace.kernel.loading import find_object, load, programs_of, verify
from forktrace.system.machine import this_machine

RING_BYTES = 1 << 20
LOADS = 3


def loads_s() -> float:
    """How long it takes to load and attach, in a process that has loaded before."""
    began = time.monotonic()
    load(RING_BYTES)
    return time.monotonic() - began


if __name__ == "__main__":
    facts = facts_of(Btf(), this_machine())
    probes = find_object(facts.names)
    verified = {name: verify(probes, facts, name) for name in programs_of(facts)}
    seconds = statistics.median(loads_s() for _ in range(LOADS))
    print(json.dumps({"verified": verified, "seconds": seconds, "lacks": facts.lacks}))
