"""Durations, counts and names in words, the same while recording and afterwards."""

from __future__ import annotations

from typing import Final

NO_PROCESS: Final = "no process could be started for them"  # in `lacks` of a header: no fault of the kernel's
NOTICEABLE_MS: Final = 10.0  # a parent that waits at once reaps within a few ms, even on a loaded machine


def duration(ms: float) -> str:
    """Return a duration as people read it: `0.03 ms`, `4.2 ms`, `345 ms`, `1.803 s`, `12 min 05 s`, `3 h 02 min`."""
    if ms < 9.95:
        return f"{ms:.2f} ms" if ms < 0.995 else f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    if ms < 59_999.5:
        return f"{ms / 1000:.3f} s"
    seconds = round(ms / 1000)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return `1 process`, `2 processes`, `1,234 zombies`."""
    many = plural or noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else many}"


def size(number: int) -> str:
    """Return a number of bytes as --max-size takes it: `100M`, `65537`."""
    fitting = [
        (unit, number >> bits) for unit, bits in (("T", 40), ("G", 30), ("M", 20), ("K", 10)) if number % (1 << bits) == 0
    ]
    unit, units = fitting[0] if fitting else ("", number)
    return f"{units}{unit}"


def about(seconds: float) -> str:
    """Return a duration to two digits, as far as estimates go: `0.4 s`, `42 s`, `12 min`, `36 h`, `20 d`."""
    if seconds < 0.95:
        return f"{seconds:.1f} s"
    for limit, size, unit in ((100, 1, "s"), (6000, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86_400):,} d"


def zombie_headline(name: str, lasted: str, *, still: bool = False, bound: str = "") -> str:
    """Return the sentence that says how long a process was a zombie; `still`: it was one when the recording ended.

    `lasted` is the duration; `bound` what it is, when not exact: `at most`, `at least` or `about`.
    """
    lasted = f"{bound} {lasted}".lstrip()
    if still:
        return f"{name} was still a zombie after {lasted}, when the recording ended"
    return f"{name} was a zombie for {lasted}"


def printable(text: str) -> str:
    """Return `text` with everything that is not a visible character or a space as an escape: `\\x1b`, `\\n`, `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
