"""Rewrites loops so that old verifiers accept them.

The verifier of 5.10 and 6.1 accepts a loop only where a jump closes it (check_cfg() in kernel/bpf/verifier.c). The compiler
also lets an instruction fall through into the head of a loop, which they reject as a `back-edge`.
"""

from __future__ import annotations

import numpy as np

from forktrace.kernel.objects import CALL, LOAD_64, Instructions, instructions

_JUMP, _JUMP_32, _ALWAYS, _EXIT = 0x05, 0x06, 0x05, 0x95  # classes of BPF_JMP and BPF_JMP32, BPF_JA, BPF_JMP | BPF_EXIT
_NOT_SEEN, _OPEN, _DONE = 0, 1, 2


def with_jumps_at_loops(code: bytes) -> bytes:
    """Return the function with a jump wherever an instruction falls through into the head of its own loop."""
    found = instructions(code)
    while (at := _runs_into_loop(found)) is not None:
        found = _with_jump(found, at)
    return found.tobytes()


def _runs_into_loop(code: Instructions) -> int | None:
    """Return the first instruction that a walk in the verifier's order finds to run into one that the walk has come through."""
    state = np.zeros(len(code), np.uint8)
    path = [(0, iter(_next(code, 0)))]
    state[0] = _OPEN
    while path:
        at, following = path[-1]
        for to, is_jump in following:
            if state[to] == _OPEN and not is_jump:
                return at
            if state[to] == _NOT_SEEN:
                state[to] = _OPEN
                path.append((to, iter(_next(code, to))))
                break
        else:
            state[at] = _DONE
            path.pop()
    return None


def _next(code: Instructions, at: int) -> list[tuple[int, bool]]:
    """Return where it goes on after an instruction, in the verifier's order, and whether by a jump."""
    op = int(code["op"][at])
    if op == _EXIT:
        return []
    if not _is_jump(op):
        return [(at + (2 if op == LOAD_64 else 1), False)]
    target = at + 1 + int(code["offset"][at])
    return [(target, True)] if op >> 4 == 0 else [(at + 1, True), (target, True)]


def _is_jump(op: int) -> bool:
    return op & 7 in (_JUMP, _JUMP_32) and op not in (CALL, _EXIT)


def _with_jump(code: Instructions, at: int) -> Instructions:
    """Return the function with a jump to the next instruction behind the one at `at`; the other jumps go where they went."""
    new = np.zeros(len(code) + 1, code.dtype)
    new[: at + 1], new[at + 2 :] = code[: at + 1], code[at + 1 :]
    new[at + 1] = (_ALWAYS, 0, 0, 0)
    for one in range(len(code)):
        if _is_jump(int(code["op"][one])):
            target = one + 1 + int(code["offset"][one])
            new["offset"][one + (one > at)] += int(target > at) - int(one > at)
    return new
