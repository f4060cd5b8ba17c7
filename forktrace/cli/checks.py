"""What recording needs of this machine, checked one by one, with the command that mends what is missing; then it is tried."""

from __future__ import annotations

import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from forktrace.cli import trial
from forktrace.errors import ForktraceError, MachineLacks, PermissionMissing
from forktrace.kernel import bccloader
from forktrace.kernel.compile import digest_of
from forktrace.kernel.layout import probe_directory
from forktrace.kernel.objects import ProbesObject, read_object
from forktrace.launcher import recorder_process
from forktrace.system import capabilities, tracefs
from forktrace.system.machine import MACHINES

_SECURE_PATH: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")  # Debian's sudoers
_OLDEST_KERNEL: Final = (5, 10)  # that was booted (docs/limits.md)


class Finding(NamedTuple):
    """One requirement: whether it is met, what was found, and the command that mends it."""

    good: bool
    name: str
    found: str
    mend: str = ""

    def line(self) -> str:
        """Return the line that `forktrace doctor` prints."""
        return f"{'ok  ' if self.good else 'FAIL'}  {self.name:<12}  {self.found}{f'; {self.mend}' if self.mend else ''}"


def examine(root: Path = Path("/")) -> Iterator[Finding]:
    """Yield one finding for each requirement; `root` is where /proc, /sys and /usr are looked for."""
    yield _architecture(platform.machine())
    yield _kernel((root / "proc/sys/kernel/osrelease").read_text().strip())
    yield _rights((root / "proc/self/status").read_text())
    yield _btf(root / "sys/kernel/btf/vmlinux")
    yield _tracefs(root)
    yield _lockdown(root / "sys/kernel/security/lockdown")
    yield from _probes(root, probe_directory())
    yield _sudo(Path(sys.executable).parent / "forktrace")


def try_out() -> Iterator[Finding]:
    """Yield what came of trying it: program by program, then of a recording. Nothing where this process may not record."""
    if os.geteuid() != 0 and capabilities.missing():
        return
    try:
        tried = [*trial.try_programs()]
        tried += [trial.try_recording()] if all(one.good for one in tried) else []
    except (ForktraceError, OSError) as error:
        tried = [trial.Tried(False, "probes", str(error))]
    for one in tried:
        yield Finding(one.good, one.name, one.found)


def verdict(findings: list[Finding]) -> str:
    """Return the last line: whether forktrace can record here, and what keeps it from that."""
    bad = [finding.name for finding in findings if not finding.good]
    if bad:
        return f"forktrace cannot record here: {', '.join(dict.fromkeys(bad))}"
    if any(finding.name == "recording" for finding in findings):
        return "forktrace can record here"
    return 'forktrace has what it needs, and was not tried, which takes root: sudo "$(command -v forktrace)" doctor'


def _architecture(machine: str) -> Finding:
    if machine in MACHINES:
        return Finding(True, "architecture", machine)
    known = " and ".join(MACHINES)
    return Finding(
        False, "architecture", f"{machine}: forktrace records on {known} only", "record there; reports work anywhere"
    )


def _kernel(release: str) -> Finding:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    good = numbers is not None and (int(numbers[1]), int(numbers[2])) >= _OLDEST_KERNEL
    if good:
        return Finding(True, "kernel", release)
    return Finding(False, "kernel", f"{release} is older than 5.10", "sudo apt-get install -y linux-image-amd64 && sudo reboot")


def _rights(status: str) -> Finding:
    lacking = capabilities.missing(status)
    words = ", ".join(lacking)
    if _line_of(status, "Uid").split()[1] != "0":
        if not lacking:
            return Finding(True, "rights", f"not root, but {', '.join(capabilities.NEEDED)}")
        if recorder_process.find_sudo():
            return Finding(True, "rights", "not root: record runs the recorder through sudo, and nothing else")
        return Finding(False, "rights", f"not root, no sudo, and no {words}", "apt-get install -y sudo")
    if not lacking:
        return Finding(True, "rights", "root")
    return Finding(False, "rights", f"root without {words}", capabilities.remedy(lacking))


