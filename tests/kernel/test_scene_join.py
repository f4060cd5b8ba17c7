"""Scene `join`: which calls of a Process wait, which look, which reap; with this Python and with 2.7, which polls."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd
import pytest
from recorded import Recorded, interpreters

from forktrace.scenes import scene

pytestmark = pytest.mark.root

SPEED = 2
PAUSE_MS = 300 / SPEED  # how long nobody looks at a zombie
PROGRAM = scene("join").program
OLD = [path for name, path in interpreters().items() if name.startswith("2.7")]


class Call(NamedTuple):
    """One line that the scene printed about a call."""

    call: str
    pid: int
    before: str
    after: str
    took_ms: float
    result: str


class Join(NamedTuple):
    """The scene, recorded with one Python; `new` has close() and kill(), and joins without polling."""

    recorded: Recorded
    new: bool
    calls: list[Call]
    children: pd.DataFrame

    def of(self, call: str) -> list[Call]:
        """The lines about a call."""
        return [one for one in self.calls if one.call == call]

    def waits(self, call: str) -> list[tuple[Any, ...]]:
        """What the recording has of each line that makes a call: options, calls, reaps, empty."""
        text = PROGRAM.read_text().splitlines()
        sites = [f"join.py:{number} main" for number, line in enumerate(text, 1) if f'"{call}"' in line]
        if call == "close()":
            sites += [f"join.py:{number} main" for number, line in enumerate(text, 1) if line.strip() == "process.close()"]
        table = self.recorded.recording.waits()
        return list(table[table["site"].isin(sites)][["options", "calls", "reaps", "empty"]].itertuples(index=False, name=None))


@pytest.fixture(scope="module", params=["this", "2.7"])
def join(request: pytest.FixtureRequest, record: Callable[..., Recorded]) -> Join:
    """The scene, recorded with this Python and with Python 2.7."""
    if request.param == "2.7" and not OLD:
        pytest.skip("no Python 2.7 here (pyenv)")
    python = OLD[0] if request.param == "2.7" else sys.executable
    recorded = record([python, str(PROGRAM), "--speed", str(SPEED)])
    assert recorded.returncode == 0, recorded.stderr
    lines = re.findall(r"\d+ (\S+) +of (\d+): +(\w+) -> (\w+) +([\d.]+) ms  (.*)", recorded.stdout)
    calls = [Call(call, int(pid), before, after, float(took), result) for call, pid, before, after, took, result in lines]
    children = pd.DataFrame([recorded.row(int(pid)) for pid in re.findall(r"start\(\) of (\d+)", recorded.stdout)])
    return Join(recorded, request.param == "this", calls, children)


def test_which_calls_reap(join: Join) -> None:
    """All that look at a zombie reap it; terminate() and kill() only send a signal."""
    expected = [
        ("join()", "alive", "gone", "None"),
        ("join(20)", "alive", "gone", "None"),
        ("join(0.3)", "alive", "alive", "None"),
        ("is_alive()", "alive", "alive", "True"),
        ("exitcode", "alive", "alive", "None"),
        ("active_children()", "alive", "alive", f"[{join.of('join(0.3)')[0].pid}]"),
        *[("close()", "alive", "alive", "ValueError")] * join.new,
        ("is_alive()", "zombie", "gone", "False"),
        ("exitcode", "gone", "gone", "-15"),
        ("exitcode", "zombie", "gone", "0"),
        ("active_children()", "zombie", "gone", "[]"),
        ("join()", "zombie", "gone", "None"),
        *[("join(0)", "zombie", "gone", "None"), ("close()", "zombie", "gone", "None")] * join.new,
    ]
    stops = ("terminate()", "kill()")
    assert [(one.call, one.before, one.after, one.result) for one in join.calls if one.call not in stops] == expected
    assert [one.after for one in join.calls if one.call in stops if one.after == "gone"] == []


def test_causes(join: Join) -> None:
    """Each child was reaped by the program, for the cause that the call is."""
    causes = ["join", "join", "poll", "poll", "active-children", "active-children", "join", *["join", "poll"] * join.new]
    assert join.children["reap_cause"].tolist() == causes
    assert (join.children["reaper_id"] == join.children["parent_id"]).all()
    assert (join.children["zombie_ms"][2:] >= PAUSE_MS).all()


def test_join_with_a_timeout(join: Join) -> None:
    """Python 3 waits for the end of the child and calls waitpid once, then; Python 2.7 asks again and again."""
    ends, gives_up = join.waits("join(20)"), join.waits("join(0.3)")
    if join.new:
        assert ends == [("", 1, 1, 0)]
        assert gives_up == []
        return
    (options, calls, reaps, empty), (also, asked, none, in_vain) = ends[0], gives_up[0]
    assert (len(ends), len(gives_up)) == (1, 1)
    assert (options, calls, reaps) == ("WNOHANG", empty + 1, 1)
    assert (also, asked, none) == ("WNOHANG", in_vain, 0)
    assert min(empty, in_vain) >= 3


def test_joins_that_wait(join: Join) -> None:
    """join() is one call without WNOHANG, of a living child as of a zombie; join(0.3) gives up, and not before its time."""
    assert join.waits("join()") == [("", 1, 1, 0), ("", 1, 1, 0)]
    assert join.of("join(0.3)")[0].took_ms >= PAUSE_MS - 5


def test_looking_at_a_living_child(join: Join) -> None:
    """is_alive(), exitcode, active_children() and close() ask the kernel once each; terminate() and kill() do not ask."""
    process = join.children.iloc[2]
    asked = ["is_alive()", "exitcode", "active_children()"] + ["close()"] * join.new
    for call in asked:
        assert sum(empty for *_, empty in join.waits(call)) == 1, call
    polls = join.waits("join(0.3)")[0][3] if not join.new else 0
    assert process["empty_waits"] == len(asked) + polls
    assert join.waits("terminate()") == join.waits("kill()") == []


def test_who_was_stopped_how(join: Join) -> None:
    """terminate() is a SIGTERM by the program and kill() a SIGKILL, each from its line."""
    stopped = join.children[join.children["term_signal"].notna()]
    assert stopped["term_signal"].tolist() == ["SIGTERM", *["SIGKILL"] * join.new]
    assert (stopped["killer_id"] == stopped["parent_id"]).all()
    text = PROGRAM.read_text().splitlines()
    lines = [site.split(":")[1].split()[0] for site in stopped["killer_site"]]
    calls = ["terminate()", "kill()"][: len(lines)]
    assert [f'"{call}"' in text[int(line) - 1] for line, call in zip(lines, calls, strict=True)] == [True] * len(calls)


def test_polls_of_starts(join: Join) -> None:
    """What the table of starts counts as polled is what the kernel was asked there: only one start found a child in the set."""
    table = join.recorded.recording.starts()
    line = next(number for number, text in enumerate(PROGRAM.read_text().splitlines(), 1) if "process.start()" in text)
    asked = join.recorded.recording.waits().set_index("site").loc[f"join.py:{line} start", "calls"]
    assert table["polled"].sum() == asked == 1
    assert table["children"].max() == 2
