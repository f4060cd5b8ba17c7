"""`forktrace demo`, run as a user would: the founding article's consumer, recorded for real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import pytest
from recorded import CLOCKS_NS, MARK, PATIENCE_S, forktrace_command, processes_with, wait_until

import forktrace
from forktrace.trace.words import duration

pytestmark = pytest.mark.root

SINGLES, BURST, CHILDREN = 3, 5, 9  # messages of the schedule in forktrace/scenes/broker.py
PAUSE_MS = 600  # the least of the pauses there, of 1.2 s and 1.5 s, that a child has left when it has ended at last


@pytest.fixture(scope="module")
def folder(open_folder: Path) -> Path:
    """An empty directory to run demos in."""
    made = open_folder / f"demo-{uuid.uuid4()}"
    made.mkdir()
    return made


@pytest.fixture
def marked(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """An environment by which everything that a demo starts is found again; nothing may be left."""
    name = str(uuid.uuid4())
    yield dict(environment) | {MARK: name}
    wait_until(lambda: not processes_with(f"{MARK}={name}"), "every process of the demo has ended")


@pytest.fixture(scope="module")
def done(folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """One finished demo of scene kafka; its files are `run.arrows` and `run.png` in `folder`."""
    pytest.importorskip("kafka", reason="kafka-python is missing")
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    name = f"{MARK}={uuid.uuid4()}"
    ran = subprocess.run(
        forktrace_command("demo", "kafka", "-o", "run"),
        env=dict(environment) | {MARK: name.partition("=")[2]},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert not processes_with(name)
    assert ran.returncode == 0, ran.stderr
    return ran


@pytest.fixture(scope="module")
def children(done: subprocess.CompletedProcess[str], folder: Path) -> pd.DataFrame:
    """The lifecycle rows of the consumer's children, in the order of their forks."""
    table = forktrace.read(folder / "run.arrows").lifecycles()
    consumer = int(table.loc[table["origin"] == "target", "id"].iloc[0])
    return table[table["parent_id"] == consumer].reset_index(drop=True)


def test_one_child_per_message(children: pd.DataFrame) -> None:
    """Nine messages, nine children, all of them zombies for a while, all seen completely."""
    assert len(children) == CHILDREN
    assert (children["exit_code"] == 0).all()
    assert children["complete"].all(), children["notes"].tolist()
    assert (children["zombie_ms"] > 0).all()


def test_single_zombies_last_until_the_next_start(children: pd.DataFrame) -> None:
    """Phenomenon (a): each is cleared by the next start, and was a zombie all the while between."""
    singles = children[:SINGLES]
    following = children["id"][1 : SINGLES + 1]
    assert singles["cleared_by_id"].tolist() == following.tolist()
    assert (singles["zombie_ms"] >= PAUSE_MS).all()
    assert (singles["reap_ns"] <= children["fork_ns"].shift(-1)[:SINGLES] + CLOCKS_NS).all()


def test_burst_is_cleared_together(children: pd.DataFrame) -> None:
    """Phenomenon (b): all zombies of the burst are there at once, and the one next start clears them all."""
    burst, following = children[SINGLES : SINGLES + BURST], children.iloc[SINGLES + BURST]
    assert burst["cleared_by_id"].tolist() == [following["id"]] * BURST
    assert burst["zombie_ns"].max() < burst["reap_ns"].min()
    assert (burst["zombie_ms"] >= PAUSE_MS).all()
    assert burst["reap_call"].tolist() == ["wait4"] * BURST
    assert burst["reap_options"].tolist() == ["WNOHANG"] * BURST


def test_the_last_one_is_reaped_at_the_end(children: pd.DataFrame) -> None:
    """No start follows the last child: the exiting consumer reaps it."""
    last = children.iloc[-1]
    assert pd.isna(last["cleared_by_id"])
    assert last["reaper_id"] == last["parent_id"]


def test_report_says_both_in_words(done: subprocess.CompletedProcess[str], children: pd.DataFrame) -> None:
    """The report names who cleared whom, and after how long."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).split())
    for index in range(SINGLES):
        zombie, following = children.iloc[index], children.iloc[index + 1]
        sentence = f"{zombie['pid']} was a zombie for {duration(zombie['zombie_ms'])}, until {following['pid']} was started at"
        assert f"{sentence} consumer.py:" in text
    burst, following = children[SINGLES : SINGLES + BURST], children.iloc[SINGLES + BURST]
    first = ", ".join(str(pid) for pid in burst["pid"][:3])
    longest = duration(burst["zombie_ms"].max())
    assert f"{first} and 2 more were zombies for up to {longest} and were cleared together" in text
    assert f"when {following['pid']} was started" in text


def test_files_and_next_command_are_named(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """The trace and the picture are there, named on stderr with what to do next."""
    assert (folder / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "run.arrows" in done.stderr
    assert "run.png" in done.stderr
    assert "forktrace why run.arrows" in done.stderr


def test_why_explains_the_finding_by_itself(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """From the line that forked through Process.start, _cleanup and poll to the wait that swept it away, and what to do."""
    command = forktrace_command("why", str(folder / "run.arrows"))
    wide = os.environ | {"COLUMNS": "200"}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=wide).stdout
    assert re.search(r"forked  by \d+ consumer\.py:\d+ consume_task   process\.start\(\)\n", said), said
    assert re.search(r"consume_task > Process\.start > _cleanup > poll > waitpid\(\d+, WNOHANG\)\n", said), said
    assert "never joined; starting" in said
    assert "(next-start)" in said
    assert "join it (blocks until it ends)" in said


def test_nothing_is_overwritten(done: subprocess.CompletedProcess[str], folder: Path, environment: Mapping[str, str]) -> None:
    """A second demo of the same name, with or without the ending of a file, is refused before anything starts."""
    before = (folder / "run.arrows").read_bytes()
    again = subprocess.run(
        forktrace_command("demo", "kafka", "-o", "run.png"),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 2
    assert "run.arrows exists" in again.stderr
    assert (folder / "run.arrows").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_interrupted_demo_leaves_nobody_behind(number: signal.Signals, folder: Path, marked: dict[str, str]) -> None:
    """Ctrl-C, which a terminal sends to the whole group, and signals to the demo alone: everything it started ends."""
    pytest.importorskip("kafka", reason="kafka-python is missing")
    pytest.importorskip("confluent_kafka", reason="confluent-kafka is missing")
    demo = subprocess.Popen(
        forktrace_command("demo", "kafka", "-o", number.name), env=marked, cwd=folder, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, process_group=0,
    )  # fmt: skip
    assert demo.stderr
    for line in demo.stderr:
        if "is done" in line:
            break
    if number == signal.SIGINT:
        os.killpg(demo.pid, number)
    else:
        demo.send_signal(number)
    demo.stderr.read()
    assert demo.wait(PATIENCE_S) != 0
    wait_until(lambda: not processes_with(f"{MARK}={marked[MARK]}"), "every process of the demo has ended")
    assert forktrace.read(folder / f"{number.name}.arrows").cut is None
