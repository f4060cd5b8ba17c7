"""From the bytes of the ring buffer to the columns of a trace."""

from __future__ import annotations

import os
import re
import struct
from typing import Any

import numpy as np
import pytest

from forktrace.cpython.line_tables import Code
from forktrace.cpython.remote_stack import MOST_FRAMES, OWNED_BY_C
from forktrace.kernel.bpf_maps import BUSY, DISCARDED, Ring, record_words
from forktrace.kernel.layout import layouts, probe_directory, structs
from forktrace.kernel.probes import EVENTS, OTHER_LOSSES, RING_KINDS
from forktrace.recorder.rows import KIND_AT, MOMENTS, NONE, columns_of, cpu_times, layout, split
from forktrace.recorder.stack_table import StackTable
from forktrace.system.procfs import ARGV_BYTES
from forktrace.trace import events
from forktrace.trace.stream import batch

NS = 4026531836
NOT_PYTHON = {77}  # a file


def record(kind: str, pid: int, time_ns: int, size: int | None = None, **fields: Any) -> bytes:
    """One record as it lies in the ring."""
    one = np.zeros(1, layout()[kind])
    one["head"]["time_ns"], one["head"]["kind"] = time_ns, RING_KINDS.index(kind)
    one["head"]["process"] = (7000 + pid, pid, 0)
    one["head"]["stack_status"] = 255
    for name, value in fields.items():
        one[name] = value
    data = one.tobytes()[:size]
    return struct.pack("<II", len(data), 0) + data + bytes(-len(data) % 8)


def rows_of(*parts: bytes) -> list[dict[str, Any]]:
    """The rows of a trace that these records become, without their nulls."""
    found, _ = split(b"".join(parts))
    stacks = StackTable(print, NOT_PYTHON.__contains__)
    columns, rows = columns_of(
        found, lambda identity, pid: f"/group{identity}", lambda pid, start_ns: f"argv of {pid}", NS, stacks
    )
    table = batch(columns, rows).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in table]


def enums() -> dict[str, list[str]]:
    """The names in every enum of events.h."""
    found = re.findall(r"enum (\w+) \{(.*?)\}", (probe_directory() / "events.h").read_text(), flags=re.DOTALL)
    return {name: [word.split("=")[0].strip() for word in body.split(",")] for name, body in found}


def test_enums_are_those_of_the_trace() -> None:
    """The numbers that the kernel side writes are places in the tuples of events.py."""
    found = enums()
    spelled = {name: [word.lower().replace("_", "-") for word in words] for name, words in found.items()}
    assert spelled["kind"][:-1] == [kind.replace(" ", "-") for kind in RING_KINDS]
    assert set(EVENTS) <= set(events.KINDS)
    assert RING_KINDS[: len(EVENTS)] == EVENTS
    assert [word.removeprefix("stack-") for word in spelled["stack_status"]] == list(events.STACK_STATUSES)
    assert [word.removesuffix("-code") for word in spelled["exit_from"]] == list(events.EXITS)
    assert spelled["origin"] == list(events.ORIGINS)
    assert [word.removeprefix("call-").replace("io-", "io_") for word in spelled["call"]] == list(events.CALLS)
    assert spelled["target"] == list(events.TARGETS)
    assert spelled["disposition"] == list(events.DISPOSITIONS)
    assert [word.removeprefix("by-") for word in spelled["sent_by"]] == list(events.SENDERS)
    assert [word.split(" ")[0] for word in found["loss"]] == [*OTHER_LOSSES, "LOSSES"]
    assert found["moment"] == list(MOMENTS)


def test_numbers_of_the_probes_that_stand_here_too() -> None:
    """What Python knows of the probes by number is what their sources say."""
    text = "".join((probe_directory() / name).read_text() for name in ("events.h", "pystack.bpf.h", "signal.bpf.c"))
    said = {name: int(number) for name, number in re.findall(r"#define (\w+) (\d+)\b", text)}
    assert said["NONE"] == NONE
    assert said["STACK_FRAMES"] == MOST_FRAMES
    assert said["FRAMES_A_CALL"] * said["FRAME_CALLS"] >= said["STACK_FRAMES"] + said["FAULTS"]
    assert said["ARGV_BYTES"] - 1 == ARGV_BYTES
    assert said["OWNED_BY_C"] == OWNED_BY_C


