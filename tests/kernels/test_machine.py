"""A machine that hangs, and a kernel that the mirror has no more; QEMU and apt are made up."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import image
import machine
import pytest
from image import PYTHON, Boot, Kernel, boot_files
from machine import Done
from test_kernels import Machines

KERNEL = Kernel("6.12")
FAILED = Done("6.12.1", 1.0, None, "", {})
HANGS = "#!/bin/sh\necho Booting from ROM\nexec sleep 1000\n"


@pytest.fixture
def qemu_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A QEMU that prints a line, and no more."""
    program = tmp_path / "qemu"
    program.write_text(HANGS)
    program.chmod(0o755)
    monkeypatch.setattr(machine, "QEMU", {"amd64": (str(program), "q35", "ttyS0")})
    monkeypatch.setattr(machine, "CACHE", tmp_path)
    monkeypatch.setattr(machine, "_kvm_works", lambda program, machine: False)
    monkeypatch.setattr(machine, "boot_files", lambda kernel: Boot("6.12.1", tmp_path, tmp_path))
    monkeypatch.setattr(machine, "root_image", lambda architecture: tmp_path)


@pytest.mark.usefixtures("qemu_that_hangs")
def test_a_machine_that_hangs() -> None:
    """It is ended at its limit, and what it had printed is there."""
    began = time.monotonic()
    done = machine.run(KERNEL, "true", seconds=10)  # in which a busy machine has printed the line
    assert time.monotonic() - began < 100
    assert done.status is None
    assert done.console == "Booting from ROM\n"


@pytest.mark.usefixtures("qemu_that_hangs")
def test_machines_that_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of the smoke set is that of all its machines, and a failure names it."""
    monkeypatch.setattr("test_kernels.SMOKE_SECONDS", 1)
    monkeypatch.setattr("test_kernels.CACHE", tmp_path)
    monkeypatch.setattr("test_kernels.workloads", lambda architecture: {})
    machines = Machines(smoke=True)
    kernels = [KERNEL, Kernel("6.1"), Kernel("5.10")]
    machines.boot(kernels)
    began = time.monotonic()
    for kernel in kernels:
        with pytest.raises(AssertionError, match=r"6\.12\.1 did not get .*; all machines have 1 s together"):
            machines.outcomes(kernel, "test_calls.py::test_call")
    assert time.monotonic() - began < 100


def test_a_kernel_that_debian_has_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named."""
    monkeypatch.setattr(image, "CACHE", tmp_path)
    monkeypatch.setattr("debian.Archive.names", lambda archive, pattern: [])
    with pytest.raises(LookupError, match=r"Debian has no kernel 4\.19-amd64 any more: put its package into"):
        boot_files(Kernel("4.19"))


@pytest.mark.parametrize(
    ("said", "runs"), [("1 probe not run", 2), ("['endings'] did not do what they should", 2), ("1 failed", 1), ("", 1)]
)
def test_a_fault_of_the_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, runs: int) -> None:
    """The smoke set is run once more then, and for no other failure."""
    scripts = []
    monkeypatch.setattr("test_kernels.run", lambda kernel, script, **more: scripts.append(script) or FAILED)
    monkeypatch.setattr("test_kernels.CACHE", tmp_path)
    monkeypatch.setattr("test_kernels.workloads", lambda architecture: {})
    machines = Machines(smoke=True)
    machines.boot([KERNEL])
    with pytest.raises(AssertionError):
        machines.outcomes(KERNEL, "test_calls.py::test_call")
    (tmp_path / "report.xml").write_text(said)
    calls = f"{PYTHON}() {{ echo called; }}\n"
    script = calls + scripts[0].replace("/host/out", str(tmp_path))
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["called"] * runs
