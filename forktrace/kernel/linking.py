"""Links a program: a compiled function, followed by the functions that it calls, with all marks replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forktrace.errors import MachineLacks
from forktrace.kernel.facts import Facts
from forktrace.kernel.objects import FROM_FUNCTION, ProbesObject, instructions


@dataclass(frozen=True)
class Program:
    """Instructions that can be loaded.

    Attributes:
        code: them
        functions: name -> at which instruction it begins; the program's own first, at 0
    """

    code: bytes
    functions: Mapping[str, int]


def link(probes: ProbesObject, name: str, facts: Mapping[str, int], maps: Mapping[str, int]) -> Program:
    """Return the program `name`, with the values of `facts` and the descriptors of `maps` in it.

    Raises:
        MachineLacks: it needs a fact that this kernel does not have.
    """
    begins = _begins(probes, name)
    shared = probes.shared
    parts = []
    for function, begin in begins.items():
        code = instructions(probes.functions[function])
        for at, what, number in probes.places(function):
            if what == "fact":
                fact = probes.facts[number]
                if fact not in facts:
                    raise MachineLacks(f"{name} needs {fact}, which this kernel has not", "forktrace doctor")
                code["value"][at], code["value"][at + 1] = _halves(facts[fact])
            elif what == "map":
                code["value"][at] = maps[probes.maps[number].name]
            else:
                code["registers"][at] |= FROM_FUNCTION << 4
                code["value"][at] = begins[shared[number]] - (begin + at) - 1
        parts.append(code)
    return Program(np.concatenate(parts).tobytes(), begins)


def missing_facts(probes: ProbesObject, name: str, facts: Facts) -> dict[str, str]:
    """Return the facts that the program `name` needs and this kernel does not have, each with the reason."""
    needed = {probes.facts[number] for one in _begins(probes, name) for _, what, number in probes.places(one) if what == "fact"}
    return {fact: facts.missing[fact] for fact in sorted(needed & set(facts.missing))}


def _begins(probes: ProbesObject, name: str) -> dict[str, int]:
    """Return where each function of the program `name` begins, in the order of the first calls."""
    shared, begins, end, waiting = probes.shared, dict[str, int](), 0, [name]
    for function in waiting:  # which grows in the loop
        if function in begins:
            continue
        begins[function] = end
        end += len(instructions(probes.functions[function]))
        waiting += [shared[number] for _, what, number in probes.places(function) if what == "function"]
    return begins


def _halves(value: int) -> tuple[np.int32, np.int32]:
    """Return the lower and the upper 32 bits of a number, as instructions hold them."""
    lower, upper = np.frombuffer((value & (1 << 64) - 1).to_bytes(8, "little"), "<i4")
    return lower, upper
