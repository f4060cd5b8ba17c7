"""The key of the timeline: which colours its zombies have, by cause, and which its starts, by source line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt
import pandas as pd

from forktrace.analysis.causes.names import printable
from forktrace.analysis.requests import start_sites
from forktrace.views import explanations
from forktrace.views.words import short_site

Rows = npt.NDArray[np.int64]
Style = dict[str, Any]

# Okabe and Ito's palette, which the colour-blind can tell apart; each also has a hatch of its own.
RUNNING: Final[Style] = {"facecolor": "#56B4E9", "edgecolor": "#0072B2", "linewidth": 0.6}


def _style(face: str, edge: str, hatch: str) -> Style:
    return {"facecolor": face, "edgecolor": edge, "hatch": 6 * hatch, "linewidth": 0.6}


# A family of causes has a colour, each of its causes a hatch: the same in every picture.
_SWEPT: Final = ("#FBE3B5", "#D55E00")  # nobody asked for the child: another call reaped it
_LEFT: Final = ("#F3DCE9", "#9C3F78")  # its parent did not wait
_ASKED: Final = ("#D3EFE3", "#00704F")  # its Process or Popen was asked
_CALLED: Final = ("#FBF7C0", "#7D7400")  # a wait call of the program, of a package, of C
_KEPT: Final = ("#E6E0F5", "#5B3F99")  # the library that made it reaps it
_OTHER: Final = ("#E4E4E4", "#555555")
_OWN: Final = ("#F5DAD5", "#8A3324")  # causes of a user's own rules
_STYLES: Final[dict[str, Style]] = {
    "next-start": _style(*_SWEPT, "/"),
    "subprocess-cleanup": _style(*_SWEPT, "x"),
    "exit-handler": _style(*_SWEPT, "|"),
    "never": _style(*_LEFT, "\\"),
    "parent-exit": _style(*_LEFT, "x"),
    "pidns-exit": _style(*_LEFT, "-"),
    "join": _style(*_ASKED, "|"),
    "subprocess-wait": _style(*_ASKED, "/"),
    "poll": _style(*_ASKED, "-"),
    "active-children": _style(*_ASKED, "x"),
    "os-wait": _style(*_CALLED, "x"),
    "signal-handler": _style(*_CALLED, "|"),
    "library-wait": _style(*_CALLED, "-"),
    "other-native": _style(*_CALLED, "/"),
    "pool": _style(*_KEPT, "|"),
    "executor": _style(*_KEPT, "-"),
    "forkserver": _style(*_KEPT, "x"),
    "asyncio": _style(*_KEPT, "/"),
    "event-loop": _style(*_KEPT, "\\"),
    "unknown": _style(*_OTHER, "-"),
    "resource-tracker": _style(*_OTHER, "|"),
    "recorder": _style(*_OTHER, "\\"),
    "autoreap-ignored": _style(*_OTHER, "x"),
    "autoreap-nocldwait": _style(*_OTHER, "/"),
}
_HATCHES: Final = "/\\|-x"
_FIRST: Final = ("next-start", "never")  # in the key
ZOMBIE: Final = _STYLES["next-start"]
ALL_ZOMBIES: Final[Style] = {"facecolor": "#D8D8D8", "edgecolor": "#444444", "linewidth": 0.6}
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


def style_of(cause: str) -> Style:
    """Return the colour and the hatch of a cause; one of a user's own rules has what follows from its name."""
    return _STYLES.get(cause) or _style(*_OWN, _HATCHES[crc32(cause.encode()) % len(_HATCHES)])


def zombies(table: pd.DataFrame) -> list[Kind]:
    """Return the zombies by cause: those swept by a start, then those never reaped, then those with most zombie time."""
    dead = table["zombie_ms"].notna().to_numpy()
    codes, causes = pd.factorize(table["reap_cause"].astype("string").fillna("unknown").where(dead))
    total = np.bincount(codes[dead], table["zombie_ms"].to_numpy()[dead], len(causes))
    known = list(causes)
    names = [name for name in _FIRST if name in known]
    names += [known[code] for code in np.argsort(-total, kind="stable").tolist() if known[code] not in names]
    ranks = _ranks(codes, [known.index(name) for name in names])
    return [
        Kind(f"zombie, {explanations.cause(name).short}", style_of(name), np.flatnonzero(ranks == rank))
        for rank, name in enumerate(names)
    ]


def starts(table: pd.DataFrame) -> list[Kind]:
    """Return the started processes by the line that started them, those of the most first; empty: no line is known."""
    codes, sites = pd.factorize(start_sites(table).where(table["origin"] == "forked"))
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
