"""The key of the timeline: which colours its zombies have, by cause, and which its starts, by source line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.names import printable
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
_MOST_SITE: Final = 44


class Kind(NamedTuple):
    """One entry of the key: its words, its style, and the rows of the table that it is about."""

    label: str
    style: Style
    rows: Rows


def zombies(table: pd.DataFrame) -> list[Kind]:
    """Return the zombies by cause: those swept by a start and those never reaped first, then those with most zombie time."""
    dead = table["zombie_ms"].notna().to_numpy()
    codes, causes = pd.factorize(table["reap_cause"].astype("string"))
    if not len(causes):
        return [Kind("zombie", ZOMBIE, np.flatnonzero(dead))] if dead.any() else []
    total = np.bincount(codes[dead] + 1, table["zombie_ms"].to_numpy()[dead], len(causes) + 1)  # the first is: not known
    names = ["", *causes]
    there = [code for code in np.argsort(-total, kind="stable").tolist() if (dead & (codes == code - 1)).any()]
    order = sorted(there, key=lambda code: (names[code] != "next-start", names[code] != "never"))
    labels = [f"zombie, {explanations.cause(names[code]).short if code else 'cause not known'}" for code in order]
    styles = [*(_OWN_STYLE[names[code]] for code in order if names[code] in _OWN_STYLE), *_OTHERS]
    return _kinds(_ranks(np.where(dead, codes + 1, -1), order), labels, styles, "zombie, other causes")


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
