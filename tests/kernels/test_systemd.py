"""The unit of docs/service.md under a running systemd: a machine is booted with it, and under_systemd.py is run there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from image import CACHE, PROJECT, PYTHON, Kernel
from machine import run

KERNEL = Kernel("6.12")
SECONDS = 1800
INSTALL = f"""\
{PYTHON} -m venv --system-site-packages --without-pip /opt/forktrace
{PYTHON} -m pip -q --python /opt/forktrace/bin/python install --no-index --no-deps /host/programs/*.whl
mkdir -p /usr/local/bin
ln -s /opt/forktrace/bin/forktrace /usr/local/bin/
"""


@pytest.mark.systemd
def test_the_unit_of_the_page(tmp_path: Path) -> None:
    """It holds all that docs/service.md says of it; what the machine printed is in .cache/kernels/log/systemd.txt."""
    line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, PROJECT]
    subprocess.run(line, check=True)
    wheels = {path.name: path for path in tmp_path.glob("*.whl")}
    tests = f"{PYTHON} -m pytest -p no:cacheprovider -x -v tests/kernels/under_systemd.py"
    script = f"set -e\nexport CI=1\n(unset PYTHONPATH\n{INSTALL})\n{tests}\n"
    done = run(KERNEL, script, seconds=SECONDS, programs=wheels, first="systemd")
    log = CACHE / "log"
    log.mkdir(exist_ok=True)
    (log / "systemd.txt").write_text(f"{done.release}, {done.seconds:.0f} s\n{done.console}")
    assert done.status == 0, done.console[-10000:]
