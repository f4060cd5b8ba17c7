"""What `make` says where it cannot install."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("make", "sh", "id", "sed", "expand", "grep", "python3", "env", "echo")


def made(folder: Path, target: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """Make a target where there are no other programs than TOOLS and these shell scripts."""
    place = folder / "bin"
    place.mkdir()
    for name in TOOLS:
        if (found := shutil.which(name)) and name not in programs:
            (place / name).symlink_to(found)
    for name, script in programs.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "pyproject.toml").touch()
    line = ["make", "--no-print-directory", target, f"SHELL={shutil.which('sh')}"]
    return subprocess.run(line, cwd=folder, env={"PATH": str(place)}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("target", ["demo", "setup"])
def test_another_distribution(tmp_path: Path, target: str) -> None:
    """Where there is no dpkg, the words are of Fedora and Arch, and of pip."""
    done = made(tmp_path, target)
    assert done.returncode != 0
    for word in ("Fedora: sudo dnf install", "Arch: sudo pacman -S", "pip install '.[kafka]'"):
        assert word in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_neither_root_nor_sudo(tmp_path: Path) -> None:
    """One line says what to type as root."""
    done = made(tmp_path, "demo", id="echo 1000", **{"dpkg-query": "exit 1"})
    assert done.returncode != 0
    assert "there is no sudo: as root type apt-get install -y python3 python3-venv" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_demo_installs_what_it_takes() -> None:
    """No mypy and no debugpy: those are for who tests; and it says that it downloads."""
    line = ["make", "--dry-run", "--always-make", "--no-print-directory", ".venv/.demo"]
    said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "install -e '.[kafka]'" in said
    assert "[dev]" not in said
    assert "are downloaded" in said


FAKE_PYTEST = """#!/bin/sh
echo "$@"
case "$*" in *"not root"*) exit $WITHOUT_ROOT;; *) exit $WITH_ROOT;; esac
"""
PARTS = ["-m pytest -m not root -n 2 --dist loadfile", "-m pytest -m root"]


@pytest.mark.parametrize(
    ("without_root", "with_root", "holds"),
    [(0, 0, True), (1, 0, False), (0, 1, False), (2, 0, False), (5, 0, True), (0, 5, True)],
)
def test_the_tests_are_run_in_two_parts(tmp_path: Path, without_root: int, with_root: int, holds: bool) -> None:
    """Each test is in one part; what fails ends it, a part of which nothing is chosen (status 5) does not."""
    (tmp_path / "python").write_text(FAKE_PYTEST)
    (tmp_path / "python").chmod(0o755)
    line = ["make", "--silent", "--old-file=setup", "--old-file=lint", "test", f"BIN={tmp_path}"]
    environment = {"PATH": os.environ["PATH"], "WITHOUT_ROOT": str(without_root), "WITH_ROOT": str(with_root)}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == holds
    assert done.stdout.splitlines() == PARTS[: 1 if without_root in (1, 2) else 2]
