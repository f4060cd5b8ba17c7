"""PID namespaces: two numbers for a process, and what the death of an init does."""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from recorded import PATIENCE_S, Recorded, forktrace_command, wait_until

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("case", "count", "inits"), [("unshare", 3, 1), ("nested", 2, 2)])
def test_numbers(suite: Recorded, case: str, count: int, inits: int) -> None:
    """`pid` is the number outside, `ns_pid` the one that the process sees; parents and reapers have outer numbers."""
    lines, first = suite.of(case, "namespaces"), suite.of(case, "namespaces", "init")
    assert (len(lines), len(first)) == (count, inits)
    suite.assert_agrees([*lines, *first])


def test_death_of_init_kills(suite: Recorded) -> None:
    """The live children of a namespace's init are killed with it: by the namespace, and released by the kernel."""
    suite.assert_agrees(suite.of("pidns-death", "namespaces", "init"))
    lines = suite.of("pidns-death", "namespaces", "killed")
    assert len(lines) == 2
    suite.assert_agrees(lines)
    for line in lines:
        assert suite.row(line["pid"])["reap_call"] in ("kernel", "autoreap")


def test_death_of_init_releases_zombies(suite: Recorded) -> None:
    """The zombies of a namespace's init are released by the kernel, at its death."""
    lines = suite.of("pidns-death", "namespaces", "zombie")
    assert len(lines) == 3
    suite.assert_agrees(lines)


def test_adopted_orphans(workload: Callable[[str], str], open_folder: Path, environment: Mapping[str, str]) -> None:
    """Orphans of processes that were not followed, inherited by a followed init, are followed from then on."""
    if not shutil.which("nsenter") or not shutil.which("unshare"):
        pytest.skip("unshare and nsenter (util-linux) are not installed")
    program, path = workload("adopter"), open_folder / "adopted.arrows"
    command = ["unshare", "--pid", "--fork", program, "init"]
    line = forktrace_command("record", "-q", "-o", str(path), "--", *command)
    with (
        (open_folder / "adopted.out").open("w+") as out,
        subprocess.Popen(line, env=dict(environment), stdout=out, stderr=subprocess.PIPE, text=True) as recorder,
    ):
        try:
            wait_until(lambda: Path(out.name).read_text().count("\n") == 1, "the namespace's init")
            init = Recorded(path, 0, Path(out.name).read_text(), "").of("adopted", what="init")[0]
            visit = ["nsenter", "-t", str(init["pid"]), "-p", program, "visit"]
            orphans = subprocess.run(visit, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=True).stdout
            _, errors = recorder.communicate(timeout=PATIENCE_S)
        finally:
            recorder.kill()
    recorded = Recorded(path, recorder.returncode, Path(out.name).read_text() + orphans, errors)
    assert recorder.returncode == 0, errors
    recorded.assert_balanced()
    recorded.assert_whole()
    lines = recorded.of("adopted", what="orphan")
    assert len(lines) == 2
    reaped = {line["ns_pid"]: line for line in recorded.of("adopted", what="reaped")}
    recorded.assert_agrees([line | reaped[line["ns_pid"]] | {"complete": None, "what": None} for line in lines])
    assert sorted(recorded.table["origin"]) == ["adopted"] * 2 + ["forked", "target"]
