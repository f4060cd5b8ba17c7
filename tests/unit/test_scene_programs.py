"""The programs of the scenes, run alone: on the oldest Python that they are for, and on the newest here."""

from __future__ import annotations

import subprocess
import sys

import pytest
from recorded import PATIENCE_S, interpreters

from forktrace.scenes import scene

NAMES = ("start",)
OLDEST = (3, 8)


def pythons() -> dict[str, str]:
    """The oldest and the newest interpreter of this machine that scenes are for; this one where there is no other."""
    numbered = {
        tuple(map(int, name.split("."))): path for name, path in interpreters().items() if name.replace(".", "").isdigit()
    }
    fitting = sorted(version for version in numbered if version >= OLDEST)
    chosen = [fitting[0], fitting[-1]] if len(fitting) > 1 else []
    return {".".join(map(str, one)): numbered[one] for one in chosen} or {"this": sys.executable}


PYTHONS = pythons()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", NAMES)
def test_runs_alone(name: str, python: str) -> None:
    """Without forktrace, on any Python from 3.8 on: it ends with 0 and says nothing on stderr."""
    command = [PYTHONS[python], str(scene(name).program), "--speed", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) >= 4
