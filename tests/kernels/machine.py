"""Boots a kernel in QEMU, with this project inside, runs a script there, and brings back what it left in /host/out.

As a program (`make kernel`): `python tests/kernels/machine.py KERNEL COMMAND` runs a command on 6.1-amd64, or newest-arm64.
"""

from __future__ import annotations

import io
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from image import CACHE, PROJECT, PYTHON, Boot, Kernel, boot_files, root_image

OUTPUT_BYTES = 256 << 20
MEMORY_MIB = 3072
TRIES = 3
# The kernel had put a breakpoint into its own code and taken it out again: QEMU translated what was there before (two emulated
# processors; seen once, on 7.2).
EMULATOR_FAULT = "Oops: int3"
QEMU = {
    "amd64": ("qemu-system-x86_64", "q35", "ttyS0"),
    "arm64": ("qemu-system-aarch64", "virt", "ttyAMA0"),
}
COMPILERS = {"x86_64": "amd64", "aarch64": "arm64"}
CROSS = {"amd64": "x86_64-linux-gnu-gcc", "arm64": "aarch64-linux-gnu-gcc"}
BEING_MADE = {name: threading.Lock() for name in QEMU}  # images and programs of a processor: by one thread at a time
SHARED = ("forktrace", "probes", "tests", "docs", "notebooks", "pyproject.toml", "README.md", "CHANGELOG.md")


@dataclass(frozen=True)
class Done:
    """What came of a machine.

    Attributes:
        release: of its kernel
        seconds: that it ran
        status: of the script; None: it did not come to its end
        console: what it printed
        out: the files that it left
    """

    release: str
    seconds: float
    status: int | None
    console: str
    out: Mapping[str, bytes]


def run(kernel: Kernel, script: str, *, seconds: float, programs: Mapping[str, Path] | None = None, first: str = "") -> Done:
    """Boot a kernel and run a shell script as root; `seconds`: for that, and to make what is missing.

    `programs`: further files for /host/programs.
    `first`: the first process, `systemd`; "": a script, and nothing else runs there.

    An emulated kernel that dies of the emulator is booted again.
    """
    until = time.monotonic() + seconds
    for _ in range(TRIES):
        done = _run(kernel, script, until, programs or {}, first)
        if done.status is not None or EMULATOR_FAULT not in done.console:
            break
    return done


def _run(kernel: Kernel, script: str, until: float, programs: Mapping[str, Path], first: str) -> Done:
    with BEING_MADE[kernel.architecture]:
        boot, root = boot_files(kernel), root_image(kernel.architecture)
    with tempfile.TemporaryDirectory(prefix="machine-", dir=CACHE) as place:
        work, output = Path(place) / "work", Path(place) / "output"
        _write_work(work, script, programs)
        with output.open("wb") as file:
            file.truncate(OUTPUT_BYTES)
        began = time.monotonic()
        console = _qemu(kernel, boot, [root, work, output], max(until - began, 0), first)
        took = time.monotonic() - began
        out = _read_output(output)
    status = out.pop("status", None)
    return Done(boot.release, took, None if status is None else int(status), console, out)


def _write_work(path: Path, script: str, programs: Mapping[str, Path]) -> None:
    wrapper = f'#!/bin/sh\nexec {PYTHON} -m forktrace "$@"\n'
    with tarfile.open(path, "w") as tar:
        for name, text in {"run.sh": script, "bin/forktrace": wrapper}.items():
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(text.encode()), 0o755
            tar.addfile(about, io.BytesIO(text.encode()))
        for name in SHARED:
            tar.add(PROJECT / name, f"project/{name}", filter=_as_roots)
        for name, program in programs.items():
            tar.add(program, f"programs/{name}", filter=_as_roots)
    with path.open("ab") as file:
        file.truncate(-(-path.stat().st_size // (1 << 20)) << 20)  # a disk has whole sectors


def _as_roots(about: tarfile.TarInfo) -> tarfile.TarInfo | None:
    about.uid = about.gid = 0
    about.mode |= 0o444 | (0o111 if about.isdir() else 0)
    return None if "__pycache__" in about.name else about


def _qemu(kernel: Kernel, boot: Boot, disks: list[Path], seconds: float, first: str) -> str:
    program, machine, console = QEMU[kernel.architecture]
    is_own = COMPILERS.get(platform.machine()) == kernel.architecture
    accelerated = is_own and _kvm_works(program, machine)
    line = [program, "-machine", f"{machine},accel={'kvm' if accelerated else 'tcg'}", "-cpu", _processor(kernel, accelerated)]
    line += ["-smp", "2", "-m", str(MEMORY_MIB), "-nographic", "-no-reboot", "-nic", "none"]
    line += ["-kernel", str(boot.kernel), "-initrd", str(boot.initial)]
    line += ["-append", f"console={console} quiet loglevel=3 panic=-1 mitigations=off FIRST={first} systemd.getty_auto=no"]
    for disk in disks:
        kept = "" if disk == disks[-1] else ",snapshot=on"
        line += ["-drive", f"file={disk},if=virtio,format=raw,cache=unsafe{kept}"]
    if shutil.which(program) is None:
        raise RuntimeError(f"{program} is not installed: make test-kernels installs it")
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        said.seek(0)
        return said.read().decode(errors="replace").replace("\r", "")


def _processor(kernel: Kernel, accelerated: bool) -> str:
    if accelerated:
        return "host"
    # Not `max`: the AVX of QEMU 7.2 computes a wrong cumulative sum now and then.
    return "Nehalem" if kernel.architecture == "amd64" else "max,pauth-impdef=on"


def _kvm_works(program: str, machine: str) -> bool:
    """Whether a machine starts with KVM: a device that is there may be of no use."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    line = [program, "-machine", f"{machine},accel=kvm", "-cpu", "host", "-S", "-display", "none", "-nic", "none"]
    try:
        done = subprocess.run([*line, "-monitor", "stdio"], input=b"quit\n", capture_output=True, timeout=10, check=False)
        return done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _read_output(path: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(path, "r:") as tar:  # not asked for, LZMA takes minutes to find that zeros are none
            files = {about.name.removeprefix("./"): tar.extractfile(about) for about in tar if about.isfile()}
            return {name: file.read() for name, file in files.items() if file}
    except tarfile.ReadError:
        return {}


def compiled(architecture: str, sources: Mapping[str, tuple[Path, tuple[str, ...]]]) -> dict[str, Path]:
    """Compile C programs for a processor; `sources`: name -> file and options. They are there until the next call."""
    own = COMPILERS.get(platform.machine()) == architecture
    folder = CACHE / f"programs-{architecture}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (source, options) in sources.items():
        subprocess.run(["gcc" if own else CROSS[architecture], "-O1", *options, "-o", folder / name, source], check=True)
    return {name: folder / name for name in sources}


def parsed(name: str) -> Kernel:
    """Return the kernel that is meant by `6.1-amd64`, `6.12-rt-amd64` or `newest-arm64`."""
    series, *flavour, architecture = name.split("-")
    return Kernel(series, architecture, flavour[0] if flavour else "cloud")


if __name__ == "__main__":
    ended = run(parsed(sys.argv[1]), shlex.join(sys.argv[2:]) if len(sys.argv) > 3 else sys.argv[2], seconds=3600)
    print(ended.console)
    print(f"{ended.release}: status {ended.status} after {ended.seconds:.0f} s")
    sys.exit(1 if ended.status is None else ended.status)
