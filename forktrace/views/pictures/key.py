"""The key of the timeline: which colours its zombies have, by cause, and which its starts, by source line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.causes.names import printable
from forktrace.views import explanations
from forktrace.views.words import short_site

Rows = npt.NDArray[np.int64]
Style = dict[str, Any]

# Okabe and Ito's palette, which the colour-blind can tell apart; what is hatched is so each in its own way besides.
RUNNING: Final[Style] = {"facecolor": "#56B4E9", "edgecolor": "#0072B2", "linewidth": 0.6}
ZOMBIE: Final[Style] = {"facecolor": "#FBE3B5", "edgecolor": "#D55E00", "hatch": "//////", "linewidth": 0.6}
_NEVER: Final[Style] = {"facecolor": "#F3DCE9", "edgecolor": "#9C3F78", "hatch": "\\\\\\\\\\\\", "linewidth": 0.6}
_OTHERS: Final[tuple[Style, ...]] = (
    {"facecolor": "#D3EFE3", "edgecolor": "#00704F", "hatch": "||||||", "linewidth": 0.6},
    {"facecolor": "#FBF7C0", "edgecolor": "#7D7400", "hatch": "xxxxxx", "linewidth": 0.6},
    {"facecolor": "#E4E4E4", "edgecolor": "#555555", "hatch": "------", "linewidth": 0.6},
)
ALL_ZOMBIES: Final[Style] = {"facecolor": "#D8D8D8", "edgecolor": "#444444", "linewidth": 0.6}
_OWN_STYLE: Final = {"next-start": ZOMBIE, "never": _NEVER}
START: Final[Style] = {"color": "#222222", "linestyle": "-"}
_STARTS: Final[tuple[Style, ...]] = (
    START,
    {"color": "#7A1FA2", "linestyle": "--"},
    {"color": "#00704F", "linestyle": ":"},
    {"color": "#888888", "linestyle": "-."},
)
FAILED: Final[Style] = {"marker": "x", "color": "#C00000", "markersize": 6, "markeredgewidth": 1.6, "linestyle": ""}
_MOST_SITE: Final = 44


class Kind(NamedTuple):
    """One entry of the key: its words, its style, and the rows of the table that it is about, in order."""

    label: str
    style: Style
    rows: Rows

    def has(self, row: int) -> bool:
        """Whether it is about that row."""
        place = np.searchsorted(self.rows, row)
        return bool(place < len(self.rows) and self.rows[place] == row)


def zombies(table: pd.DataFrame) -> list[Kind]:
    """Return the zombies by cause: those swept by a start, then those never reaped, then those with most zombie time."""
    dead = table["zombie_ms"].notna().to_numpy()
    codes, causes = pd.factorize(table["reap_cause"].astype("string").fillna("unknown").where(dead))
    total = np.bincount(codes[dead], table["zombie_ms"].to_numpy()[dead], len(causes))
    known = list(causes)
    own = _OWN_STYLE | ({} if "next-start" in known else {"unknown": ZOMBIE})  # of a trace without stacks nearly all are
    names = [name for name in own if name in known]
    names += [known[code] for code in np.argsort(-total, kind="stable").tolist() if known[code] not in own]
    labels = [f"zombie, {explanations.cause(name).short}" for name in names]
    styles = [*(own[name] for name in names if name in own), *_OTHERS]
    return _kinds(_ranks(codes, [known.index(name) for name in names]), labels, styles, "zombie, other causes")


def starts(table: pd.DataFrame) -> list[Kind]:
    """Return the started processes by the line that started them, those of the most first; empty: no line is known."""
    codes, sites = pd.factorize(table["fork_site"].where(table["origin"] == "forked"))
    order = np.argsort(-np.bincount(codes[codes >= 0], minlength=len(sites)), kind="stable").tolist()
    labels = [f"start at {short_site(printable(sites[code]), _MOST_SITE)}" for code in order[: len(_STARTS)]]
    return _kinds(_ranks(codes, order), labels, _STARTS, "start at another line")


def _ranks(codes: Rows, order: Sequence[int]) -> Rows:
    """The place of each code in `order`; -1 for code -1."""
    places = np.full(max(order, default=-1) + 2, -1)
    places[list(order)] = np.arange(len(order))
    return np.asarray(places[codes])


def _kinds(ranks: Rows, labels: Sequence[str], styles: Sequence[Style], others: str) -> list[Kind]:
    """One kind for each rank, as far as there are styles; the last style takes all that is left."""
    most = len(styles) - 1
    if ranks.max(initial=-1) > most:
        ranks, labels = np.minimum(ranks, most), [*labels[:most], others]
    return [
        Kind(label, style, np.flatnonzero(ranks == rank))
        for rank, (label, style) in enumerate(zip(labels, styles, strict=False))
    ]