def test_the_kind_of_a_record_is_where_it_is_read() -> None:
    """`split` and the ring read it before they know which struct it is."""
    for name in (*set(layout().values()), layouts()["stack_record"], layouts()["code_record"]):
        kind = name["head"].fields["kind"] if "head" in name.names else name.fields["kind"]
        assert kind[1] == KIND_AT, name


def test_layout_is_that_of_c(tmp_path: Any) -> None:
    """Every struct has the size that the compiler gives it."""
    source = (
        "#include <stdio.h>\ntypedef unsigned char u8; typedef unsigned u32; typedef int s32; typedef unsigned long long u64;\n"
    )
    source += f'#include "{probe_directory() / "events.h"}"\nint main(void) {{\n'
    names = list(structs((probe_directory() / "events.h").read_text()))
    source += "".join(f'printf("{name} %zu\\n", sizeof(struct {name}));\n' for name in names) + "return 0; }\n"
    (tmp_path / "sizes.c").write_text(source)
    assert os.system(f"gcc -o {tmp_path}/sizes {tmp_path}/sizes.c") == 0
    printed = dict(line.split() for line in os.popen(f"{tmp_path}/sizes").read().splitlines())
    assert {name: layouts()[name].itemsize for name in names} == {name: int(size) for name, size in printed.items()}


def test_records_of_all_kinds_are_sorted_by_time() -> None:
    """What two processors wrote in the wrong order comes out in time order."""
    rows = rows_of(record("exit", 5, 300, status=256), record("fork", 5, 100, origin=1, call=2), record("zombie", 5, 200))
    assert [(row["kind"], row["time_ns"], row["pid"], row["start_ns"]) for row in rows] == [
        ("fork", 100, 5, 7005),
        ("zombie", 200, 5, 7005),
        ("exit", 300, 5, 7005),
    ]
    assert rows[2]["status"] == 256


def test_an_exec_has_its_own_length() -> None:
    """The record ends where argv does; what follows in the ring is not part of it."""
    size = layout()["exec"].fields["argv"][1] + 8
    cut = record("exec", 6, 20, argv_bytes=99999, argv=b"x" * 4095, file=b"/bin/y\0old", comm=b"y")
    first, second = rows_of(
        record("exec", 5, 10, size, argv_bytes=8, argv=b"ls\0-l\0\xff\0", file=b"/bin/ls", comm=b"ls", cgroup_id=3), cut
    )
    assert (first["argv"], first["file"], first["comm"], first["cgroup"]) == ("ls\0-l\0\\xff", "/bin/ls", "ls", "/group3")
    assert "detail" not in first
    assert (len(second["argv"]), second["detail"], second["file"]) == (4095, "argv cut", "/bin/y")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        (b"/tmp/pymp-x/listener-y", "/tmp/pymp-x/listener-y"),
        (b"/tmp/pymp-x/sock-1\0old", "/tmp/pymp-x/sock-1"),
        (b"\0listener-7-0", "@listener-7-0"),
        (b"\0listener-\0\xff", "@listener-@\\xff"),
        (b"/" * 108, "/" * 108),
    ],
)
def test_a_request_says_the_address(address: bytes, shown: str) -> None:
    """As ss(8) shows it; that of an abstract socket may hold anything."""
    (row,) = rows_of(record("request", 5, 10, address=address))
    assert (row["kind"], row["pid"], row["file"]) == ("request", 5, shown)


@pytest.mark.parametrize(
    ("waiters", "stopped", "said"), [(0, 0, {"count": 0}), (3, 1, {"count": 3, "detail": "parent stopped"}), (255, 0, {})]
)
def test_what_the_parent_did_at_a_zombie(waiters: int, stopped: int, said: dict[str, Any]) -> None:
    """How many waited for it, where that is known, and whether it was stopped."""
    (row,) = rows_of(record("zombie", 5, 10, waiters=waiters, stopped=stopped))
    assert {name: row[name] for name in ("count", "detail") if name in row} == said


