"""One recording of all the workloads that can share one: compiling the probes takes longer than most of them run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recorded import WORKLOADS, Recorded

CGROUPS = Path("/sys/fs/cgroup")
UNUSED_UID = 54321
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or "python3"


@pytest.fixture(scope="session")
def small_cgroup() -> Iterator[Path | None]:
    """A cgroup with room for 3 processes (one and 2 children); None where the pids controller is missing."""
    root = CGROUPS / "pids" if (CGROUPS / "pids").is_dir() else CGROUPS
    folder = root / f"forktrace-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "pids.max").write_text("3")
    except OSError:
        yield None
    else:
        yield folder
    if folder.is_dir():
        folder.rmdir()


@pytest.fixture(scope="session")
def suite(
    record: Callable[..., Recorded], workload: Callable[[str], str], small_cgroup: Path | None, open_folder: Path
) -> Recorded:
    """The recording of calls, threads, waits, endings, families, limits, uring, namespaces, and calls under strace."""
    names = ("calls", "threads", "waits", "families", "uring", "namespaces")
    commands = [f"{name}={workload(name)}" for name in names]
    commands.append(f"endings={workload('endings')} {open_folder}")
    procs = [str(small_cgroup / "cgroup.procs")] if small_cgroup else []
    commands.append(" ".join([f"limits={workload('limits')} {UNUSED_UID}", *procs]))
    if shutil.which("strace"):
        commands.append(f"strace=strace -f -qq -o /dev/null {workload('calls')}")
    commands.append(f"python={PYTHON} {WORKLOADS / 'libraries.py'}")
    recorded = record([PYTHON, str(WORKLOADS / "driver.py"), *commands])
    assert recorded.returncode == 0, recorded.stderr
    failed = [line["program"] for line in recorded.of("program") if line["status"] != 0]
    assert not failed, f"the workloads {failed} did not do what they should:\n{recorded.stderr}"
    return recorded
