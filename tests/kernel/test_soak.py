"""A short soak: `make soak` has the long one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from soak import soak

pytestmark = pytest.mark.root


def test_twenty_seconds(workload: Callable[[str], str], open_folder: Path) -> None:
    """Of every way to make processes, at full speed: nothing is lost, all is accounted for, the memory stays as it is."""
    folder = open_folder / str(uuid.uuid4())
    folder.mkdir()
    done = soak(20, workload("reaps"), folder)
    assert done.processes > 1000
    assert done.difference.made["broken"] > 0, "no storm was killed in the middle"
    assert not done.failures()


def test_with_turns(workload: Callable[[str], str], open_folder: Path) -> None:
    """The same with a new file every second."""
    folder = open_folder / str(uuid.uuid4())
    folder.mkdir()
    done = soak(10, workload("reaps"), folder, "1s")
    assert done.files > 5
    assert not done.failures()
