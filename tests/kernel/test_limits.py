"""Forks that fail."""

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
    assert [None if value is None or value != value else str(value) for value in own["limit"].tolist()] == [
        line["limit"]
    ] * count
    assert (suite.table["parent_id"] == suite.id_of(line["pid"])).sum() == line["made"]
