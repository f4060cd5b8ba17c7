"""Why each child was reaped, and what made it: the real libraries, in every way that they have, under several versions."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable

import pytest
from recorded import WORKLOADS, Line, Recorded, free_threaded, interpreters

pytestmark = pytest.mark.root

FULL = (
    "os",
    "subprocess",
    "multiprocessing fork",
    "multiprocessing spawn",
    "multiprocessing forkserver",
    "executor",
    "asyncio",
)
EARLY = ("os", "subprocess", "multiprocessing fork")


def chosen() -> dict[str, str]:
    """Of each of these versions one interpreter: `3.11.7` of pyenv, and Debian's; and the free-threaded ones."""
    found = interpreters()
    wanted = ("2.7.", "3.6.", "3.8.", "3.11.", "3.13.", "debian")
    names = [next((name for name in found if name.startswith(start)), None) for start in wanted]
    return {name: found[name] for name in names if name} | free_threaded()


PYTHONS = chosen()
NEW = [name for name in PYTHONS if not name.startswith(("2.7", "3.6"))]
PAIRS = [(name, library) for name in PYTHONS for library in (FULL if name in NEW else EARLY)]


@pytest.fixture(scope="session")
def libraries(record: Callable[..., Recorded]) -> Recorded:
    """One recording of the causes_*.py and of stolen.py under these interpreters."""
    programs = []
    for name, library in PAIRS:
        program, *arguments = library.split()
        command = [PYTHONS[name], "-B", str(WORKLOADS / f"causes_{program}.py"), *arguments]
        programs.append(f"{name}/{library}={shlex.join(command)}")
    programs += [f"{name}/stolen={shlex.join([PYTHONS[name], '-B', str(WORKLOADS / 'stolen.py')])}" for name in NEW]
    recorded = record([sys.executable, str(WORKLOADS / "driver.py"), *programs], timeout_s=300)
    failed = [line["program"] for line in recorded.of("program") if line["status"] != 0]
    assert not failed, f"these failed: {failed}:\n{recorded.stderr[-4000:]}"
    return recorded


def lines_of(recorded: Recorded, program: str, what: str | None = None) -> list[Line]:
    """The witness lines of a program; without `what` those that are rows of the lifecycle table."""
    found = [line for line in recorded.lines if line.get("program") == program and line["case"] != "program"]
    return [line for line in found if line.get("what") == what]


@pytest.mark.parametrize(("name", "library"), PAIRS)
def test_causes(libraries: Recorded, name: str, library: str) -> None:
    """What made each child and why it was reaped is what the program did."""
    lines = lines_of(libraries, f"{name}/{library}")
    assert len(lines) >= 5
    libraries.assert_agrees(lines)


@pytest.mark.parametrize(("name", "library"), [pair for pair in PAIRS if pair[1] == "subprocess"])
def test_a_program_that_is_not_there(libraries: Recorded, name: str, library: str) -> None:
    """The child that could not execute its program was reaped by the constructor."""
    (line,) = lines_of(libraries, f"{name}/{library}", "parent")
    table = libraries.table
    rows = table[(table["parent_id"] == libraries.id_of(line["pid"])) & table["exit_code"].isin(line["exit_codes"])]
    for column in ("created_by", "reap_cause"):
        assert rows[column].tolist() == [line[column]], column


@pytest.mark.parametrize("name", PYTHONS)
def test_every_child_has_a_cause(libraries: Recorded, name: str) -> None:
    """Nothing that these libraries make or reap is unknown."""
    pids = {line["pid"] for line in libraries.lines if str(line.get("program")).startswith(f"{name}/") and "pid" in line}
    known = libraries.table[libraries.table["pid"].isin(pids)]
    assert set(known["created_by"]).isdisjoint({"unknown"})
    assert set(known["reap_cause"]).isdisjoint({"unknown"})


@pytest.mark.parametrize("name", NEW)
def test_stolen(libraries: Recorded, name: str) -> None:
    """The thief's line, its thread and the line where the owner asked in vain are named, and nobody is accused wrongly."""
    program = f"{name}/stolen"
    witnessed = {line["pid"]: line for line in lines_of(libraries, program, "stolen")}
    assert len(witnessed) >= 8
    kept = {line["pid"] for line in lines_of(libraries, program, "kept")}
    assert len(kept) >= 6
    table = libraries.recording.stolen()
    table = table.assign(pid=libraries.table.set_index("id").loc[table["id"], "pid"].to_numpy())
    assert set(table["pid"]).isdisjoint(kept)
    found = {int(row.pid): row for row in table.itertuples() if row.pid in witnessed}
    assert found.keys() == witnessed.keys(), [line["case"] for pid, line in witnessed.items() if pid not in found]
    for pid, line in witnessed.items():
        row = found[pid]
        assert (row.created_by, row.thief_tid) == (line["created_by"], line["thief_tid"]), line["case"]
        assert row.thief_site.endswith(line["thief_site"]), line["case"]
        assert row.owner_site.endswith(line["owner_site"]), line["case"]
        assert row.seen == line["seen"], line["case"]


def test_nothing_else_is_stolen(libraries: Recorded) -> None:
    """No library that minds its own children is taken for a thief."""
    ids = libraries.recording.stolen()["id"]
    pids = set(libraries.table.set_index("id").loc[ids, "pid"])
    assert pids <= {line["pid"] for line in libraries.lines if line.get("what") == "stolen"}


@pytest.mark.parametrize(
    ("program", "case", "cause"),
    [
        ("calls", "fork", "other-native"),
        ("endings", "codes", "other-native"),
        ("endings", "ignored", "autoreap-ignored"),
        ("endings", "nocldwait", "autoreap-nocldwait"),
        ("families", "subreaper", "parent-exit"),
        ("families", "handed-over", "parent-exit"),
        ("families", "handed-to-ignorer", "autoreap-ignored"),
        ("families", "orphans", "parent-exit"),
    ],
)
def test_causes_without_python(suite: Recorded, program: str, case: str, cause: str) -> None:
    """The children of C programs are native; what the kernel or an adopter released says so."""
    lines = suite.of(case, program)
    assert lines
    for line in lines:
        row = suite.row(line["pid"], line.get("starttime"))
        assert (row["created_by"], row["reap_cause"]) == ("native", cause)
