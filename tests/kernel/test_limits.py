"""Forks that fail, and memory that runs out."""

import errno
import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from recorded import DEBIAN, WORKLOADS, Recorded
from rich.console import Console

from forktrace.views.text.report import report
from forktrace.views.why.chain import chain

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("case", "count"), [("senseless", 3), ("nproc", 5), ("pids-max", 7)])
def test_failed_forks(suite: Recorded, case: str, count: int) -> None:
    """Each failed fork is recorded with its error, its caller and the limit that it met."""
    lines = suite.of(case, "limits", "failed")
    if not lines:
        pytest.skip("the pids controller of cgroups is not available")
    (line,) = lines
    failed = suite.recording.failed_forks()
    own = failed[failed["id"] == suite.id_of(line["pid"])]
    assert len(own) == line["failed"] == count
    assert own["errno"].tolist() == [line["errno"]] * count
    assert own["tid"].tolist() == [line["tid"]] * count
    limits = own["limit"].astype(object)
    assert limits.where(limits.notna(), None).tolist() == [line["limit"]] * count
    assert (suite.table["parent_id"] == suite.id_of(line["pid"])).sum() == line["made"]


def test_out_of_memory(suite: Recorded) -> None:
    """A process that the kernel chose when memory ran out was killed by that, and by nobody."""
    lines = suite.of("oom", "limits")
    if not lines:
        pytest.skip("the memory controller of cgroups is not available")
    assert lines[0]["term_signal"] == "SIGKILL"
    suite.assert_agrees(lines)


FULL = 20  # processes
MESSAGES = 30


@pytest.fixture(scope="module")
def full(record: Callable[..., Recorded], open_folder: Path) -> Recorded:
    """The recording of a consumer whose zombies fill the RLIMIT_NPROC of its user, who is no root."""
    if not shutil.which("setpriv"):
        pytest.skip("setpriv (util-linux) is not installed")
    uid = 60_000 + os.getpid() % 5000  # unused, and another for every run: RLIMIT_NPROC counts them all
    program = shutil.copy(WORKLOADS / "full.py", open_folder / "consumer.py")
    command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", DEBIAN, program, str(MESSAGES), str(FULL)]
    done = record(command)
    assert done.returncode == 0, done.stderr
    return done


def test_zombies_fill_a_limit(full: Recorded) -> None:
    """Each fork that the program says has failed is there, with the limit, the line, and all its zombies to blame."""
    said = dict(line.split() for line in full.stdout.splitlines())
    told = [message for message, answer in said.items() if answer == "EAGAIN"]
    failed = full.recording.failed_forks()
    assert len(failed) == len(told) == MESSAGES - (FULL - 1)
    assert set(failed["errno"]) == {errno.EAGAIN}
    assert set(failed["limit"]) == {"RLIMIT_NPROC"}
    assert set(failed["allowed"]) == {FULL}
    assert set(failed["zombies"]) == {FULL - 1}
    assert set(failed["site"].str.rpartition(":")[0]) == {"consumer.py"}
    assert set(failed["site"].str.rpartition(" ")[2]) == {"take"}
    assert said[str(MESSAGES)].isdigit()  # once they were reaped


def test_zombies_that_filled_a_limit_are_named(full: Recorded) -> None:
    """In the report, in why of the consumer and of each zombie; after its time nothing failed, so not of the last child."""
    file = io.StringIO()
    report(full.recording, Console(file=file, width=500))
    (consumer,) = full.table.loc[full.table["origin"] == "target", "pid"]
    failures, why = MESSAGES - (FULL - 1), f"EAGAIN (RLIMIT_NPROC of {FULL}) at consumer.py:"
    row = rf"^ *{failures}   EAGAIN \(RLIMIT_NPROC of {FULL}\)   consumer.py:\d+ take   {consumer} python3 .* {FULL - 1}$"
    assert re.search(row, file.getvalue(), re.MULTILINE)
    lines = [line.text for line in chain(full.recording, 0)]
    assert [line for line in lines if line.startswith(f"could not fork: {why}")]
    damage = [[line.text for line in chain(full.recording, one) if line.mark == "damage"] for one in full.table["id"][1:]]
    assert [len(one) for one in damage] == [1] * (FULL - 1) + [0]
    assert damage[0][0].startswith(f"meanwhile {failures} forks of {consumer} failed with {why}")
