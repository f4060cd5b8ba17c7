"""Scene fixes: what each way to treat children does to their zombies, and that `why` names only what was seen to help."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from recorded import DEBIAN, PATIENCE_S, Recorded

from forktrace.scenes import fixes, scene
from forktrace.views import explanations

pytestmark = pytest.mark.root

MESSAGES = len(fixes.ARRIVALS_S)
NO_FIX = ("nothing", "active-per-message", "double-fork")  # what the others are held against, and what does not help
WAYS = [fixes.name_of(way) for way in (*fixes.WAYS, *fixes.OTHERS)]
FIXES = [way for way in WAYS if way not in NO_FIX]

SPEED = 0.7  # leaves a slow machine more time to be late in
AT_ONCE = 0.25  # of the median zombie of `nothing`, 0.35 s: what a turn of the loop leaves is 0.02 s
# What made the children, and why they were reaped. Elsewhere multiprocessing made them.
MADE_BY = {"pool": "pool", "executor": "executor"}
MADE_BY |= dict.fromkeys(("popen-wait", "popen-with", "popen-poll", "subprocess-run", "popen-ignored"), "subprocess")
MADE_BY |= {"asyncio-wait": "asyncio"}
MADE_BY |= {way: "os-fork" for way in WAYS if way.startswith("fork-")}
MADE_BY |= dict.fromkeys(("double-fork", "parent-waits", "below-an-init", "adopter-waits"), "os-fork")
CAUSES = {
    "nothing": "next-start exit-handler",
    "active-per-message": "active-children exit-handler",
    "active-children": "active-children",
    "popen-poll": "poll",
    "pool": "pool",
    "executor": "executor",
    "asyncio-wait": "asyncio",
    "below-an-init": "parent-exit",
    "adopter-waits": "parent-exit",
    **dict.fromkeys(("join", "sentinel"), "join"),
    **dict.fromkeys(("sigchld-ignored", "popen-ignored", "fork-ignored"), "autoreap-ignored"),
    **dict.fromkeys(("sigchld-handler", "fork-handler"), "signal-handler"),
    **dict.fromkeys(("popen-wait", "popen-with", "subprocess-run"), "subprocess-wait"),
    **dict.fromkeys(("fork-wait", "fork-nohang", "fork-thread", "parent-waits"), "os-wait"),
}
NO_ZOMBIES = ("sigchld-ignored", "popen-ignored", "fork-ignored")
BLOCKING = ("join", "popen-wait", "popen-with", "subprocess-run", "fork-wait")
LOSING = ("nothing", "active-per-message", "double-fork", "below-an-init", "adopter-waits", *NO_ZOMBIES)
ORPHANING = ("double-fork", "below-an-init", "adopter-waits")


@pytest.fixture(scope="module")
def recorded(record: Callable[..., Recorded]) -> Recorded:
    """One recording of every way."""
    done = record([sys.executable, str(scene("fixes").program), "--all", "--speed", str(SPEED)], timeout_s=3 * PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def said(recorded: Recorded) -> dict[str, str]:
    """What each way printed."""
    lines = [line.split(maxsplit=1) for line in recorded.stdout.splitlines()]
    assert [way for way, _ in lines] == WAYS
    return dict(lines)


@pytest.fixture(scope="module")
def branches(recorded: Recorded) -> pd.DataFrame:
    """The table of branches by way."""
    table = recorded.recording.branches()
    ways = recorded.table.loc[table["id"], "argv"].str.split().str[-1]
    assert ways.tolist() == WAYS
    return table.set_index(ways.to_numpy())


@pytest.fixture(scope="module")
def children(recorded: Recorded, branches: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The processes that worked on messages, by way: in the order of their forks."""
    return {way: workers(recorded.table, int(ident), way) for way, ident in branches["id"].items()}


def workers(table: pd.DataFrame, way_id: int, way: str) -> pd.DataFrame:
    """The children of a way that worked on messages; of one who makes orphans those that its children made."""
    parents = [way_id]
    if way == "below-an-init":
        parents = table.loc[table["parent_id"].isin(parents), "id"].tolist()
    if way in ORPHANING:
        parents = table.loc[table["parent_id"].isin(parents) & (table["exit_code"] == 0), "id"].tolist()
    found = table[table["parent_id"].isin(parents)]
    return found if way in ("pool", "executor") else found[found["exit_code"].isin(range(1, MESSAGES + 1))].head(MESSAGES)


