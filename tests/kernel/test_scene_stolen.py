"""Scene stolen: what the owner of a stolen exit status was told is what the recording says that it saw."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import pytest
from recorded import DEBIAN, Recorded

from forktrace.scenes import scene
from forktrace.views import explanations
from forktrace.views.text.report import headline
from forktrace.views.why.chain import chain

pytestmark = pytest.mark.root

SAID = re.compile(r"(.+?) {2,}(\d+) exited 3, its owner is told (.+)")
# What the scene prints of a theft, who owns the child, and the functions of the thief and the owner.
THEFTS = {
    "os.wait and join": ("multiprocessing", "os_wait_and_join", "os_wait_and_join"),
    "handler and Popen": ("subprocess", "take_any", "handler_and_popen"),
    "Workers and Job": ("os-fork", "collect", "result"),
}
MENDED = {
    "os.waitpid(own) and join": "own-children",
    "handler for its own and Popen": "own-children",
    "Workers by number and Job": "own-children",
    "no handler and Popen": "leave-it",
}


@pytest.fixture(scope="module", params=[sys.executable, DEBIAN], ids=["this", "debian"])
def recorded(request: pytest.FixtureRequest, record: Callable[..., Recorded]) -> Recorded:
    """One recording of the scene, slowly: a busy machine must not change who ends first."""
    done = record([request.param, str(scene("stolen").program), "--speed", "0.5"], quiet=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def said(recorded: Recorded) -> dict[str, tuple[int, str]]:
    """What the scene printed: the child, and what its owner was told."""
    lines = [SAID.fullmatch(line) for line in recorded.stdout.splitlines()]
    found = {line[1]: (int(line[2]), line[3]) for line in lines if line}
    assert found.keys() == {*THEFTS, *MENDED}
    return found


@pytest.mark.parametrize("theft", THEFTS)
def test_the_owner_is_told_what_the_recording_says(recorded: Recorded, said: dict[str, tuple[int, str]], theft: str) -> None:
    """Thief, owner and what the owner got: the table and the scene agree, and the child had really ended with 3."""
    pid, told = said[theft]
    creator, thief, owner = THEFTS[theft]
    child = recorded.row(pid)
    table = recorded.recording.stolen()
    (row,) = table[table["id"] == child["id"]].itertuples()
    assert row.seen == told
    assert row.created_by == creator
    assert row.thief_site.endswith(f" {thief}")
    assert row.owner_site.endswith(f" {owner}")
    assert child["exit_code"] == 3
    assert child["reap_ns"] == row.time_ns


def test_nothing_else_is_stolen(recorded: Recorded, said: dict[str, tuple[int, str]]) -> None:
    """Three thefts, no more: where the thief is mended the owner is told 3."""
    assert len(recorded.recording.stolen()) == len(THEFTS)
    for mended in MENDED:
        assert said[mended][1].endswith(" 3"), mended


def test_a_theft_is_told_first(recorded: Recorded) -> None:
    """A stolen exit status matters more than how long a zombie was there; no more are said than the table has."""
    assert "forktrace: 3 exit statuses stolen: a wait for any child came first\n" in recorded.stderr
    assert "was a zombie" not in recorded.stderr
    assert headline(recorded.recording).plain.startswith("3 exit statuses were stolen; ")


def test_why_names_the_fixes_that_were_tried(recorded: Recorded, said: dict[str, tuple[int, str]]) -> None:
    """What `why` proposes for a theft are the two ways in which the scene is mended."""
    remedies = explanations.texts()["remedy"]
    assert {name for name, one in remedies.items() if "stolen" in one["proof"]} == set(MENDED.values())
    for theft in THEFTS:
        lines = [line.text for line in chain(recorded.recording, recorded.id_of(said[theft][0]))]
        assert lines[-2:] == [f"- {explanations.remedy(name)}" for name in ("own-children", "leave-it")]
