"""Several interpreters in one process: whose line it was, whichever of them ran on the thread."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable

import pytest
from recorded import WORKLOADS, Recorded, interpreters

pytestmark = pytest.mark.root

PROGRAM = str(WORKLOADS / "several_interpreters.py")
OLDEST = (3, 8)  # before, no module of the standard library makes an interpreter


def has_more(name: str) -> bool:
    """Whether an interpreter of that name can make further ones."""
    version = re.match(r"(\d)\.(\d+)", name)
    return not version or (int(version[1]), int(version[2])) >= OLDEST


PYTHONS = {name: path for name, path in interpreters().items() if has_more(name)}


@pytest.fixture(scope="session")
def several(record: Callable[..., Recorded]) -> Recorded:
    """One recording of several_interpreters.py under every interpreter."""
    programs = [f"{name}={shlex.join([python, '-B', PROGRAM])}" for name, python in PYTHONS.items()]
    recorded = record([sys.executable, str(WORKLOADS / "driver.py"), *programs], timeout_s=300)
    failed = [line["program"] for line in recorded.of("program") if line["status"] != 0]
    assert not failed, f"these failed: {failed}:\n{recorded.stderr[-4000:]}"
    return recorded


@pytest.mark.parametrize("name", PYTHONS)
def test_lines_in_several_interpreters(several: Recorded, name: str) -> None:
    """Before, beside and after others, in one and in another, and on threads that run at the same time."""
    lines = [line for line in several.lines if line["program"] == name and line["case"] != "program"]
    assert len(lines) == 15
    several.assert_agrees(lines)