def overlap(rows: pd.DataFrame) -> bool:
    """Whether a child was started while another one ran."""
    return bool((rows["fork_ns"].iloc[1:].to_numpy() < rows["exit_ns"].cummax().iloc[:-1].to_numpy()).any())


def codes(line: str) -> int:
    """How many exit codes the consumer learned."""
    match = re.search(rf"(\d+) of {MESSAGES} codes", line)
    assert match, line
    return int(match[1])


@pytest.mark.parametrize("way", WAYS)
def test_every_message_has_a_child(children: dict[str, pd.DataFrame], way: str) -> None:
    """One child per message, which works and ends with the message's number; a pool and an executor have workers instead."""
    rows = children[way]
    assert set(rows["created_by"]) == {MADE_BY.get(way, "multiprocessing")}
    if way in ("pool", "executor"):
        assert len(rows) >= fixes.WORKERS
        return
    assert rows["exit_code"].tolist() == list(range(1, MESSAGES + 1))
    assert (rows["run_ms"] >= fixes.WORK_S / SPEED * 1000 - 1).all()


@pytest.mark.parametrize("way", CAUSES)
def test_who_reaped(children: dict[str, pd.DataFrame], way: str) -> None:
    """The recording names the very thing that the way is called after. A child that a busy machine keeps may miss it."""
    causes, rows = set(CAUSES[way].split()), children[way]
    assert causes <= set(rows["reap_cause"])
    assert rows["reap_cause"].isin(causes).sum() > len(rows) / 2


def test_nothing_leaves_zombies(children: dict[str, pd.DataFrame], branches: pd.DataFrame) -> None:
    """Singles stay until the next start, the burst until the program ends: all four of it are zombies at once."""
    rows = children["nothing"]
    swept = rows[rows["reap_cause"] == "next-start"]
    following = [rows.loc[rows["fork_ns"] > zombie_ns, "id"].iloc[0] for zombie_ns in swept["zombie_ns"]]
    assert swept["cleared_by_id"].tolist() == following
    assert (rows["reap_cause"].tail(4) == "exit-handler").all()
    assert branches.at["nothing", "most"] >= 4
    assert branches.at["nothing", "zombie_ms"] >= rows["zombie_ms"].sum() >= 500


def test_active_children_per_message_is_no_better(children: dict[str, pd.DataFrame], branches: pd.DataFrame) -> None:
    """Process.start() does the same at the same moments: the zombies are as many and as old as without it."""
    way = "active-per-message"
    assert (children[way]["reap_cause"].tail(4) == "exit-handler").all()
    assert branches.at[way, "most"] >= 4
    assert branches.at[way, "zombie_ms"] > branches.at["nothing", "zombie_ms"] / 2


@pytest.mark.parametrize("way", FIXES)
def test_fix_shortens_zombies(children: dict[str, pd.DataFrame], way: str) -> None:
    """Half of the zombies last a quarter, at most, of what they last without the fix; or there are none at all."""
    rows, before = children[way], children["nothing"]["zombie_ms"].median()
    if way in NO_ZOMBIES:
        assert rows["zombie_ms"].isna().all()
    else:
        assert rows["zombie_ms"].median() <= AT_ONCE * before


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("pool", "executor")])
def test_who_blocks(children: dict[str, pd.DataFrame], said: dict[str, str], way: str) -> None:
    """A way that blocks has one child at a time, and the last of the burst waits for the three before it. Others overlap."""
    assert overlap(children[way]) == (way not in BLOCKING)
    match = re.search(r"waited up to ([\d.]+) s", said[way])
    assert match, said[way]
    if way in BLOCKING:
        assert float(match[1]) >= 3 * fixes.WORK_S / SPEED - 0.005


@pytest.mark.parametrize("way", WAYS)
def test_who_learns_exit_codes(children: dict[str, pd.DataFrame], said: dict[str, str], way: str) -> None:
    """Where nobody waits for a child its exit code is lost. Elsewhere the consumer knows it, if it ended before the loop."""
    if way in LOSING:
        assert codes(said[way]) == 0
    elif way in ("pool", "executor", "asyncio-wait", "fork-thread", *BLOCKING):
        assert codes(said[way]) == MESSAGES
    else:
        late = children[way]["reap_cause"].isin(["exit-handler", "parent-exit"]) | children[way]["reap_ns"].isna()
        assert codes(said[way]) == MESSAGES - late.sum()


