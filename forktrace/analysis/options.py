"""The options of wait calls in words."""

from __future__ import annotations

from typing import Final

import pandas as pd

from forktrace.analysis.log import NONE, Ints, chosen, first_of_each
from forktrace.trace import events

WNOHANG: Final = 1
WNOWAIT: Final = 0x1000000
WAIT_OPTIONS: Final = {
    WNOHANG: "WNOHANG",
    0x4: "WEXITED",
    0x8: "WCONTINUED",
    WNOWAIT: "WNOWAIT",
    0x20000000: "__WNOTHREAD",
    0x40000000: "__WALL",
    0x80000000: "__WCLONE",
}
STOPPED: Final = 0x2  # WUNTRACED of wait4, WSTOPPED of waitid: one bit with two names


def option_names(flags: Ints, call: Ints) -> pd.Series:
    """Return wait options in words, joined by `|`; "" for none, `<NA>` for flags NONE. `call` indexes `events.CALLS`."""
    first = first_of_each(flags, call)
    pairs = pd.MultiIndex.from_arrays([flags[first], call[first]])
    names = [_option_names(int(flags[row]), int(call[row])) for row in first]
    return chosen(pairs.get_indexer(pd.MultiIndex.from_arrays([flags, call])), names)


def _option_names(flags: int, call: int) -> object:
    if flags == NONE:
        return pd.NA
    names = dict(WAIT_OPTIONS) | {STOPPED: "WUNTRACED" if call == events.CALLS.index("wait4") else "WSTOPPED"}
    flags &= 0xFFFFFFFF
    rest = flags & ~sum(names)
    return "|".join([name for bit, name in sorted(names.items()) if flags & bit] + ([hex(rest)] if rest else []))
