"""What metrics should say: by the tables of a whole recording, and as Prometheus reads them."""

from __future__ import annotations

import errno
from collections import Counter

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from forktrace.analysis.recording import Recording
from forktrace.service.exposition import Exposition, State
from forktrace.service.tally import BUCKETS_S, Figures

FIGURES = Figures(
    forks=7,
    reaps=Counter({("join", "multiprocessing"): 3, ("os-wait", "os-fork"): 1}),
    failed_forks=Counter({("EAGAIN", "pids.max"): 2}),
    stolen=1,
    lost=Counter({"exit": 3, "fork": 2}),
    durations=[1, 0, 2, *[0] * (len(BUCKETS_S) - 3), 1],
    seconds=90_000.5,
    zombies=Counter({"a.py:1 f": 2, "other": 1}),
)


def exposed(target: str = "web", **more: object) -> Exposition:
    """The metrics of some figures."""
    metrics = Exposition(target)
    metrics.state = State(FIGURES, oldest_s=12.5, headroom={"pids.max": 90}, **more)  # type: ignore[arg-type]
    return metrics


def of_tables(made: Recording) -> Figures:
    """What the tables of the whole recording say."""
    table = made.lifecycles()
    table = table[table["reap_cause"] != "recorder"]
    gone, open_ = table[table["state"] == "gone"], table[table["zombie_open"]]
    failed = made.failed_forks()
    causes = zip(gone["reap_cause"].astype(str), gone["created_by"].astype(object).fillna("unknown"), strict=True)
    seconds = gone["zombie_ms"].dropna().to_numpy() / 1e3
    durations = np.bincount(np.searchsorted(BUCKETS_S, seconds), minlength=len(BUCKETS_S) + 1)
    return Figures(
        forks=int((table["origin"] == "forked").sum()),
        reaps=Counter(causes),
        failed_forks=Counter(zip(failed["errno"].map(errno.errorcode.get), failed["limit"].fillna(""), strict=True)),
        stolen=len(made.stolen()),
        lost=Counter(made.lost()),
        durations=durations.tolist(),
        seconds=float(seconds.sum()),
        zombies=Counter(open_["start_site"].fillna(open_["fork_site"]).fillna("unknown").tolist()),
        oldest_ns=int(open_["zombie_ns"].min()) if len(open_) else None,
    )


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Each series, its name and its labels' values in the order of their names, with its value."""
    families = text_string_to_metric_families(text)
    return {
        (one.name, *(value for _, value in sorted(one.labels.items()))): one.value for each in families for one in each.samples
    }