def test_what_else_it_costs(said: dict[str, str], recorded: Recorded, branches: pd.DataFrame) -> None:
    """With SIGCHLD ignored multiprocessing takes the dead for alive, and every start asks for all of them again."""
    assert f"{MESSAGES} of the dead are said to be alive; `exit 3` is said to return 0" in said["sigchld-ignored"]
    assert "return codes are said to be ['0']" in said["popen-ignored"]
    assert "the result of a worker that died never comes" in said["pool"]
    assert "a worker that died broke it" in said["executor"]
    assert "its own child returned 3" in said["adopter-waits"]
    interrupted = re.search(r"interrupted (\d+) times", said["sigchld-handler"])
    assert interrupted
    assert 1 <= int(interrupted[1]) <= MESSAGES
    waits = recorded.recording.waits()
    mine = waits[(waits["id"] == branches.at["sigchld-ignored", "id"]) & waits["site"].str.endswith(" start")]
    assert mine["no_child"].sum() >= 3 + 2 + 1  # the singles, at the next starts: the burst may come before they have ended


def test_orphans_belong_to_who_inherits_them(
    recorded: Recorded, children: dict[str, pd.DataFrame], branches: pd.DataFrame
) -> None:
    """A double fork does not reap: the adopter of the orphans does, an init, or the consumer as a subreaper."""
    ids = branches["id"]
    for way in ORPHANING:
        assert children[way]["adopter_pid"].notna().all()
        between = recorded.table.loc[children[way]["parent_id"]]
        assert (between["reaper_id"] == between["parent_id"]).all()
    assert children["double-fork"]["adopter_id"].isna().all()
    assert set(children["below-an-init"]["reaper_id"]) == {ids["below-an-init"]}
    assert set(children["adopter-waits"]["reaper_id"]) == {ids["adopter-waits"]}


def proofs(remedy: str) -> list[str]:
    """The ways that are the proof of a remedy."""
    return [way for way in explanations.texts()["remedy"][remedy]["proof"] if way != "stolen"]


REMEDIES = [name for name in explanations.texts()["remedy"] if proofs(name)]


def test_why_names_what_the_scene_proves() -> None:
    """Every remedy is a way of the scene (or of scene stolen), and every way but those that do not help is a remedy."""
    assert {way for remedy in REMEDIES for way in proofs(remedy)} == set(FIXES)


@pytest.mark.parametrize("remedy", REMEDIES)
def test_what_why_says_of_a_fix(children: dict[str, pd.DataFrame], said: dict[str, str], remedy: str) -> None:
    """The cost that `why` names is the one that was seen."""
    cost, ways = explanations.texts()["remedy"][remedy]["cost"], proofs(remedy)
    if cost.startswith("blocks until it ends"):
        assert not overlap(children[ways[0]])
    if "does not block" in cost:
        assert all(overlap(children[way]) for way in ways)
    if "no zombies" in cost:
        assert all(children[way]["zombie_ms"].isna().all() for way in ways)
    if remedy != "adopter-waits":  # which leaves them to who is not there any more
        assert ("lost" in cost) == all(codes(said[way]) == 0 for way in ways)
    if "a zombie until the next call" in cost:
        assert children[ways[-1]]["empty_waits"].sum() > 0


ALIKE = {"posix-spawn": "os-fork", "native": "os-fork", "unknown": "os-fork", "orphan": "os-fork"}  # a number to wait for


@pytest.mark.parametrize("creator", explanations.texts()["creator"])
def test_a_fix_is_proven_for_what_made_the_child(children: dict[str, pd.DataFrame], creator: str) -> None:
    """What `why` names for children of a library was seen to help children of that library, or to take its place."""
    instead = {"mp-pool": "pool", "executor": "executor"}
    for remedy in explanations.texts()["creator"][creator]["fix"]:
        made: set[Any] = {made for way in proofs(remedy) for made in children[way]["created_by"]}
        assert instead.get(remedy, ALIKE.get(creator, creator)) in made, remedy


def test_it_runs_alone_on_another_python(record: Callable[..., Recorded]) -> None:
    """One way by its name, faster, under Debian's Python."""
    done = record([DEBIAN, str(scene("fixes").program), "--speed", "3", "join"])
    assert done.stdout.startswith("join  ")
    assert codes(done.stdout) == MESSAGES
