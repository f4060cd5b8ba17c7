"""The kernels, processors and Pythons of other machines: each is booted in QEMU, and tests of tests/kernel are run there.

A case is one test function on one kernel: it holds if all that it is parametrized with held there. Each machine boots once, two
at a time; what it printed is in .cache/kernels/log. With --kernels the tests of CHOSEN are run on each of KERNELS, but those of
SMOKE and a CROWD on each of FLAVOURS and on BETWEEN; with --kernels=smoke those of SMOKE on BOOTED_FOR_SMOKE. KERNELS in the
environment names some of them.
"""

from __future__ import annotations

import ast
import json
import math
import os
import time
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from image import CACHE, PROJECT, PYTHON, Kernel
from machine import BEING_MADE, Done, compiled, run
from recorded import BUILT, TESTED_PYTHONS, WORKLOADS, compiler_options

KERNELS = (
    *(Kernel(series) for series in ("5.10", "6.1", "6.12", "newest")),
    *(Kernel(series, "arm64") for series in ("6.1", "6.12", "newest")),
)
FLAVOURS = (Kernel("6.12", flavour="rt"), Kernel("6.1", flavour="generic"))
BETWEEN = KERNELS[5]  # on the other processor it has all tests, and on this one an older and a newer kernel have
BOOTED_FOR_SMOKE = (KERNELS[5], KERNELS[3], *KERNELS[:3])  # the slowest first, and the newest
EVERY_PYTHON = KERNELS[2]  # on the others programs run under Debian's and one more
PYTHONS = "debian 3.15"
SMOKE_PYTHON = "debian"
NO_REPORT = b"<none/>"
MACHINES_AT_ONCE = 2
SECONDS = 3000  # of one machine
SMOKE_SECONDS = 720  # of all machines, with what is fetched for them
# Where the kernel preempts probes (7.2), a probe on an emulated processor takes so long that one of another task may find it
# running and be skipped, which is counted as lost. So the smoke set is recorded once more where anything failed. What failed
# the first time alone is said in a warning.
ONCE_MORE = "{run} || {{ mv /host/out/report.xml /host/out/first.xml; {run}; }}"

# Files of tests/kernel, or single tests in them. What only the tables decide (test_libraries.py: whose line, and why) no kernel
# changes; how long a page is away (test_memory_that_is_away) is the emulator's time, not the kernel's.
# All of SMOKE but the last two are of one recording.
SMOKE = (
    *("test_endings.py", "test_threads.py", "test_calls.py", "test_wait_calls.py", "test_families.py"),
    *("test_limits.py::test_failed_forks", "test_limits.py::test_out_of_memory"),
    "test_privileges.py::test_the_recorder_is_the_person",
    "test_loading.py::test_the_verifier_has_little_to_do",
)
CROWD = "test_crowds.py::test_each_stack_is_that_of_its_forker"
STACKS = (
    *("stacks", "too_deep", "recycled_code", "no_stack", "waits_in_vain_are_counted", "exit_path", "runtimes", "places"),
    *("every_stack_of_a_python_program", "new_in_the_middle", "an_interpreter_that_is_not_walked"),
)
CHOSEN = (
    *(*SMOKE, CROWD, "test_crowds.py::test_threads_that_end_together", "test_loading.py::test_each_kind_of_kernel"),
    *("test_limits.py::test_zombies_fill_a_limit", "test_limits.py::test_zombies_that_filled_a_limit_are_named"),
    *("test_namespaces.py", "test_fork_servers.py", "test_attach.py", "test_forgers.py"),
    *(f"test_python_stacks.py::test_{one}" for one in STACKS),
    *("test_unseen_releases.py", "test_scene_start.py", "test_scene_pid1.py", "test_demo.py::test_one_child_per_message"),
    *(f"test_privileges.py::test_{one}" for one in ("under_sudo", "attach_without_root", "exactly_these_capabilities")),
    *(f"test_why_now.py::test_{one}" for one in ("a_consumer_that_goes_on", "a_join_of_another_child")),
    "test_why_now.py::test_a_parent_that_is_not_python",
)


def chosen_for(kernel: Kernel, *, smoke: bool) -> Sequence[str]:
    """Return what is run on a kernel."""
    if smoke:
        return SMOKE
    return (*SMOKE, CROWD) if kernel in (*FLAVOURS, BETWEEN) else CHOSEN


def functions(chosen: Sequence[str]) -> Iterator[str]:
    """Yield the tests that are chosen, as `file::function`."""
    for one in chosen:
        file, _, function = one.partition("::")
        tree = ast.parse((PROJECT / "tests/kernel" / file).read_text())
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        yield from (f"{file}::{name}" for name in names if function in ("", name))


@dataclass(frozen=True)
class Outcome:
    """What came of one case of a test."""

    name: str
    state: str  # passed, failed, skipped
    text: str


