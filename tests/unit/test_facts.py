"""What is learnt of the running kernel, and what it lacks."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from forktrace.errors import MachineLacks
from forktrace.kernel import facts as kernel_facts
from forktrace.kernel.btf import VMLINUX, Btf, Member
from forktrace.kernel.compile import SOURCES, read_sources
from forktrace.kernel.facts import ABILITIES, Ability, alike, facts_of
from forktrace.kernel.layout import probe_directory
from forktrace.system import machine
from forktrace.system.machine import MACHINES, Machine, this_machine

needs_btf = pytest.mark.skipif(not os.environ.get("CI") and not Path(VMLINUX).exists(), reason="this kernel has no BTF to read")


@pytest.fixture(scope="module")
def kernel() -> Btf:
    """The running kernel's types."""
    return Btf()


@needs_btf
def test_members(kernel: Btf) -> None:
    """Plain members, members of anonymous structs, flags; their sizes; nothing for a struct that is not there."""
    members = kernel.members("list_head")
    assert {name: one[:4] for name, one in members.items()} == {"next": (0, 0, 0, 8), "prev": (8, 0, 0, 8)}
    assert kernel.members_at(kernel.members("task_struct")["children"].type) == members
    assert kernel.members("upid")["ns"].offset == 8
    assert kernel.members("task_struct")["comm"].bytes == 16
    assert kernel.members("no_such_struct") == {}
    assert kernel.size("list_head") == 16
    assert kernel.size("no_such_struct") == 0


@needs_btf
def test_tracepoints_functions_and_enumerators(kernel: Btf) -> None:
    """Argument lists without the leading void *, numbers by their size; None or 0 for what is not there."""
    assert kernel.tracepoint("task_newtask") == ("struct task_struct *", "u64")
    assert kernel.tracepoint("no_such_tracepoint") is None
    assert kernel.function("bpf_iter_task") > 0
    assert kernel.function("no_such_function") == 0
    assert kernel.has_variable("runqueues")
    assert not kernel.has_variable("no_such_variable")
    assert kernel.enumerator("pid_type", "PIDTYPE_TGID") == 1
    assert kernel.enumerator("pid_type", "NO_SUCH") is None


def test_no_btf(tmp_path: Path) -> None:
    """A kernel without BTF, or with something else in its place, is refused in one line."""
    with pytest.raises(MachineLacks, match="no type information"):
        Btf(str(tmp_path / "absent"))
    (tmp_path / "other").write_bytes(b"\x7fELF" + bytes(40))
    with pytest.raises(MachineLacks, match="not little-endian BTF"):
        Btf(str(tmp_path / "other"))


