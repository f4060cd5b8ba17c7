"""Durations and counts in words, the same while recording and afterwards."""

from __future__ import annotations


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


def zombie_headline(name: str, zombie_ms: float, *, still: bool = False, at_most: bool = False) -> str:
    """Return the sentence that says how long a process was a zombie; `still`: it was one when the recording ended."""
    if still:
        return f"{name} was still a zombie after {duration(zombie_ms)}, when the recording ended"
    return f"{name} was a zombie for {'at most ' if at_most else ''}{duration(zombie_ms)}"
