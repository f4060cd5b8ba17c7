"""What a recording of scene kafka must show, whoever is the broker and whichever Python runs the consumer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from recorded import CLOCKS_NS

SINGLES, BURST = 3, 5  # messages of the schedule in forktrace/scenes/broker.py; then one more
PAUSE_MS = 600  # the least of the pauses there, of 1.2 s and 1.5 s, that a child has left when it has ended at last


@dataclass(frozen=True)
class Consumed:
    """A recording of forktrace/scenes/consumer.py."""

    recording: Any
    messages: int = BURST  # of the burst

    @cached_property
    def children(self) -> pd.DataFrame:
        """The lifecycle rows of the consumer's children, in the order of their forks."""
        table = self.recording.lifecycles()
        return table[table["parent_id"] == self.consumer].reset_index(drop=True)

    @cached_property
    def consumer(self) -> int:
        """The row of the consumer."""
        table = self.recording.lifecycles()
        return int(table.loc[table["origin"] == "target", "id"].iloc[0])

    @property
    def singles(self) -> pd.DataFrame:
        """The children of the messages that came one by one."""
        return self.children[:SINGLES]

    @property
    def burst(self) -> pd.DataFrame:
        """The children of the messages that came at once."""
        return self.children[SINGLES : SINGLES + self.messages]

    @property
    def following(self) -> pd.Series:
        """The child of the one message after the burst."""
        return self.children.iloc[SINGLES + self.messages]

    def assert_one_child_per_message(self) -> None:
        """As many children as messages, all of them zombies for a while, all seen completely."""
        children = self.children
        assert len(children) == SINGLES + self.messages + 1
        assert (children["exit_code"] == 0).all()
        assert children["complete"].all(), children["notes"].tolist()
        assert (children["zombie_ms"] > 0).all()
        assert set(children["created_by"]) == {"multiprocessing"}
        assert children["fork_site"].str.fullmatch(r"consumer\.py:\d+ consume_task").all()

    def assert_singles_last_until_the_next_start(self) -> None:
        """Phenomenon (a): each is cleared by the next start, and was a zombie all the while between."""
        singles, following = self.singles, self.children[1 : SINGLES + 1]
        assert set(singles["reap_cause"]) == {"next-start"}
        assert singles["cleared_by_id"].tolist() == following["id"].tolist()
        assert (singles["zombie_ms"] >= PAUSE_MS).all()
        assert (singles["reap_ns"].to_numpy() <= following["fork_ns"].to_numpy() + CLOCKS_NS).all()

    def assert_one_start_clears_the_burst(self) -> None:
        """Phenomenon (b): all zombies of the burst are there at once, and the one next start reaps them all, by _cleanup."""
        burst, following = self.burst, self.following
        assert set(burst["reap_cause"]) == {"next-start"}
        assert burst["cleared_by_id"].tolist() == [following["id"]] * self.messages
        assert set(zip(burst["reap_call"], burst["reap_target"], burst["reap_options"], strict=True)) == {
            ("wait4", "pid", "WNOHANG")
        }
        sweep = r".*/consumer\.py:\d+ consume_task;[^;]+ start;[^;]+ _cleanup;[^;]+ poll"
        assert burst["reap_stack"].str.fullmatch(sweep).all()
        assert set(burst["reap_site"]) == {following["fork_site"]}
        assert set(burst["reaper_tid"]) == {following["forker_tid"]}
        assert (burst["zombie_ms"] >= PAUSE_MS).all()
        self._assert_nothing_between()

    def _assert_nothing_between(self) -> None:
        """No child is reaped before all of the burst are zombies, and then nothing comes between their reaps and the fork."""
        burst, following = self.burst, self.following
        assert burst["zombie_ns"].max() < burst["reap_ns"].min()
        events = self.recording.events()
        done = events[(events["by_id"] == self.consumer) & events["kind"].isin(["fork", "fork-failed", "reap", "wait"])]
        steps = list(zip(done["kind"], done["id"], strict=True))
        steps = steps[steps.index(("fork", burst["id"].iloc[-1])) + 1 :][: self.messages + 1]
        assert sorted(steps[:-1]) == [("reap", child) for child in burst["id"]], steps
        assert steps[-1] == ("fork", following["id"])
        counted = self.recording.zombie_count()
        counted = counted[(counted["parent_id"] == self.consumer) & (counted["time_ns"] >= burst["zombie_ns"].max())]
        assert counted["zombies"].iloc[0] == self.messages
        assert counted["zombies"][counted["time_ns"] < following["zombie_ns"]].iloc[-1] == 0
        starts = self.recording.starts()
        assert starts.loc[starts["start_id"] == following["id"], "cleared_id"].tolist() == burst["id"].tolist()

    def assert_the_last_is_reaped_at_the_end(self) -> None:
        """No start follows the last child: the exiting consumer reaps it."""
        last = self.children.iloc[-1]
        assert pd.isna(last["cleared_by_id"])
        assert last["reaper_id"] == self.consumer
        assert last["reap_cause"] == "exit-handler"

    def assert_findings(self) -> None:
        """All of it."""
        self.assert_one_child_per_message()
        self.assert_singles_last_until_the_next_start()
        self.assert_one_start_clears_the_burst()
        self.assert_the_last_is_reaped_at_the_end()
