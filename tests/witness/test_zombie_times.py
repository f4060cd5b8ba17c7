"""zombie_ms against a witness with clocks of its own on both sides, and /proc. `zombie_times.py` prints how far it is off."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest
from recorded import Recorded
from watched import Watcher
from zombie_times import STORMS, Witnessed, compare, witnessed

pytestmark = pytest.mark.root

CHILDREN = 60


@pytest.fixture(scope="module", params=[0, STORMS], ids=["idle", "storm"])
def seen(
    request: pytest.FixtureRequest, record: Callable[..., Recorded], tmp_path_factory: pytest.TempPathFactory
) -> Witnessed:
    """A recording of ends.c, alone or while others fork as fast as they can."""
    return witnessed(Watcher(record, tmp_path_factory.mktemp("zombies")), CHILDREN, request.param)


def test_zombie_times(seen: Witnessed) -> None:
    """Each zombie begins and ends between the clocks that the witness took around it, and where /proc showed it.

    The bounds are what happened before and after, so they are wide on a busy machine, and never too narrow.
    """
    found = compare(seen)
    assert not found.differences, "\n".join([str(found), *found.differences])
    assert found.compared["zombie_ms"] == CHILDREN
    assert found.compared["zombie when seen as one"] > CHILDREN / 10


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        ("zombie_ns", lambda table: table["exit_ns"]),  # it is not a zombie while the kernel takes its memory back
        ("zombie_ns", lambda table: table["zombie_ns"] - 3_000_000),
        ("reap_ns", lambda table: table["reap_ns"] + 5_000_000),  # when its task is freed
        ("reap_ns", lambda table: table["zombie_ns"]),
    ],
    ids=["from the exit", "3 ms early", "5 ms late", "at once"],
)
def test_a_wrong_time_is_found(seen: Witnessed, column: str, wrong: Callable[[pd.DataFrame], pd.Series]) -> None:
    """The comparison has teeth: with another time in the table it finds differences."""
    forged = seen.table.assign(**{column: wrong(seen.table)})
    forged["zombie_ms"] = (forged["reap_ns"] - forged["zombie_ns"]).astype("float64") / 1e6
    assert compare(seen._replace(table=forged)).differences
