"""Forks that fail, and memory that runs out."""

import pytest
from recorded import Recorded

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
