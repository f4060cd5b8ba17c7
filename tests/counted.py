"""What a load says that it made, beside the processes of its recording: each is to be in both, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

MOST_SHOWN = 20
_MADE = ["way", "since_ns", "until_ns", "forker_pid", "pid"]
_SHOWN = "id pid comm argv created_by fork_call forker_pid forker forker_exit_ns fork_ns fork_site".split()


@dataclass(frozen=True)
class Difference:
    """Where a load and its recording differ.

    Attributes:
        uncounted: rows of the lifecycle table that the load did not count
        unrecorded: what the load counted and the recording has not
        made: how many processes the load counted, by way
    """

    uncounted: pd.DataFrame
    unrecorded: pd.DataFrame
    made: dict[str, int]

    def texts(self) -> list[str]:
        """Which processes these are; nothing where there are none."""
        kinds = {"recorded, not counted by the load": self.uncounted, "counted by the load, not recorded": self.unrecorded}
        return [f"processes {what}: {len(rows):,}\n{shown(rows)}" for what, rows in kinds.items() if len(rows)]


def shown(rows: pd.DataFrame) -> str:
    """The first of some rows, as a table."""
    return rows.head(MOST_SHOWN).to_string(index=False, max_colwidth=60)


def made_by(folder: Path) -> pd.DataFrame:
    """Read what tests/workloads/mixed.py has written down: a row per process."""
    rows = []
    for path in sorted(folder.glob("made-*")):
        for line in path.read_text().splitlines():
            way, since_ns, until_ns, parent, *pids = line.split()
            rows += [(way, int(since_ns), int(until_ns), int(parent), int(pid)) for pid in pids]
    return pd.DataFrame(rows, columns=_MADE)


def compared(table: pd.DataFrame, made: pd.DataFrame) -> Difference:
    """Compare a lifecycle table, without the command's own process, with what the load has written down.

    A row is what the load means by a line if number and parent are the same, and it was forked between the two moments.
    """
    ours, theirs = table[table["id"] > 0], made.sort_values("since_ns", kind="stable").reset_index(drop=True)
    forked_ns = ours["fork_ns"].fillna(0).astype("int64")
    forks = ours[["id", "pid", "forker_pid"]].assign(fork_ns=forked_ns).sort_values("fork_ns")
    lines = theirs[["since_ns", "forker_pid", "pid"]].assign(line=theirs.index)
    found = pd.merge_asof(forks, lines, left_on="fork_ns", right_on="since_ns", by=["forker_pid", "pid"])
    found = found[found["line"].notna()].astype({"line": "int64"})
    found = found[found["fork_ns"].to_numpy() <= theirs["until_ns"].to_numpy()[found["line"]]].drop_duplicates("line")
    uncounted = ours[~ours["id"].isin(found["id"])]
    return Difference(with_forker(uncounted, table), theirs.drop(found["line"]), theirs["way"].value_counts().to_dict())


def with_forker(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """What tells where these processes came from: a parent that ended before is none."""
    of = table.set_index("id").reindex(rows["parent_id"].fillna(-1).astype("int64"))
    return rows.assign(forker=of["comm"].to_numpy(), forker_exit_ns=of["exit_ns"].to_numpy())[_SHOWN]
