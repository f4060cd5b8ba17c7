"""The compiled probes: they are of these sources, a damaged file is refused, and each mark gets what belongs there."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from test_facts import Types

from forktrace.errors import ForktraceError, MachineLacks
from forktrace.kernel.compile import digest_of
from forktrace.kernel.facts import facts_of
from forktrace.kernel.layout import layouts, probe_directory
from forktrace.kernel.linking import link
from forktrace.kernel.loading import HOOKS, TASKS
from forktrace.kernel.loops import with_jumps_at_loops
from forktrace.kernel.objects import (
    CALL,
    CALL_MARK,
    FACT_MARK,
    FORMAT,
    INSTRUCTION,
    LOAD_64,
    OBJECT,
    MapSpec,
    ProbesObject,
    from_bytes,
    instructions,
    read_object,
)
from forktrace.system.machine import MACHINES

EXIT, ADD, MOVE, JUMP, JUMP_IF = 0x95, 0x07, 0xB7, 0x05, 0x15


def code(*lines: tuple[int, ...]) -> bytes:
    """Instructions: op, registers, offset, value; the last ones may be left out."""
    return np.array([(*line, 0, 0, 0)[:4] for line in lines], INSTRUCTION).tobytes()


MADE = ProbesObject(
    functions={
        "shared_one": code((CALL, 0, 0, CALL_MARK + 1), (EXIT,)),
        "shared_two": code((LOAD_64, 1, 0, 1), (0, 0, 0, FACT_MARK), (CALL, 0, 0, CALL_MARK + 1), (EXIT,)),
        "on_it": code((LOAD_64, 1 << 4 | 1, 0, 1), (0,), (CALL, 0, 0, 3), (CALL, 0, 0, CALL_MARK), (EXIT,)),
        "on_that": code((LOAD_64, 2, 0, 0), (0, 0, 0, FACT_MARK), (EXIT,)),
    },
    maps=(MapSpec("first", 1, 8, 8, 64, 0), MapSpec("second", 2, 4, 8, 64, 0)),
    facts=("a_member", "b_member"),
    digest="d1",
    made_by="bcc 0.99",
)


@pytest.fixture(scope="module")
def shipped() -> ProbesObject:
    """The object that lies beside the sources."""
    found = read_object(probe_directory())
    assert found is not None, "make object"
    return found


def test_the_object_is_of_these_sources(shipped: ProbesObject) -> None:
    """After a change of the probes, or of the facts, comes `make object`."""
    names = facts_of(Types({}), MACHINES["x86_64"]).names  # type: ignore[arg-type]
    assert shipped.facts == names
    assert shipped.digest == digest_of(probe_directory(), names), "the probes have changed: sudo make object"


def test_every_program_has_a_place(shipped: ProbesObject) -> None:
    """What begins with on_ is what the loader attaches, and all of it."""
    assert {name for name in shipped.functions if not name.startswith("shared_")} == {hook.program for hook in HOOKS} | {TASKS}


def test_tables_have_the_sizes_that_python_reads(shipped: ProbesObject) -> None:
    """Each struct that is read out of a map is as long there as it is here."""
    types, maps = layouts(), {spec.name: spec for spec in shipped.maps}
    of_values = {"settings": "settings", "followed": "process", "interpreters": "interpreter", "attaching": "attaching"}
    of_values |= {"mapped": "mapping", "stacks": "stack_record", "codes": "code_record", "execs": "exec_record"}
    assert {name: maps[name].value_bytes for name in of_values} == {
        name: types[struct].itemsize for name, struct in of_values.items()
    }
    assert maps["wait_totals"].key_bytes == types["wait_place"].itemsize


def test_what_is_written_is_read() -> None:
    """An object comes back from a file as it was."""
    assert from_bytes(MADE.to_bytes()) == MADE


def test_no_object(tmp_path: Path) -> None:
    """Where there is none, none is found."""
    assert read_object(tmp_path) is None


@pytest.mark.parametrize("part", range(20))
def test_a_damaged_object_is_refused(tmp_path: Path, part: int) -> None:
    """A file that was cut, or of which a byte is another, is no object, and the error says what to do."""
    whole = MADE.to_bytes()
    at = len(whole) * part // 20
    for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
        (tmp_path / OBJECT).write_bytes(damaged)
        with contextlib.suppress(ForktraceError):
            assert read_object(tmp_path) != MADE  # a letter of its own digest, say
            continue
        with pytest.raises(ForktraceError, match="the compiled probes are damaged") as error:
            read_object(tmp_path)
        assert error.value.hint == "make object"


def test_code_is_what_was_written() -> None:
    """A changed instruction is found, and a list of marks that is not that of the instructions."""
    head, body = MADE.to_bytes().split(b"\n", 2)[1:]
    with pytest.raises(ForktraceError, match="not those that were written"):
        from_bytes(b"\n".join([FORMAT.encode(), head, body[:-1] + b"\x01"]))
    said = json.loads(head)
    said["places"]["on_it"][0][2] = 0
    with pytest.raises(ForktraceError, match="marks of on_it are not those"):
        from_bytes(b"\n".join([FORMAT.encode(), json.dumps(said).encode(), body]))
    said["facts"] = []
    with pytest.raises(ForktraceError, match="has no fact 1"):
        from_bytes(b"\n".join([FORMAT.encode(), json.dumps(said).encode(), body]))


def test_a_program_is_linked() -> None:
    """What it calls is behind it, once, also what that calls; maps and facts are in their places."""
    program = link(MADE, "on_it", {"a_member": 7, "b_member": -1}, {"first": 30, "second": 40})
    assert program.functions == {"on_it": 0, "shared_one": 5, "shared_two": 7}
    linked = instructions(program.code)
    assert linked["value"].tolist() == [40, 0, 3, 1, 0, 1, 0, -1, -1, -3, 0]
    assert (linked["registers"][[3, 5, 9]] >> 4).tolist() == [1, 1, 1]
    assert linked["registers"][2] == 0, "a helper of the kernel"


def test_a_large_fact() -> None:
    """64 bits are two halves."""
    program = link(MADE, "on_that", {"a_member": 0xFFFFFFFF_80000001}, {})
    assert [int(one) & 0xFFFFFFFF for one in instructions(program.code)["value"]] == [0x80000001, 0xFFFFFFFF, 0]


def test_a_fact_that_is_missing() -> None:
    """The error names the fact and the program."""
    with pytest.raises(MachineLacks, match="on_that needs a_member"):
        link(MADE, "on_that", {}, {})


def test_a_loop_is_closed_by_a_jump() -> None:
    """Where an instruction runs into the head of its loop a jump comes between; all other jumps go where they went."""
    closed = code((MOVE, 1), (ADD, 1, 0, 1), (JUMP_IF, 1, -2, 9), (EXIT,))
    assert with_jumps_at_loops(closed) == closed
    # 4 is the head, by a jump from outside and by the instruction before it; 5 goes back to 2.
    run_into = code((MOVE, 1), (JUMP, 0, 2), (ADD, 1, 0, 1), (MOVE, 2), (JUMP_IF, 1, 1, 9), (JUMP, 0, -4), (EXIT,))
    after = instructions(with_jumps_at_loops(run_into))
    assert after["op"].tolist() == [MOVE, JUMP, ADD, MOVE, JUMP, JUMP_IF, JUMP, EXIT]
    assert [one + 1 + int(after["offset"][one]) for one in (1, 4, 5, 6)] == [5, 5, 7, 2]
    assert with_jumps_at_loops(after.tobytes()) == after.tobytes()
