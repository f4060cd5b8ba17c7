"""What is learnt of the running kernel, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from forktrace.errors import MachineLacks
from forktrace.live import bpf
from forktrace.live.btf import VMLINUX, Btf, Member

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and not Path(VMLINUX).exists(), reason="this kernel has no BTF to read"
)


@pytest.fixture(scope="module")
def kernel() -> Btf:
    """The running kernel's types."""
    return Btf()


def test_members(kernel: Btf) -> None:
    """Plain members, members of anonymous structs, bit-fields; nothing for a struct that is not there."""
    assert kernel.members("list_head") == {"next": Member(0, 0, 0), "prev": Member(8, 0, 0)}
    assert kernel.members("upid")["ns"].offset == 8
    assert kernel.members("signal_struct")["is_child_subreaper"].bits == 1
    assert kernel.members("no_such_struct") == {}
    assert kernel.size("list_head") == 16
    assert kernel.size("no_such_struct") == 0


def test_tracepoints_and_enumerators(kernel: Btf) -> None:
    """Argument lists without the leading void *; None for what is not there."""
    assert kernel.tracepoint("task_newtask") == ("struct task_struct *", "u64")
    assert kernel.tracepoint("no_such_tracepoint") is None
    assert kernel.enumerator("pid_type", "PIDTYPE_TGID") == 1
    assert kernel.enumerator("pid_type", "NO_SUCH") is None


def test_no_btf(tmp_path: Path) -> None:
    """A kernel without BTF, or with something else in its place, is refused in one line."""
    with pytest.raises(MachineLacks, match="no type information"):
        Btf(str(tmp_path / "absent"))
    (tmp_path / "other").write_bytes(b"\x7fELF" + bytes(40))
    with pytest.raises(MachineLacks, match="not little-endian BTF"):
        Btf(str(tmp_path / "other"))


def test_a_different_kernel_is_refused(kernel: Btf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracepoint that is missing or hands over something else, a member that is gone, an unknown machine."""
    with pytest.raises(MachineLacks, match="does not know riscv64"):
        bpf.definitions(kernel, "riscv64")
    monkeypatch.setattr(bpf, "TRACEPOINTS", {"task_newtask": ("u64",)})
    with pytest.raises(MachineLacks, match=r"tracepoint task_newtask hands over \(struct task_struct \*, u64\)"):
        bpf.definitions(kernel, "x86_64")
    monkeypatch.setattr(bpf, "TRACEPOINTS", {"no_such": ()})
    with pytest.raises(MachineLacks, match="tracepoint no_such is missing"):
        bpf.definitions(kernel, "x86_64")
    monkeypatch.setattr(bpf, "TRACEPOINTS", {})
    monkeypatch.setattr(bpf, "MEMBERS", {"task_struct": ("no_such",)})
    with pytest.raises(MachineLacks, match="struct task_struct has no no_such"):
        bpf.definitions(kernel, "x86_64")
