"""Stacks of running processes, read from outside: every interpreter that this machine has, against what the program says."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from recorded import DEBIAN, WORKLOADS, interpreters, wait_until

from forktrace.cpython import remote_stack
from forktrace.cpython.layouts import TABLED, Unsupported
from forktrace.cpython.remote_stack import MOST_FRAMES, NoPython, Python, Reader, ThreadStack, _Seen, find_python
from forktrace.system.memory import Memory, Unreadable
from forktrace.system.procfs import Proc
from forktrace.trace.stacks import Frame

PYTHONS = interpreters()
STANDING = str(WORKLOADS / "standing.py")
THREADS = 7


@contextlib.contextmanager
def running(*command: str) -> Iterator[tuple[int, Iterator[str]]]:
    """A program, killed at the end: its number, and the lines that it prints."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.pid, process.stdout
        finally:
            process.kill()


def threads_of(pid: int) -> list[int]:
    """The numbers of its threads, the main one first."""
    return sorted(Proc().threads(pid))


def until_asleep(pid: int) -> None:
    """Return when all its threads sleep."""
    wait_until(lambda: all(Proc().status(pid, tid)["State"][0] == "S" for tid in threads_of(pid)), f"{pid} falls asleep")


def stacks_of(pid: int, tids: list[int] | None = None) -> list[ThreadStack]:
    """Read the stacks of a process's threads once."""
    memory = Memory(pid)
    try:
        return Reader(memory, find_python(pid, memory)).stacks(threads_of(pid) if tids is None else tids)
    finally:
        memory.close()


@pytest.mark.parametrize("name", PYTHONS)
def test_threads_that_stand_still(name: str) -> None:
    """Each thread is where it says it is: in generators, callbacks, classes, deep recursion, far down in odd files."""
    with running(PYTHONS[name], STANDING) as (pid, lines):
        said = {line["tid"]: line["frames"] for line in (json.loads(next(lines)) for _ in range(THREADS))}
        until_asleep(pid)
        found = {stack.tid: stack for stack in stacks_of(pid)}
        assert set(found) == set(said)
        for tid, frames in said.items():
            seen = [list(frame) for frame in found[tid].frames]
            assert seen[-1][2] == "hold"
            assert seen[:-1] == frames[-MOST_FRAMES + 1 :]
            assert found[tid].status == ("truncated" if len(frames) > MOST_FRAMES else "ok")
        assert {stack.status for stack in found.values()} == {"ok", "truncated"}


@pytest.mark.parametrize("name", PYTHONS)
def test_a_thread_that_never_holds_still(name: str) -> None:
    """Nothing is told that was not so: whatever the moment, the frames are those of the program, outermost first."""
    whole = ["<module>", "main", "spin", "leaf"]
    with running(PYTHONS[name], STANDING, "busy") as (pid, lines):
        next(lines)
        for _ in range(10):
            (stack,) = stacks_of(pid)
            names = [frame.name for frame in stack.frames]
            assert stack.status in ("ok", "changing")
            assert names
            assert names == whole[: len(names)]


def test_a_child_of_a_thread() -> None:
    """After a fork the thread that forked is the main one, by another number."""
    code = "import os, threading, time\ndef child():\n    if os.fork() == 0:\n        print(os.getpid(), flush=True)\n"
    code += "        time.sleep(1000)\n    os.wait()\nthreading.Thread(target=child).start()"
    with running(sys.executable, "-W", "ignore", "-c", code) as (pid, lines):  # 3.12 and later warn of such a fork
        child = int(next(lines))
        until_asleep(child)
        try:
            (stack,) = stacks_of(child)
            assert (stack.tid, stack.status, stack.frames[-1][1:]) == (child, "ok", (5, "child"))
            names = {stack.tid: [frame.name for frame in stack.frames] for stack in stacks_of(pid)}
            assert names[pid][-1] != "child"
            assert [name[-1] for tid, name in names.items() if tid != pid] == ["child"]
        finally:
            os.kill(child, 9)


