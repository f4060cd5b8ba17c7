"""The compiled probes, in the kernel that runs: the verifier takes them, whatever a kernel lacks, and has little to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from recorded import BUILT, MARK, ROOT_IS_A_MOUNT, WORKLOADS

import forktrace
from forktrace.kernel.btf import Btf
from forktrace.kernel.facts import Facts, facts_of
from forktrace.kernel.layout import probe_directory
from forktrace.kernel.loading import HOOKS, TASKS, verify
from forktrace.kernel.objects import ProbesObject, from_bytes, instructions, read_object
from forktrace.system.machine import this_machine

pytestmark = pytest.mark.root

INSTRUCTIONS_MOST = 60_000  # that the verifier looks at for one program; the kernel's own limit is a million
ALL_MOST = 150_000
NEWEST_OP = 0xDF  # of the first version of BPF: byte swaps; later ones (jumps over 32 bits, atomics) not every kernel has
SWITCHES = tuple(
    "EXIT_HAS_GROUP_DEAD MARK_VICTIM_HAS_TASK IO_URING_HAS_RESULT COUNTS_OF_USER STACKS THREAD_POINTER_IS_SAVED "
    "HAS_LINK_REGISTER HAS_CGROUPS HAS_WAITERS HAS_TASK_LIMIT HAS_PIDS_CGROUP HAS_PID_NAMESPACE_PID_MAX HAS_IO_URING_WAITID "
    "HAS_MARK_VICTIM RAW_IS_PREEMPTED".split()
)
COMPILE = """
import sys
from forktrace.kernel.compile import compile_probes
sys.stdout.buffer.write(compile_probes(sys.argv[1:]).to_bytes())
print(sys.modules["bcc"].__file__, file=sys.stderr)
"""
# As on RHEL 9 and Amazon Linux: only another Python than the one that runs has bcc. Seen in a mount namespace alone.
BESIDE_ANOTHER_PYTHON = """
mkdir lib real
mount --bind /usr/lib real
ln -s "$PWD"/real/* lib
rm lib/python3
mkdir -p lib/python3.9/site-packages
cp -r real/python3/dist-packages/bcc lib/python3.9/site-packages
mount --bind lib /usr/lib
cd "$0"
exec "$@"
"""


needs_compiler = pytest.mark.skipif(BUILT in os.environ, reason="a machine to which programs are brought has no compiler")


@pytest.fixture(scope="module")
def facts() -> Facts:
    """What this kernel is like."""
    return facts_of(Btf(), this_machine())


def verified(shipped: ProbesObject, facts: Facts, **switched: int) -> dict[str, int]:
    """How many instructions of each program the verifier looks at, also of those that this kernel has no use for."""
    names = dict.fromkeys((*(hook.program for hook in HOOKS), TASKS))
    missing = dict.fromkeys(facts.missing, 0)
    return {name: verify(shipped, facts, name, **{**missing, **switched}) for name in names}


@pytest.fixture(scope="module")
def shipped() -> ProbesObject:
    """The object that lies beside the sources."""
    found = read_object(probe_directory())
    assert found is not None, "make object"
    return found


def compiled_by(line: Sequence[str], folder: Path) -> tuple[ProbesObject, str]:
    """The object that a command prints, and the bcc that made it."""
    done = subprocess.run(line, capture_output=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    return from_bytes(done.stdout), done.stderr.decode().splitlines()[-1]


def check_is_alike(made: ProbesObject, shipped: ProbesObject) -> None:
    """The same by the same bcc; by another version the same maps, facts, programs and marks."""
    if made.made_by == shipped.made_by:
        assert made == shipped
    assert (made.maps, made.facts, list(made.functions)) == (shipped.maps, shipped.facts, list(shipped.functions))
    for name in made.functions:
        assert {place.what for place in made.places(name)} == {place.what for place in shipped.places(name)}, name


@needs_compiler
def test_it_is_what_is_compiled_here(shipped: ProbesObject) -> None:
    """bcc makes the same object of the sources; another version of bcc one with the same maps, facts and programs."""
    made, _ = compiled_by([sys.executable, "-c", COMPILE, *shipped.facts], probe_directory().parent)
    check_is_alike(made, shipped)


@needs_compiler
@pytest.mark.skipif(not ROOT_IS_A_MOUNT, reason="unshare --mount needs a root that is a mount, which this one is not")
def test_a_bcc_of_another_python_compiles(shipped: ProbesObject, tmp_path: Path) -> None:
    """It is Python and ctypes, so it works in this Python, too."""
    script = ["unshare", "--mount", "sh", "-ec", BESIDE_ANOTHER_PYTHON, str(probe_directory().parent)]
    made, place = compiled_by([*script, sys.executable, "-c", COMPILE, *shipped.facts], tmp_path)
    assert place == "/usr/lib/python3.9/site-packages/bcc/__init__.py"
    check_is_alike(made, shipped)


def test_all_switches_are_known(shipped: ProbesObject) -> None:
    """What a kernel may have or not is the subject of the tests below."""
    assert {fact for fact in shipped.facts if "_HAS_" in fact or fact.startswith("HAS_")} <= set(SWITCHES) <= set(shipped.facts)


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("switch", SWITCHES)
def test_each_kind_of_kernel(shipped: ProbesObject, facts: Facts, switch: str, value: int) -> None:
    """The verifier takes every program of a kernel that has, or has not, one of these things."""
    assert verified(shipped, facts, **{switch: value})


@pytest.mark.parametrize("value", [0, 1])
def test_a_kernel_without_anything(shipped: ProbesObject, facts: Facts, value: int) -> None:
    """And of one that has none of them, or all."""
    assert verified(shipped, facts, **dict.fromkeys(SWITCHES, value))


@pytest.mark.parametrize("copy", [0, 1, 2])
def test_copies(shipped: ProbesObject, facts: Facts, copy: int) -> None:
    """And copies of a program, the first, the last, and one between."""
    assert verified(shipped, facts, COPIES=3, COPY=copy)


def test_the_verifier_has_little_to_do(shipped: ProbesObject, facts: Facts) -> None:
    """Functions are verified once, not at each call: a twentieth of what one program may take."""
    found = verified(shipped, facts)
    assert max(found.values()) <= INSTRUCTIONS_MOST, found
    assert sum(found.values()) <= ALL_MOST, found


def test_instructions_that_every_kernel_knows(shipped: ProbesObject) -> None:
    """None of those that BPF has got since its first version (Documentation/bpf/standardization/instruction-set.rst)."""
    for name, code in shipped.functions.items():
        ops = set(instructions(code)["op"].tolist())
        assert not {op for op in ops if op & 7 == 6}, f"{name}: jumps over 32 bits"
        assert max(ops) <= NEWEST_OP, name


AS_WHERE_PROBES_ARE_PREEMPTED = """
import dataclasses, sys
from forktrace import cli
from forktrace.kernel import loading
known = loading.facts_of
def facts_of(*kernel):
    facts = known(*kernel)
    return dataclasses.replace(facts, values=facts.values | {"RAW_IS_PREEMPTED": 1, "COPIES": 3})
loading.facts_of = facts_of
sys.argv[0] = "forktrace"
cli.main()
"""


def test_a_kernel_that_may_preempt_probes(open_folder: Path, environment: Mapping[str, str]) -> None:
    """The ways of such a kernel, on this one: at trace events, and by copies of which one does the work; events come once."""
    path = open_folder / "preempted.arrows"
    line = [
        sys.executable,
        "-c",
        AS_WHERE_PROBES_ARE_PREEMPTED,
        "record",
        "-o",
        path,
        "--",
        sys.executable,
        WORKLOADS / "storm.py",
    ]
    done = subprocess.run(line, env=dict(environment) | {MARK: path.name}, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    recording = forktrace.read(path)
    table = recording.lifecycles()
    children = table[table["pid"] != said["pid"]]
    assert dict(zip(children["pid"], children["exit_code"], strict=True)) == dict(map(tuple, said["children"]))
    assert set(children["ppid"]) == {said["pid"]}
    assert children["fork_site"].notna().all()
    reaped = children.iloc[:-1]
    assert (reaped["reaper_pid"] == said["pid"]).all()
    assert reaped["reap_site"].notna().all()
    assert not sum(recording.lost().values())
    events = recording.events()
    assert (events["call"] == "wait4").sum() == len(reaped) + 1  # forktrace's own, of the target


RUN_EACH_TIME = """
import json
from forktrace.kernel import bpf, loading
found = loading.load(1 << 20).descriptors
print(json.dumps({name: bpf.times_not_run(found[name]) for name in found if name.startswith(loading.PROGRAM)}))
"""


def test_each_probe_is_run(environment: Mapping[str, str]) -> None:
    """The kernel says of each program how often it was not run; here that is never."""
    line = [sys.executable, "-c", RUN_EACH_TIME]  # apart: it mounts tracefs for itself
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    times = json.loads(done.stdout)
    assert len(times) >= 7
    assert set(times.values()) == {0}
