"""Which files are interpreters, and the text of source lines: a helper looks, the registry and the sources remember."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forktrace.live.registry import Registry
from forktrace.live.sources import Sources
from forktrace.trace.stacks import Frame

PATIENCE_S = 60


@pytest.fixture
def registry() -> Iterator[Registry]:
    """One that knows nothing yet."""
    made = Registry()
    yield made
    made.helper.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH of one directory, with python in it."""
    (tmp_path / "python3").symlink_to(os.path.realpath(sys.executable))
    return str(tmp_path)


@pytest.mark.parametrize("how", ["PATH", "script"])
def test_the_interpreters_on_the_path_are_expected(how: str, path: str, registry: Registry) -> None:
    """A program, a script's interpreter, and what is found by PATH."""
    (Path(path) / "run").write_text("#!/usr/bin/env python3\n")
    registry.expect_on(path) if how == "PATH" else registry.expect(f"{path}/run", path)
    (version,) = {found.version for found in registry.found.values()}
    assert sys.version.startswith(version)
    assert all(registry.known[file]["file"] == file for file in registry.found)
    assert registry.take() == (registry.known, [])
    assert registry.take() == ({}, [])


def test_no_interpreter_is_remembered(registry: Registry) -> None:
    """So that the probes can say `not-python`."""
    registry.expect("/bin/sh")
    (file,) = registry.known
    assert registry.not_python(file)
    assert not registry.not_python(file + 1)
    registry.expect("/nowhere/at/all")
    assert len(registry.known) == 1


def test_source_lines_are_read_once(tmp_path: Path) -> None:
    """The line without its indentation; not twice, not of the standard library, not beyond the end, not of what is no file."""
    (tmp_path / "a.py").write_text("one\n    two  \n\n")
    os.mkfifo(tmp_path / "pipe")

    def as_user(function: Callable[[str], bytes], name: str) -> bytes:
        with (tmp_path / "asked").open("a") as asked:
            asked.write(f"{name}\n")
        return function(name)

    sources = Sources(as_user, str(tmp_path))
    names = ["a.py", str(tmp_path / "pipe"), str(tmp_path), "<string>", "/lib/x.py", "/lib/site-packages/y.py", "\0"]
    with (tmp_path / "a.py").open() as ours:  # means another file to every process
        names += [f"{place}/{ours.fileno()}" for place in ("/dev/fd", "/proc/self/fd", "//proc/self/fd", "/x/../proc/self/fd")]
        frames = [Frame(name, line, "f") for name in names for line in (0, 2, 3, 9)]
        sources.ask(frames, ["/lib"])
        assert list(sources.take(PATIENCE_S)) == [("a.py", 2, "two")]
        sources.ask(frames, ["/lib"])
        assert list(sources.take(PATIENCE_S)) == []
    sources.helper.close()
    said = (tmp_path / "asked").read_text().splitlines()
    assert sorted(said) == sorted({*said})
    assert "/lib/x.py" not in said
    assert "/lib/site-packages/y.py" in said


def key_of(path: Path) -> int:
    """As the probes know a file: inode, size and device."""
    about = path.stat()
    device = os.major(about.st_dev) << 20 | os.minor(about.st_dev)
    return (about.st_ino ^ about.st_size << 16 ^ device << 40) & (1 << 64) - 1


def test_programs_that_have_ended(tmp_path: Path, registry: Registry) -> None:
    """A program is examined by its name, once; a name that is not absolute, or of no file, is nobody's."""
    program = tmp_path / "true"
    shutil.copy(shutil.which("true") or "/bin/true", program)
    assert not registry.not_python(key_of(program))
    registry.look_at(["true", str(tmp_path), str(tmp_path / "missing"), str(program)])
    assert registry.not_python(key_of(program))
    registry.known.clear()
    registry.look_at([str(program)])
    assert not registry.known


def test_files_one_after_the_other(tmp_path: Path, registry: Registry) -> None:
    """Two files that have had the same numbers are two files, if their sizes differ (temporary file systems reuse both)."""
    program = tmp_path / "true"
    shutil.copy(shutil.which("true") or "/bin/true", program)
    before = key_of(program)
    with program.open("ab") as file:
        file.write(b"longer")
    registry.look_at([str(program)])
    assert key_of(program) != before
    assert registry.not_python(key_of(program))
    assert not registry.not_python(before)
