"""What comes of a map when the kernel is busy."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from forktrace.errors import ForktraceError
from forktrace.kernel import bpf_maps
from forktrace.kernel.bpf_maps import Map
from forktrace.kernel.objects import MapSpec

FOUND, ROOM = 2, 4
MADE = MapSpec("entries", 1, 4, 4, ROOM, 0)


class Kernel:
    """Says these errors first, one a call, and then what bpf(2) says when a batch has come to the end of a map."""

    def __init__(self, *errors: int) -> None:
        self.errors = list(errors)
        self.calls = 0

    def call(self, command: int, attributes: bytearray) -> int:
        """As `bpf.call`."""
        self.calls += 1
        is_batch = len(attributes) > 32
        if is_batch:
            assert struct.unpack_from("<I", attributes, 32) == (ROOM,), "it begins with all its room"
            struct.pack_into("<I", attributes, 32, 1 if self.errors else FOUND)
        if self.errors:
            raise OSError(number := self.errors.pop(0), os.strerror(number))
        raise OSError(errno.ENOENT, "that was all")


def test_a_busy_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that is busy is asked again, from the beginning; writing to it too."""
    for act in (lambda one: one.items(), lambda one: one.set(1, 2), lambda one: one.delete(1)):
        kernel = Kernel(errno.EBUSY, errno.EBUSY, errno.EBUSY)
        monkeypatch.setattr(bpf_maps, "call", kernel.call)
        found = act(Map(0, "<u4", "<u4", MADE))
        assert kernel.calls == 4
        assert found is None or [len(each) for each in found] == [FOUND, FOUND]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY])
def test_a_refusal(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another error, or a map that stays busy, is said in a line."""
    monkeypatch.setattr(bpf_maps, "_BUSY_S", -1.0)
    monkeypatch.setattr(bpf_maps, "call", Kernel(number).call)
    with pytest.raises(ForktraceError, match="a BPF map cannot be read"):
        Map(0, "<u4", "<u4", MADE).items()


@pytest.mark.parametrize(("key", "value"), [("<u8", "<u4"), ("<u4", "<u8")])
def test_a_map_of_other_sizes(key: str, value: str) -> None:
    """A map that was made for other structs than these is not read: its entries would be taken for something else."""
    with pytest.raises(ForktraceError, match="of other sources: map entries"):
        Map(0, key, value, MADE)


@pytest.mark.parametrize("allowed", [True, False])
def test_nobody_preempts_it(allowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """bpf(2) is called with a priority of real time where that is allowed; the usual one is back after it, also if it fails."""
    policies, seen = [os.SCHED_OTHER], []

    def set_policy(_: int, policy: int, __: os.sched_param) -> None:
        if not allowed:
            raise PermissionError
        policies.append(policy)

    def call(_: int, __: bytearray) -> int:
        seen.append(policies[-1])
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "sched_getscheduler", lambda _: policies[-1])
    monkeypatch.setattr(os, "sched_setscheduler", set_policy)
    monkeypatch.setattr(bpf_maps, "call", call)
    with pytest.raises(ForktraceError):
        Map(0, "<u4", "<u4", MADE).set(1, 2)
    assert seen == [os.SCHED_FIFO if allowed else os.SCHED_OTHER]
    assert policies[-1] == os.SCHED_OTHER
