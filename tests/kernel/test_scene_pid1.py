"""Scene pid1: who inherits orphans, who reaps them, and that only who does not is found."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from recorded import DEBIAN, Recorded

from forktrace.scenes import pid1, scene
from forktrace.views import explanations
from forktrace.views.why.chain import chain

pytestmark = pytest.mark.root

FOUND = "adopter-not-init"
SPEED = 0.8  # a loaded machine has a little more time between two turns


def may_unshare() -> bool:
    """Whether root may make a PID namespace here."""
    return subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def recorded(record: Callable[..., Recorded]) -> Recorded:
    """One recording of the three ways."""
    if not may_unshare():
        pytest.skip("root may not make a PID namespace here")
    done = record([sys.executable, str(scene("pid1").program), "--speed", str(SPEED)])
    assert done.returncode == 0, done.stderr
    return done


def said(recorded: Recorded, way: str) -> str:
    """What a way printed."""
    return "\n".join(line[6:] for line in recorded.stdout.splitlines() if line.split()[0] == way)


def of_way(recorded: Recorded, way: str) -> tuple[pd.Series, pd.DataFrame]:
    """The process that is PID 1 in a way, and the orphans that it inherited."""
    table, orphans = recorded.table, recorded.recording.orphans()
    inits = table[(table["ns_pid"] == 1) & table["argv"].str.endswith(f" {way}")]
    assert len(inits) == 1
    return inits.iloc[0], orphans[orphans["adopter_id"] == inits.iloc[0]["id"]]


@pytest.mark.parametrize("way", pid1.WAYS)
def test_every_request_leaves_an_orphan(recorded: Recorded, way: str) -> None:
    """PID 1 inherits each, whether a shell leaves it in the background or a double fork makes it."""
    init, orphans = of_way(recorded, way)
    assert len(orphans) == pid1.TURNS
    made = recorded.table.loc[orphans["id"]]
    assert made["adopter_pid"].tolist() == [init["pid"]] * pid1.TURNS
    assert made["comm"].tolist()[::2] == ["sleep"] * (pid1.TURNS // 2)
    assert made["created_by"].tolist()[1::2] == ["os-fork"] * (pid1.TURNS // 2)
    between = recorded.table.loc[made["parent_id"]]
    assert (between["reaper_id"] == between["parent_id"]).all()  # the service waited for all that it had started
    assert f"the service is PID {2 if way == 'init' else 1}" in said(recorded, way)


def test_alone_reaps_none(recorded: Recorded) -> None:
    """The zombies that the scene counts stay until the namespace ends; all are found."""
    init, orphans = of_way(recorded, "alone")
    assert said(recorded, "alone").endswith(f"{pid1.TURNS} requests, {pid1.TURNS} zombies")
    assert (orphans["outcome"] == "left").all()
    assert (orphans["finding"] == FOUND).all()
    assert (recorded.table.loc[orphans["id"], "reap_cause"] == "pidns-exit").all()
    assert orphans["zombie_ms"].max() > 3 * pid1.TURN_S / SPEED * 1000
    assert init["state"] == "gone"


@pytest.mark.parametrize("way", ["loop", "init"])
def test_mended(recorded: Recorded, way: str) -> None:
    """A loop that waits reaps them in its next turn, an init at once: nothing is found."""
    init, orphans = of_way(recorded, way)
    assert said(recorded, way).endswith(f"{pid1.TURNS} requests, 0 zombies")
    assert (orphans["outcome"] == "reaped").all()
    assert orphans["finding"].isna().all()
    rows = recorded.table.loc[orphans["id"]]
    assert (rows["reaper_id"] == init["id"]).all()
    assert set(rows["reap_site"].str.rpartition(" ")[2]) == {"rest" if way == "loop" else "run_below_init"}
    if way == "init":
        assert orphans["zombie_ms"].median() < pid1.TURN_S / SPEED * 1000 / 4


def test_why_and_report_name_the_fixes(recorded: Recorded) -> None:
    """The finding with PID 1 in it, the two fixes that the scene shows, and the warning."""
    init, orphans = of_way(recorded, "alone")
    lines = [f"{line.mark} {line.text}".strip() for line in chain(recorded.recording, int(orphans["id"].iloc[0]))]
    about = f"{init['pid']} {init['comm']}, PID 1 of its namespace, inherited {pid1.TURNS} orphans and reaped none: "
    assert [line for line in lines if line.startswith(f"finding {about}{pid1.TURNS} zombies, the longest for ")]
    words = {"start": "", "reaper": "", "it": "", "parent": "", "adopter": str(init["pid"])}
    for remedy in ("init", "adopter-waits"):
        assert f"- {explanations.remedy(remedy, **words)}" in lines
    assert lines[-1].startswith("beware a double fork makes it worse")


def test_an_ordinary_user_has_a_namespace_too(record: Callable[..., Recorded], open_folder: Path) -> None:
    """With a user namespace around it, under Debian's Python; where users may have none, it is a subreaper."""
    program = shutil.copy(scene("pid1").program, open_folder)
    done = record([DEBIAN, program, "--speed", "2", "alone"], "--user", "nobody")
    assert done.returncode == 0, done.stderr
    found = done.recording.orphans()
    found = found[found["finding"].notna()]
    assert len(found) == pid1.TURNS == int(re.findall(r"(\d+) zombies", done.stdout)[0])
    is_pid1 = bool((done.table.loc[found["adopter_id"], "ns_pid"] == 1).all())
    assert is_pid1 == ("a subreaper instead" not in done.stdout)


def test_a_subreaper_is_found_too(record: Callable[..., Recorded]) -> None:
    """Without a PID namespace: what it leaves is a zombie until it ends, and then a child of the next that inherits."""
    if not shutil.which("setpriv"):
        pytest.skip("setpriv (util-linux) is not installed")
    command = ["setpriv", "--bounding-set=-sys_admin", sys.executable, str(scene("pid1").program), "--speed", "2", "alone"]
    done = record(command)
    assert "a subreaper instead" in done.stdout
    assert f"{pid1.TURNS} requests, {pid1.TURNS} zombies" in done.stdout
    orphans = done.recording.orphans()
    left = orphans[orphans["finding"].notna()]
    assert len(left) == pid1.TURNS
    assert left["adopter_id"].nunique() == 1
    adopter = done.table.loc[left["adopter_id"].iloc[0]]
    assert adopter["ns_pid"] == adopter["pid"]
    after = orphans[orphans["adopter_id"].isna()]
    assert set(left["id"]) <= set(after["id"])
    lines = [line.text for line in chain(done.recording, int(left["id"].iloc[0]))]
    assert [line for line in lines if ", a subreaper, inherited" in line]
