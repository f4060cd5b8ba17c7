"""A machine that hangs, and a kernel that the mirror has no more; QEMU and apt are made up."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
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


@pytest.mark.parametrize(("status", "reports"), [(1, ["first.xml", "report.xml"]), (0, ["report.xml"])])
def test_what_fails_is_run_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, reports: list[str]) -> None:
    """In the smoke set, and the first report is kept."""
    scripts = []
    monkeypatch.setattr("test_kernels.run", lambda kernel, script, **more: scripts.append(script) or FAILED)
    monkeypatch.setattr("test_kernels.CACHE", tmp_path)
    monkeypatch.setattr("test_kernels.workloads", lambda architecture: {})
    machines = Machines(smoke=True)
    machines.boot([KERNEL])
    with pytest.raises(AssertionError):
        machines.outcomes(KERNEL, "test_calls.py::test_call")
    out = tmp_path / "out"
    out.mkdir()
    calls = f"{PYTHON}() {{ touch {out}/report.xml; return {status}; }}\n"
    subprocess.run(["bash", "-c", calls + scripts[0].replace("/host/out", str(out))], check=False)
    assert sorted(os.listdir(out)) == reports


def test_what_failed_at_first_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second report counts; a warning has what the first one has more."""
    case = '<testcase classname="tests.kernel.test_calls" name="test_call[fork]">{}</testcase>'
    reports = {"first.xml": '<failure message="lost">1 exit</failure>', "report.xml": ""}
    out = {name: f"<suite>{case.format(said)}</suite>".encode() for name, said in reports.items()}
    monkeypatch.setattr("test_kernels.run", lambda kernel, script, **more: replace(FAILED, out=out))
    monkeypatch.setattr("test_kernels.CACHE", tmp_path)
    monkeypatch.setattr("test_kernels.workloads", lambda architecture: {})
    machines = Machines(smoke=True)
    machines.boot([KERNEL])
    with pytest.warns(match=r"failed, and was run once more: tests.kernel.test_calls.test_call\[fork\]: lost"):
        (found,) = machines.outcomes(KERNEL, "test_calls.py::test_call")
    assert found.state == "passed"
