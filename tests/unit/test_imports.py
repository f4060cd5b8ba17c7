"""Imports point one way, and what is large is imported only where it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "forktrace"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Room -> the rooms it may import, besides itself. Two roads part at trace: what runs now, and what a recording says of it.
RECORDING = ("errors", "trace", "system", "kernel", "cpython", "recorder", "launcher", "now")
ALLOWED = {
    **{room: set(RECORDING[:place]) for place, room in enumerate(RECORDING)},
    "cpython": {"errors", "trace", "system"},
    "analysis": {"errors", "trace"},
    "views": {"errors", "trace", "analysis"},
    "fleet": {"errors", "trace", "analysis", "views"},
    "scenes": set(),
    "forktrace": {"errors", "trace", "analysis", "views", "fleet"},  # __init__.py: the public names
    "service": {*RECORDING, "analysis", "views", "fleet"},
    "cli": {*RECORDING, "analysis", "views", "fleet", "service", "scenes", "forktrace"},
    "pytest_plugin": {*RECORDING, "analysis", "views", "forktrace"},
    "__main__": {"cli"},
}
BCC_AT_HOME = ("kernel/bccloader.py",)


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the full name of everything that a module imports, in function bodies too."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    """Return the room that a file of the package is in."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "forktrace" if parts == ("__init__",) else parts[0]


def room_of_name(name: str) -> str:
    """Return the room that an imported name of the package comes from."""
    second = name.partition(".")[2].partition(".")[0]
    return second if second in ALLOWED else "forktrace"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    """errors <- trace <- system <- ... <- now; trace <- analysis <- views; cli imports them all, and nobody imports cli."""
    room = room_of(path)
    names = {name for name in imports(path) if name.split(".")[0] == "forktrace"} - {"forktrace.__version__"}
    ours = {room_of_name(name) for name in names}
    assert ours <= ALLOWED[room] | {room}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_its_loader_imports_bcc(path: Path) -> None:
    """bcc is loaded by path in one place."""
    if str(path.relative_to(PACKAGE)) not in BCC_AT_HOME:
        assert "bcc" not in {name.split(".")[0] for name in imports(path)}


def loaded_by(program: str) -> set[str]:
    """Return the top-level modules that are there after `program` ran in a fresh interpreter."""
    program += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin"},
    )
    return set(done.stdout.split())


def test_import_forktrace_costs_nothing() -> None:
    """`import forktrace` loads none of the dependencies; its names come when they are asked for."""
    assert not {"pyarrow", "pandas", "numpy", "matplotlib", "click", "rich", "bcc"} & loaded_by("import forktrace")
    assert "pandas" in loaded_by("import forktrace; forktrace.read")
    assert "bcc" not in loaded_by("import forktrace; forktrace.read; forktrace.timeline; forktrace.Recording")


def test_what_records_needs_no_pandas() -> None:
    """The modules of `record` load neither pandas nor matplotlib."""
    rooms = ("system", "cpython", "recorder", "launcher")
    names = [f"forktrace.{room}.{path.stem}" for room in rooms for path in sorted((PACKAGE / room).glob("[!_]*.py"))]
    loaded = loaded_by("\n".join(f"import {name}" for name in names) + "\nimport forktrace.trace.stream")
    assert not {"pandas", "matplotlib"} & loaded


def test_every_name_that_is_promised_is_there() -> None:
    """Everything in `__all__` can be had, and nothing else."""
    loaded_by("import forktrace\nfor name in forktrace.__all__: getattr(forktrace, name)")
    loaded_by("import forktrace\ntry: forktrace.nonsense\nexcept AttributeError: pass\nelse: raise SystemExit(1)")


def test_no_room_outgrows_itself() -> None:
    """At most 14 modules in a room, 450 lines in a file of code, 50 lines of code in a function."""
    for room in {path.parent for path in MODULES}:
        modules = [path for path in MODULES if path.parent == room and path.name != "__init__.py"]
        assert len(modules) <= 14, room
    for path in (*MODULES, *(PACKAGE.parent / "probes").glob("*.[ch]")):
        assert len(path.read_text().splitlines()) <= 450, path
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                code = len(
                    ast.unparse(ast.Module([one for one in node.body if not isinstance(one, ast.Expr)], [])).splitlines()
                )
                assert code <= 50, (path, node.name)