class Machines:
    """The machines, each booted once."""

    def __init__(self, *, smoke: bool) -> None:
        self._smoke = smoke
        self._until = time.monotonic() + SMOKE_SECONDS if smoke else math.inf
        self._pool = ThreadPoolExecutor(MACHINES_AT_ONCE)
        self._booted: dict[Kernel, Future[Done]] = {}

    def boot(self, kernels: Sequence[Kernel]) -> None:
        """Begin with these, in this order."""
        for kernel in kernels:
            self._booted.setdefault(kernel, self._pool.submit(self._run, kernel))

    def _run(self, kernel: Kernel) -> Done:
        with BEING_MADE[kernel.architecture]:
            programs = workloads(kernel.architecture)
        tests = " ".join(f"tests/kernel/{one}" for one in chosen_for(kernel, smoke=self._smoke))
        pytest_line = f"{PYTHON} -m pytest -p no:cacheprovider -q --junitxml=/host/out/report.xml {tests}"
        pythons = SMOKE_PYTHON if self._smoke else "" if kernel == EVERY_PYTHON else PYTHONS
        script = f"export CI=1 {BUILT}=/host/programs {TESTED_PYTHONS}='{pythons}'\n"
        if not self._smoke:
            script += f"{PYTHON} tests/kernels/loading.py >/host/out/loading.json\n"
        script += f"{ONCE_MORE.format(run=pytest_line) if self._smoke else pytest_line}\n"
        seconds = min(SECONDS, self._until - time.monotonic())
        done = run(kernel, script, seconds=seconds, programs=programs)
        log = CACHE / "log"
        log.mkdir(exist_ok=True)
        (log / f"{kernel}.txt").write_text(f"{done.release}, {done.seconds:.0f} s\n{done.console}")
        (log / f"{kernel}.xml").write_bytes(done.out.get("report.xml", b""))
        return done

    def table(self) -> Iterator[str]:
        """Yield the lines of a table in Markdown with what came of each machine, for docs/limits.md."""
        yield "| kernel | processor | largest program | all programs | s to load | tests passed | min |"
        yield "|---|---|---|---|---|---|---|"
        for kernel, machine in self._booted.items():
            if not machine.done() or machine.exception():
                continue
            done = machine.result()
            loading = json.loads(done.out.get("loading.json") or b"{}")
            verified = loading.get("verified", {"?": 0})
            largest = max(verified, key=verified.__getitem__)
            states = Counter(one.state for one in _outcomes(done.out.get("report.xml", NO_REPORT)))
            held = f"{states['passed']} of {states['passed'] + states['failed']}"
            yield (
                f"| {done.release} | {kernel.architecture} | {largest}, {verified[largest]:,} | {sum(verified.values()):,} "
                f"| {loading.get('seconds', 0):.2f} | {held} | {done.seconds / 60:.0f} |"
            )

    def outcomes(self, kernel: Kernel, test: str) -> list[Outcome]:
        """Return what came of a test on a kernel, case by case; warn of what failed at first."""
        done = self._booted[kernel].result()
        limit = f"; all machines have {SMOKE_SECONDS} s together" if self._smoke else ""
        assert "report.xml" in done.out, (
            f"{done.release} did not get through its tests in {done.seconds:.0f} s{limit}:\n{done.console[-3000:]}"
        )
        for one in _of(test, done.out.get("first.xml", NO_REPORT)):
            if one.state == "failed":
                warnings.warn(f"{kernel}: failed, and was run once more: {one.name}: {one.text}", stacklevel=2)
        return _of(test, done.out["report.xml"])


@cache
def workloads(architecture: str) -> dict[str, Path]:
    """Compile the workloads in C for a processor."""
    return compiled(architecture, {path.stem: (path, compiler_options(path.stem)) for path in WORKLOADS.glob("*.c")})


def _of(test: str, report: bytes) -> list[Outcome]:
    """The cases of a test."""
    file, _, function = test.partition("::")
    name = f"tests.kernel.{file.removesuffix('.py')}.{function}"
    return [one for one in _outcomes(report) if one.name.partition("[")[0] == name]


@cache
def _outcomes(report: bytes) -> tuple[Outcome, ...]:
    return tuple(map(_outcome, ElementTree.fromstring(report).iter("testcase")))


def _outcome(case: ElementTree.Element) -> Outcome:
    name = f"{case.get('classname')}.{case.get('name')}"
    said = {child.tag: f"{child.get('message')}\n{child.text}" for child in case}
    bad = said.get("failure") or said.get("error")
    state = "failed" if bad else "skipped" if "skipped" in said else "passed"
    return Outcome(name, state, bad or said.get("skipped", ""))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a case of each test on each kernel."""
    asked = metafunc.config.getoption("--kernels")
    if asked is None:
        metafunc.parametrize(("kernel", "test"), [(None, None)], ids=["not-asked-for"])
        return
    smoke = asked == "smoke"
    kernels = BOOTED_FOR_SMOKE if smoke else KERNELS + FLAVOURS
    if only := os.environ.get("KERNELS"):
        kernels = tuple(kernel for kernel in KERNELS + FLAVOURS if str(kernel) in only.split())
    cases = [(kernel, test) for kernel in kernels for test in functions(chosen_for(kernel, smoke=smoke))]
    metafunc.parametrize(("kernel", "test"), cases, ids=[f"{kernel}-{test}" for kernel, test in cases])


@pytest.fixture(scope="session")
def machines(request: pytest.FixtureRequest) -> Iterator[Machines]:
    """The machines, all of them on their way; what came of the whole set is in .cache/kernels/log/table.md."""
    made = Machines(smoke=request.config.getoption("--kernels") == "smoke")
    cases = [item.callspec.params for item in request.session.items if item.get_closest_marker("kernels")]
    made.boot(list(dict.fromkeys(case["kernel"] for case in cases)))
    yield made
    if request.config.getoption("--kernels") == "all":
        (CACHE / "log" / "table.md").write_text("\n".join(made.table()) + "\n")


@pytest.mark.kernels
def test_on(machines: Machines, kernel: Kernel, test: str) -> None:
    """All cases of the test held on that kernel, and there was one."""
    found = machines.outcomes(kernel, test)
    failed = [f"{one.name}: {one.text}" for one in found if one.state == "failed"]
    assert not failed, f"{len(failed)} of {len(found)}:\n" + "\n".join(failed)
    if found and all(one.state == "skipped" for one in found):
        pytest.skip(found[0].text.partition("\n")[0])
    assert found, "it was not run there"