def test_discarded_records_are_passed_over() -> None:
    """The kernel marks a reservation that was given up."""
    dropped = bytearray(record("oom", 5, 10))
    struct.pack_into("<I", dropped, 0, layout()["oom"].itemsize | DISCARDED)
    assert [row["pid"] for row in rows_of(bytes(dropped), record("oom", 6, 11))] == [6]
    assert record_words(layout()["oom"].itemsize | DISCARDED) * 4 == len(dropped)


@pytest.mark.parametrize(("ns", "pid"), [(NS, 44), (NS + 1, None)])
def test_a_child_that_the_kernel_side_did_not_know(ns: int, pid: int | None) -> None:
    """Its number is that of the waiter's namespace: of use only when that is the recorder's."""
    who = np.zeros(1, layout()["reap"])
    who["head"]["kind"] = RING_KINDS.index("reap")
    who["ns"], who["ns_pid"], who["target"] = ns, 44, 255
    data = who.tobytes()
    (row,) = rows_of(struct.pack("<II", len(data), 0) + data + bytes(-len(data) % 8))
    assert row.get("pid") == pid
    assert "start_ns" not in row
    assert "target" not in row


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"error": 11, "tasks": 10, "tasks_max": 10}, ("RLIMIT_NPROC", 10)),
        ({"error": 11, "tasks": 3, "tasks_max": 10, "cgroup_pids": 5, "cgroup_pids_max": 5}, ("pids.max", 5)),
        ({"error": 11, "tasks": 3, "tasks_max": 10, "ns_pids": 32500, "ns_pids_max": 32768}, ("pid_max", 32768)),
        ({"error": 11, "tasks": 3, "tasks_max": 10, "ns_pids": 100, "ns_pids_max": 32768}, (None, None)),
        ({"error": 22, "tasks": 10, "tasks_max": 10}, (None, None)),
    ],
)
def test_the_limit_of_a_failed_fork(fields: dict[str, int], limit: tuple[str | None, int | None]) -> None:
    """The limit that was met and its value, when it can be told; another error has none."""
    (row,) = rows_of(record("fork-failed", 5, 10, **fields))
    assert (row.get("detail"), row.get("count")) == limit


def test_nothing_but_stacks() -> None:
    """What was read from the ring may hold stacks and questions, and no event yet."""
    assert columns_of({}, lambda identity, pid: None, lambda *_: None, NS, StackTable(print, NOT_PYTHON.__contains__)) == (
        {},
        0,
    )


@pytest.mark.parametrize("version", [0x207, 0x308, 0x30A, 0x30B])
def test_a_frame_before_its_first_instruction(version: int) -> None:
    """A function that is traced when it is called (f_lasti -1) is at its first line."""
    assert Code("/srv/a.py", "f", 10, b"\x02\x01\x02\x03", version).line(0xFFFFFFFF) == 10


def test_cpu_times() -> None:
    """The exact run time is split as the ticks are; without ticks it is all user time."""
    ticks = (np.array([3, 0, 5, 0], np.uint64), np.array([1, 0, 0, 5], np.uint64))
    utime, stime = cpu_times(*ticks, np.array([1000, 700, 600, 500], np.uint64))
    assert utime.tolist() == [750, 700, 600, 0]
    assert stime.tolist() == [250, 0, 0, 500]


def test_the_ring_stops_at_a_record_that_is_being_written() -> None:
    """What is finished is handed out once; the unfinished record comes when it is done."""
    size = 4096
    descriptor = os.memfd_create("ring")
    os.ftruncate(descriptor, 4096 + 4096 + 2 * size)
    first, second = record("oom", 5, 10), record("oom", 6, 11)
    busy = bytearray(second)
    struct.pack_into("<I", busy, 0, struct.unpack_from("<I", second)[0] | BUSY)
    os.pwrite(descriptor, struct.pack("<Q", len(first) + len(second)), 4096)
    os.pwrite(descriptor, first + bytes(busy), 8192)
    ring = Ring(descriptor, size)
    assert ring.read() == first
    assert ring.read() == b""
    os.pwrite(descriptor, second, 8192 + len(first))
    assert ring.read() == second
    ring.close()
    os.close(descriptor)
