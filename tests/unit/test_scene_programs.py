"""The programs of the scenes, run alone: on the oldest Python that they are for, and on the newest here."""

from __future__ import annotations

import subprocess
import sys

import pytest
from recorded import PATIENCE_S, python3s

from forktrace.scenes import scene

NAMES = ("start", "methods", "join", "exits", "pid1")
FITTING = [(version, path) for version, path in python3s().items() if version >= (3, 8)]
PYTHONS = {".".join(map(str, version)): path for version, path in FITTING[:1] + FITTING[-1:]} or {"this": sys.executable}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", NAMES)
def test_runs_alone(name: str, python: str) -> None:
    """Without forktrace, on any Python from 3.8 on: it ends with 0 and says nothing on stderr."""
    command = [PYTHONS[python], str(scene(name).program), "--speed", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) >= 4
