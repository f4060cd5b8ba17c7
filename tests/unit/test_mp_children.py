"""The set of children that multiprocessing holds, read from the memory of running programs of each version."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from recorded import WORKLOADS, interpreters

from forktrace.cpython.layouts import TABLED
from forktrace.cpython.mp_children import multiprocessing_children
from forktrace.cpython.remote_stack import Python, find_python
from forktrace.system.memory import Memory, Unreadable

PYTHONS = interpreters()
KNOWN = [name for name in PYTHONS if not name.startswith("2.")]


@pytest.mark.parametrize("name", KNOWN)
def test_the_children_that_are_held(name: str) -> None:
    """They are the very ones that the program itself holds: of plain classes and others, and none that was joined."""
    command = [PYTHONS[name], "-B", str(WORKLOADS / "held.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = {int(word) for word in process.stdout.readline().split()}
        memory = Memory(process.pid)
        try:
            assert len(said) == 15
            assert multiprocessing_children(memory, find_python(process.pid, memory)) == said
        finally:
            memory.close()
            for pid in [process.pid, *said]:
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("name", PYTHONS)
def test_a_program_without_multiprocessing(name: str) -> None:
    """It holds none; of Python 2 nothing is known."""
    command = [PYTHONS[name], "-S", "-c", "import sys, time; sys.stdout.write('.'); sys.stdout.flush(); time.sleep(1000)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.read(1)
        memory = Memory(process.pid)
        held = multiprocessing_children(memory, find_python(process.pid, memory))
        memory.close()
        process.kill()
    assert held == (None if name.startswith("2.") else frozenset())


class Few(Memory):
    """Memory that holds the same few words everywhere."""

    def __init__(self, word: int) -> None:
        self._word = word
        self._left = 10_000

    def read(self, address: int, size: int) -> bytes:
        """That word."""
        self._left -= 1
        if self._left < 0:
            raise Unreadable("enough")
        return self._word.to_bytes(8, "little") * (size // 8) + bytes(size % 8)


@pytest.mark.parametrize("version", [one for one in TABLED if one >= (3, 6)])
def test_memory_that_misleads(version: tuple[int, int]) -> None:
    """Whatever is there, it is no child of anybody, and nothing is raised."""
    python = Python("python", "", TABLED[version] | {"version": version[0] << 8 | version[1]}, 4096, ())
    for word in (0, 1, 8, 40, 255, 1 << 20, 1 << 40, (1 << 64) - 1):
        begin = time.monotonic()
        assert not multiprocessing_children(Few(word), python)
        assert time.monotonic() - begin < 60, "bounded"


def test_this_very_program() -> None:
    """A program may ask about itself."""
    memory = Memory(os.getpid())
    assert multiprocessing_children(memory, find_python(os.getpid(), memory)) is not None, sys.version
    memory.close()
