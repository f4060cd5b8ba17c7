"""What the probes are told of the files that were met."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from forktrace.live import recorder
from forktrace.live.bpf import INTERPRETERS
from forktrace.live.pythons import Registry


class Told:
    """Stands for the probes, whose map is full at some time."""

    def __init__(self) -> None:
        self.files: dict[int, Any] = {}

    def describe(self, file: int, fields: Any) -> None:
        """Set one entry."""
        self.files[file] = fields
        assert len(self.files) <= INTERPRETERS

    def forget_files(self, files: list[int]) -> None:
        """Remove some, told or not."""
        for file in files:
            self.files.pop(file, None)


def test_any_number_of_files_is_told() -> None:
    """Those that are no interpreters make room for others, and are asked about again when they are met again."""
    registry, probes = Registry(), Told()
    one: Any = SimpleNamespace(_registry=registry, _probes=probes, _told=0)
    registry.known[1] = {"version": 0x30B}
    for first in range(2, 20_000, 1500):
        registry.known |= {file: {} for file in range(first, first + 1500)}
        recorder.Recorder._tell(one)
        assert probes.files == registry.known
        assert probes.files[1] == {"version": 0x30B}
    assert not registry.not_python(2)
    registry.known[20_000] = {}
    assert registry.not_python(20_000)
