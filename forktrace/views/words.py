"""Durations and counts in words."""

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


def count(number: int, noun: str) -> str:
    """Return `1 process`, `2 processes`, `1,234 zombies`."""
    plural = noun if number == 1 else noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {plural}"


def shorten(text: str, most: int) -> str:
    """Return at most `most` characters of `text`, with an ellipsis in ASCII where it is cut."""
    return text if len(text) <= most else text[: most - 4].rstrip(".,: ") + " ..."


def some(names: list[str], total: int, most: int = 3) -> str:
    """Return `4711`, `4711 and 4712`, or `4711, 4712, 4713 and 2 more`, from the first `most` + 1 of `total` names."""
    if total > most + 1:
        return f"{', '.join(names[:most])} and {total - most:,} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