def test_a_thread_without_python(workload: Any) -> None:
    """A thread that Python does not know has no stack, and says so; a program that is not Python is none."""
    with running(sys.executable, STANDING) as (pid, lines):
        next(lines)
        (stack,) = stacks_of(pid, [os.getpid()])[:1]  # a thread of another process, so none of its own
        assert (stack.frames, stack.status) == ((), "no-thread-state")
    with running("sleep", "1000") as (pid, _):
        wait_until(lambda: Proc().link(f"{pid}/exe") != os.path.realpath(sys.executable), "sleep begins")
        with pytest.raises(NoPython) as caught:
            find_python(pid, Memory(pid))
        assert caught.value.status == "not-python"


def test_threads_that_cannot_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not say which thread is which, the stacks are told without one; a single one needs no proof."""
    monkeypatch.setattr(remote_stack, "_robust_list", lambda tid: 0)
    with running(sys.executable, STANDING) as (pid, lines):
        for _ in range(THREADS):
            next(lines)
        until_asleep(pid)
        assert [stack.tid for stack in stacks_of(pid)] == [None] * THREADS
    with running(sys.executable, "-c", "import time; print(flush=True); time.sleep(1000)") as (pid, lines):
        next(lines)
        assert [stack.tid for stack in stacks_of(pid)] == [pid]


def test_a_file_that_was_replaced(tmp_path: Path) -> None:
    """Where the file is not the one that is mapped, as after an update, its offsets say nothing of the program."""
    program = tmp_path / "python"
    shutil.copy(DEBIAN, program)
    with running(str(program), "-S", "-c", "import time; print(flush=True); time.sleep(1000)") as (pid, lines):
        next(lines)
        memory = Memory(pid)
        assert find_python(pid, memory).version
        mappings = [one for one in remote_stack.mappings_of(pid) if one.file == str(program)]
        with open(DEBIAN, "rb") as file:
            assert remote_stack._load_bias(file.fileno(), memory, mappings) >= 0
        with open("/bin/sh", "rb") as file, pytest.raises(Unsupported):
            remote_stack._load_bias(file.fileno(), memory, mappings)
        memory.close()


def test_a_process_that_has_gone() -> None:
    """The memory belongs to the program that was asked about: after its end nothing is read, and nothing of a successor."""
    with running(sys.executable, STANDING) as (pid, lines):
        next(lines)
        memory = Memory(pid)
        python = find_python(pid, memory)
    assert {stack.status for stack in Reader(memory, python).stacks([pid])} <= {"no-thread-state"}
    with pytest.raises(Unreadable):
        memory.word(python.runtime)


class Scripted(Reader):
    """Has one reading after the other, its frames as `name:line`, innermost first; None: unreadable. The last one stays."""

    def __init__(self, *readings: str | None) -> None:
        self._readings = list(readings)

    def _reading(self, state: int) -> list[Any]:
        text = self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]
        if text is None:
            raise Unreadable("torn")
        words = [word.split(":") for word in text.split()]
        depths = range(len(words), 0, -1)
        return [
            _Seen(depth, hash(name), Frame("f", int(line), name)) for depth, (name, line) in zip(depths, words, strict=True)
        ]


@pytest.mark.parametrize(
    ("readings", "lines", "status"),
    [
        (["leaf:1 spin:5 main:9", "leaf:1 spin:5 main:9"], "main:9 spin:5 leaf:1", "ok"),
        (["spin:5 main:9", "spin:6 main:9"], "main:9 spin:6", "ok"),
        (["leaf:1 spin:5 main:9", "leaf:1 spin:6 main:9", "leaf:1 spin:6 main:9"], "main:9 spin:6 leaf:1", "ok"),
        ([None, "spin:5 main:9", None, "spin:5 main:9", "spin:5 main:9"], "main:9 spin:5", "ok"),
        (["leaf:1 spin:5 main:9", "other:1 spin:5 main:9"] * 6, "main:9 spin:5", "changing"),
        (["leaf:1 spin:5 main:9", "leaf:1 spin:6 main:9"] * 6, "main:9 spin:6", "changing"),
        (["leaf:1 main:8", "leaf:1 other:9"] * 6, "", "read-fault"),
        ([None], "", "read-fault"),
        ([""], "", "no-thread-state"),
    ],
)
def test_readings_that_differ(readings: list[str | None], lines: str, status: str) -> None:
    """What two readings in a row saw is told whole, else the outermost frames that they share, else nothing."""
    stack = Scripted(*readings)._stack(1, 8)
    assert (" ".join(f"{frame.name}:{frame.line}" for frame in stack.frames), stack.status) == (lines, status)


class Nonsense(Memory):
    """Memory in which every address can be read, and nothing is what it should be: words that point anywhere or back."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kind = seed % 4
        self._known = [self._random.randrange(1 << 48) for _ in range(30)]
        self._left = 400

    def read(self, address: int, size: int) -> bytes:
        """Nonsense."""
        self._left -= 1
        if self._left < 0 or self._random.random() < 0.01:
            raise Unreadable("enough")
        draw = self._random
        words = {
            0: lambda: draw.randrange(1 << 64),
            1: lambda: draw.choice(self._known),
            2: lambda: draw.choice([0, *self._known]),
            3: lambda: draw.choice([0, 1, 5, 40, *self._known[:3]]),
        }
        few = b"".join(words[self._kind]().to_bytes(8, "little") for _ in range(25))
        return (few * (size // len(few) + 1))[:size]


class Held(Memory):
    """Memory that holds these bytes from address 4096 on."""

    def __init__(self, held: bytes) -> None:
        self._held = held

    def read(self, address: int, size: int) -> bytes:
        """Some of them."""
        return self._held[address - 4096 : address - 4096 + size]


@pytest.mark.parametrize(("head", "text_kind"), [(16, 2), (32, 2), (32, 8)], ids=["usual", "free 3.13", "free 3.14"])
@pytest.mark.parametrize(("name", "encoding"), [("work", "ascii"), ("работа", "utf-16-le")])
def test_texts(head: int, text_kind: int, name: str, encoding: str) -> None:
    """A str of each build, ASCII and not: its kind stands behind how it is interned, which takes two bits or a byte."""
    is_ascii = encoding == "ascii"
    state = 3 | ((1 if is_ascii else 2) | 1 << 3 | is_ascii << 4) << text_kind  # interned; the kind, compact, ASCII
    data = bytes(head) + struct.pack("<QqQ", len(name), -1, state) + bytes(0 if is_ascii else 16) + name.encode(encoding)
    fields = {"head_bytes": head, "text_kind": text_kind, "text_width_mask": 7, "version": 0x30E}
    fields |= {"text_ascii": head + 24, "text_compact": head + 40}
    assert Reader(Held(data), Python("python", "3.14.10", fields, 0, ())).text(4096) == name


@pytest.mark.parametrize("version", [(2, 7), (3, 6), (3, 10), (3, 11), (3, 12)])
def test_memory_that_misleads(version: tuple[int, int]) -> None:
    """Whatever a hostile process has in its memory, reading it ends, and raises nothing."""
    fields = TABLED[version] | {"version": version[0] << 8 | version[1], "instruction_is_pointer": 0}
    statuses = set()
    for seed in range(40):
        python = Python("python", "", fields, 4096, ())
        reader = Reader(Nonsense(seed), python)
        statuses |= {stack.status for stack in [*reader.stacks([os.getpid()]), reader._stack(1, 8)]}
    assert statuses <= {"no-thread-state", "read-fault", "changing", "ok", "truncated"}
    assert "read-fault" in statuses


def test_reading_comes_to_an_end() -> None:
    """A look takes so long and no longer: after that nothing is readable any more."""
    memory = Memory(os.getpid())
    memory._deadline = time.monotonic()
    with pytest.raises(Unreadable):
        memory.read(id(memory), 8)
