"""What the recorder knows of programs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from forktrace.live.pythons import Registry


def key_of(path: Path) -> int:
    """As the probes know a file: inode, size and device."""
    about = path.stat()
    device = os.major(about.st_dev) << 20 | os.minor(about.st_dev)
    return (about.st_ino ^ about.st_size << 16 ^ device << 40) & (1 << 64) - 1


def test_programs_that_have_ended(tmp_path: Path) -> None:
    """A program is examined by its name, once; a name that is not absolute, or of no file, is nobody's."""
    program = tmp_path / "true"
    shutil.copy(shutil.which("true") or "/bin/true", program)
    registry = Registry()
    assert not registry.not_python(key_of(program))
    registry.look_at(["true", str(tmp_path), str(tmp_path / "missing"), str(program)])
    assert registry.not_python(key_of(program))
    registry.known.clear()
    registry.look_at([str(program)])
    assert not registry.known


def test_files_one_after_the_other(tmp_path: Path) -> None:
    """Two files that have had the same numbers are two files, if their sizes differ (temporary file systems reuse both)."""
    program, registry = tmp_path / "true", Registry()
    shutil.copy(shutil.which("true") or "/bin/true", program)
    before = key_of(program)
    with program.open("ab") as file:
        file.write(b"longer")
    registry.look_at([str(program)])
    assert key_of(program) != before
    assert registry.not_python(key_of(program))
    assert not registry.not_python(before)
