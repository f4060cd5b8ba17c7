"""Limits of whoever starts a recorder, which it raises as far as it may."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from forktrace.system.resource_limits import _NEEDED

RAISES = """
import resource, sys
from forktrace.system import resource_limits
number, soft = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))
resource_limits.raise_all()
print(*resource.getrlimit(number))
"""
# Of the others so much that Python can start.
SOFT = {"RLIMIT_NOFILE": 64, "RLIMIT_CPU": 50, "RLIMIT_NPROC": 50, "RLIMIT_RTPRIO": 0}


@pytest.mark.parametrize("name", list(_NEEDED))
def test_a_soft_limit_is_raised(name: str) -> None:
    """To what a recorder needs, or to the hard one where that is less."""
    number, needed, _ = _NEEDED[name]
    _, hard = resource.getrlimit(number)
    line = [sys.executable, "-c", RAISES, str(number), str(SOFT.get(name, 1 << 30))]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    soft_after, hard_after = map(int, said.split())
    assert soft_after in (needed, hard)
    assert hard_after in (needed, hard)