def _line_of(status: str, key: str) -> str:
    return next(line.partition(":")[2].strip() for line in status.splitlines() if line.startswith(f"{key}:"))


def _btf(path: Path) -> Finding:
    if path.exists():
        return Finding(True, "BTF", str(path))
    return Finding(
        False,
        "BTF",
        f"{path} is missing: the kernel was built without CONFIG_DEBUG_INFO_BTF",
        "sudo apt-get install -y linux-image-amd64 && sudo reboot",
    )


def _tracefs(root: Path) -> Finding:
    mounts = [line.split() for line in (root / "proc/mounts").read_text().splitlines()]
    mounted = [fields[1] for fields in mounts if fields[2] == "tracefs"]
    if mounted:
        return Finding(True, "tracefs", mounted[0])
    status = (root / "proc/self/status").read_text()
    if not capabilities.missing(status) and capabilities.MOUNTING not in capabilities.effective(status):
        return Finding(False, "tracefs", f"not mounted, and without {capabilities.MOUNTING} record cannot do it", tracefs.MOUNT)
    if "\ttracefs\n" in (root / "proc/filesystems").read_text():
        return Finding(True, "tracefs", "not mounted: record mounts it for itself")
    return Finding(
        False,
        "tracefs",
        "unknown to the kernel, which was built without CONFIG_TRACING",
        "sudo apt-get install -y linux-image-amd64 && sudo reboot",
    )


def _lockdown(path: Path) -> Finding:
    try:
        chosen = re.search(r"\[(\w+)\]", path.read_text())
    except OSError:
        return Finding(True, "lockdown", f"not known: {path} is not there")
    mode = chosen[1] if chosen else "none"
    if mode != "confidentiality":
        return Finding(True, "lockdown", mode)
    return Finding(
        False, "lockdown", "confidentiality forbids BPF to read memory", "boot with lockdown=integrity, no command can"
    )


def _probes(root: Path, folder: Path) -> Iterator[Finding]:
    """The compiled probes; where they are not of these sources, what it takes to compile them."""
    try:
        found = read_object(folder)
    except ForktraceError as error:
        yield Finding(False, "probes", str(error), error.hint)
        return
    if found and _is_of(found, folder):
        yield Finding(True, "probes", f"compiled by {found.made_by}, for every kernel")
        return
    yield Finding(True, "probes", "changed since they were compiled: each recording compiles them, for seconds")
    yield _bcc()
    yield _headers(root / "usr/include/linux/types.h")


def _is_of(found: ProbesObject, folder: Path) -> bool:
    return found.digest == digest_of(folder, found.facts)


def _bcc() -> Finding:
    try:
        bcc = bccloader.load_bcc()
    except MachineLacks as error:
        return Finding(False, "bcc", str(error), error.hint)
    namesake = bccloader.find_namesake()
    also = f" ({namesake} is PyPI's package of that name and is not used)" if namesake else ""
    return Finding(True, "bcc", f"{bcc.__version__} in {Path(str(bcc.__file__)).parent}{also}")


def _headers(path: Path) -> Finding:
    if path.exists():
        return Finding(True, "headers", "linux-libc-dev")
    return Finding(False, "headers", "linux-libc-dev is not installed", "sudo apt-get install -y linux-libc-dev")


def _sudo(program: Path) -> Finding:
    """Whether root may run this forktrace, and whether `sudo forktrace` is found: a hint, since its full path always works."""
    try:
        if os.geteuid() != 0:
            recorder_process.check_code()
    except PermissionMissing as error:
        return Finding(False, "sudo", str(error), error.hint)
    if not program.exists() or str(program.parent) in _SECURE_PATH or Path("/usr/local/bin/forktrace").exists():
        return Finding(True, "sudo", "finds forktrace")
    works = 'sudo "$(command -v forktrace)" works'
    if "/.cache/" not in str(program):  # else it may be gone tomorrow (uvx)
        works += f", or once: sudo ln -s {shlex.quote(str(program))} /usr/local/bin/"
    return Finding(True, "sudo", f"does not search {program.parent}", works)