def test_an_unknown_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, which names those that are known."""
    monkeypatch.setattr(machine.platform, "machine", lambda: "riscv64")
    with pytest.raises(MachineLacks, match="does not know riscv64") as error:
        this_machine()
    assert error.value.hint == "it runs on x86_64 and aarch64"


@pytest.mark.parametrize(
    ("found", "wanted", "so"),
    [
        (("struct a *", "u64"), ("struct a *", "u64"), True),
        (("struct a *", "u64", "bool"), ("struct a *",), True),
        (("struct a *", "s64"), ("struct a *", "u64"), True),
        (("struct a *", "u32"), ("struct a *", "u64"), False),
        (("struct b *",), ("struct a *",), False),
        (("struct a *",), ("struct a *", "u64"), False),
        (None, (), False),
    ],
)
def test_what_a_tracepoint_hands_over(found: tuple[str, ...] | None, wanted: tuple[str, ...], so: bool) -> None:
    """Pointers by what they point to, numbers by their size; more is no harm, less is."""
    assert alike(found, wanted) == so


class Types:
    """Types of a kernel that is not there."""

    def __init__(self, structs: Mapping[str, Mapping[str, Member]]) -> None:
        self._structs = structs

    def members(self, name: str) -> Mapping[str, Member]:
        """Those of a struct."""
        return self._structs.get(name, {})

    def members_at(self, number: int) -> Mapping[str, Member]:
        """Those of the struct with this number."""
        return self._structs.get(f"type {number}", {})

    def size(self, name: str) -> int:
        """Eight bytes for all."""
        return 8 if name in self._structs else 0

    def tracepoint(self, name: str) -> tuple[str, ...] | None:
        """None is there."""
        return None

    def has_variable(self, name: str) -> bool:
        """None is there."""
        return False

    def function(self, name: str) -> int:
        """None is there."""
        return 0

    def enumerator(self, enum: str, name: str) -> int | None:
        """None is there."""
        return None


def facts_with(members: Mapping[str, Member], monkeypatch: pytest.MonkeyPatch, wanted: str) -> kernel_facts.Facts:
    """The facts of a kernel whose task_struct has these members, of which `wanted` are asked for."""
    monkeypatch.setattr(kernel_facts, "MEMBERS", {"task_struct task": wanted})
    return facts_of(Types({"task_struct": members}), MACHINES["x86_64"])  # type: ignore[arg-type]


def test_a_member_is_taken_only_as_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is gone, that has another size, or that has become a bit-field has no value, and the reason says why."""
    members = {"pid": Member(40, 0, 0, 4), "flags": Member(48, 0, 0, 8), "exit_code": Member(56, 3, 1, 4)}
    found = facts_with(members, monkeypatch, "pid:4 flags:4 exit_code:4 comm:16")
    assert found.values["task_pid"] == 40
    assert {name: found.missing.get(name) for name in ("task_flags", "task_exit_code", "task_comm", "task_pid")} == {
        "task_flags": "struct task_struct member flags has 8 bytes, not 4",
        "task_exit_code": "struct task_struct member exit_code has 1 bits, not 4",
        "task_comm": "struct task_struct has no comm",
        "task_pid": None,
    }


@pytest.mark.parametrize("flag", [Member(128, 1, 1, 4), Member(129, 0, 0, 1)])
def test_a_flag_is_a_bit_or_a_bool(flag: Member) -> None:
    """Before Linux 7.0 or thereabouts has_child_subreaper is a bit of a word, from then on a byte."""
    types = Types({"signal_struct": dict.fromkeys(kernel_facts.BIT_FIELDS, flag)})
    found = facts_of(types, MACHINES["x86_64"])  # type: ignore[arg-type]
    assert found.values["signal_has_child_subreaper"] == flag.offset
    assert found.values["signal_has_child_subreaper_bit"] == flag.bit


@pytest.mark.parametrize("processor", MACHINES.values(), ids=list(MACHINES))
def test_the_facts_are_the_same_everywhere(processor: Machine) -> None:
    """Their names, by which the object numbers them, depend neither on the kernel nor on the processor; and all are in use."""
    names = facts_of(Types({}), processor).names  # type: ignore[arg-type]
    assert names == facts_of(Types({}), MACHINES["x86_64"]).names  # type: ignore[arg-type]
    words = set(re.findall(r"\w+", read_sources(probe_directory())))
    assert not set(names) - words - {"HAS_MARK_VICTIM", "HAS_IO_URING_WAITID"}, "of which the loader makes use"


def test_an_ability_that_is_missing_is_no_failure() -> None:
    """What a kernel lacks and a recording can do without is 0, and is said."""
    found = facts_of(Types({}), MACHINES["x86_64"])  # type: ignore[arg-type]
    for ability in ABILITIES:
        assert found.values[f"HAS_{ability.name}"] == 0
        assert ability.lack in found.lacks
        assert not set(found.missing) & set(own_facts(ability))


def own_facts(ability: Ability) -> list[str]:
    """The facts that nothing but this ability needs."""
    needed = [
        f"{name.split()[1]}_{word.partition(':')[0]}" for name, words in ability.members.items() for word in words.split()
    ]
    return [name for name in needed if name.split("_")[0] not in ("task", "signal")]


@needs_btf
def test_this_kernel_has_all_that_is_needed(kernel: Btf) -> None:
    """Nothing that a program needs is missing here."""
    found = facts_of(kernel, this_machine())
    assert not found.missing
    assert not found.tracepoints


def test_every_source_is_compiled() -> None:
    """No file of the probes is left out."""
    assert set(SOURCES) == {path.name for path in probe_directory().glob("*.[ch]")}
