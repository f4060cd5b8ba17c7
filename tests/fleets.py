"""Makes datasets of a few hosts from traces that are built by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import fs
from traces import BOOT_NS, recording, target, work

from forktrace.analysis.recording import Recording
from forktrace.fleet import dataset
from forktrace.trace import events as ev

DAY_NS = 86_400 * 10**9
FIRST_DAY = date(2023, 11, 14)  # of BOOT_NS


class Leak(NamedTuple):
    """Zombies that a line leaves: how many, each for so many ms; `still`: nobody reaps them."""

    line: int
    zombies: int
    ms: float
    still: bool = False


def host_recording(host: str, day: int = 0, leaks: Sequence[Leak] = (), **header: Any) -> Recording:
    """Return the recording of a host that begins `day` days after FIRST_DAY."""
    rows, pid = [target()], 500
    for leak in leaks:
        for _ in range(leak.zombies):
            rows += work(pid, pid, pid + 1, None if leak.still else pid + 1 + leak.ms, line=leak.line)
            pid += 1
    rows.append(ev.end(int(20_000 * 1e6)))
    named = {"host": host, "boot_id": f"boot-of-{host}", "clock_offset_ns": BOOT_NS + day * DAY_NS}
    return recording(*rows, closed=False, **named | header)


def write_fleet(folder: Path, hosts: Mapping[str, Mapping[int, Sequence[Leak]]]) -> Path:
    """Write what each host leaves on each day, and return the folder."""
    for host, days in hosts.items():
        for day, leaks in days.items():
            dataset.write(host_recording(host, day, leaks), folder)
    return folder


class Counting(fs.FileSystemHandler):
    """A file system that counts the bytes which are read of each file, and the folders that are listed."""

    def __init__(self) -> None:
        self.inner = fs.LocalFileSystem()
        self.read: dict[str, int] = {}
        self.listed: list[str] = []

    def get_type_name(self) -> str:
        """Name it."""
        return "counting"

    def get_file_info(self, paths: list[str]) -> Any:
        """Look at files."""
        return self.inner.get_file_info(paths)

    def get_file_info_selector(self, selector: fs.FileSelector) -> Any:
        """List a folder."""
        self.listed.append(selector.base_dir)
        return self.inner.get_file_info(selector)

    def open_input_file(self, path: str) -> Any:
        """Open a file, whose reads are counted."""
        counts = self.read
        inner = open(path, "rb")  # noqa: SIM115 - pyarrow closes it

        class File:
            closed = False

            def read(self, size: int = -1) -> bytes:
                """Read, and count."""
                data = inner.read(size)
                counts[path] = counts.get(path, 0) + len(data)
                return data

            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

        return pa.PythonFile(File(), mode="r")

    open_input_stream = open_input_file

    def normalize_path(self, path: str) -> str:
        """Leave a path as it is."""
        return path

    def _no(self, *told: object) -> Any:
        raise NotImplementedError

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = delete_file = move = copy_file = _no
    open_output_stream = open_append_stream = _no
