"""One recording of all the workloads that can share one: compiling the probes takes longer than most of them run."""

from __future__ import annotations

import os
import shlex
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from people import Person, make_venv, somebody
from recorded import WORKLOADS, Recorded, folder_of_mode

CGROUPS = Path("/sys/fs/cgroup")
UNUSED_UID = 50_000 + os.getpid() % 10_000  # another for every run: RLIMIT_NPROC counts them all
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or "python3"


# controller, its limit in the two versions of cgroups, the value
SMALL = {"pids": ("pids.max", "pids.max", "3"), "memory": ("memory.limit_in_bytes", "memory.max", str(16 << 20))}
NO_SWAP = {"memory.memsw.limit_in_bytes": str(16 << 20), "memory.swap.max": "0"}  # where the memory could go instead


@pytest.fixture(scope="session")
def small_cgroups() -> Iterator[list[str]]:
    """The cgroup.procs of a cgroup with room for 3 processes, and of one with 16 MiB; "" where the controller is missing."""
    folders = [small_cgroup(controller, *limits) for controller, limits in SMALL.items()]
    yield [str(folder / "cgroup.procs") if folder else "" for folder in folders]
    for folder in filter(None, folders):
        folder.rmdir()


def small_cgroup(controller: str, first: str, second: str, value: str) -> Path | None:
    """Make a cgroup whose limit (its file in version 1, in version 2) is `value`; None when that is not possible."""
    old = CGROUPS / controller
    folder = (old if old.is_dir() else CGROUPS) / f"forktrace-test-{os.getpid()}-{controller}-{uuid.uuid4()}"
    folder.mkdir()
    limit = folder / (first if old.is_dir() else second)
    if not limit.exists():
        folder.rmdir()
        return None
    limit.write_text(value)
    for name, most in NO_SWAP.items():
        if (folder / name).exists():
            (folder / name).write_text(most)
    return folder


@pytest.fixture(scope="session")
def suite(
    record: Callable[..., Recorded], workload: Callable[[str], str], small_cgroups: list[str], open_folder: Path
) -> Recorded:
    """The recording of calls, threads, waits, endings, families, limits, uring, namespaces; the first two also under strace."""
    names = ("calls", "threads", "waits", "families", "uring", "namespaces")
    commands = [f"{name}={workload(name)}" for name in names]
    commands.append(f"endings={workload('endings')} {open_folder}")
    commands.append("limits=" + shlex.join([workload("limits"), str(UNUSED_UID), *small_cgroups]))
    if shutil.which("strace"):
        commands.append(f"strace=strace -f -qq -o /dev/null {workload('calls')}")
        commands.append(f"traced-threads=strace -f -qq -o /dev/null {workload('threads')}")
    commands.append(f"python={PYTHON} {WORKLOADS / 'libraries.py'}")
    recorded = record([PYTHON, str(WORKLOADS / "driver.py"), *commands])
    assert recorded.returncode == 0, recorded.stderr
    failed = [line["program"] for line in recorded.of("program") if line["status"] != 0]
    assert not failed, f"the workloads {failed} did not do what they should:\n{recorded.stderr}"
    return recorded


@pytest.fixture(scope="module")
def open_place() -> Iterator[Path]:
    """A directory that everybody can read and root alone can change: code for root may lie there."""
    with folder_of_mode(0o755) as place:
        yield place


@pytest.fixture(scope="module")
def person(open_place: Path) -> Iterator[Person]:
    """An ordinary user."""
    with somebody(open_place) as made:
        yield made


@pytest.fixture(scope="module")
def in_venv(person: Person, open_place: Path) -> str:
    """The command of forktrace in a virtual environment of the person's."""
    command = make_venv(person.home / "project/.venv", open_place)
    person.owns(person.home / "project")
    return str(command)
