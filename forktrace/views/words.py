"""Durations and counts in words."""

from __future__ import annotations

from typing import Final

NOTICEABLE_MS: Final = 10.0  # a parent that waits at once reaps within a few ms, even on a loaded machine

_SENDERS: Final = {
    "process": "sent by {}",
    "kernel": "by the kernel itself",
    "oom": "by the OOM killer: memory ran out",
    "pdeathsig": "because its parent's thread ended (PDEATHSIG of {})",
    "pidns": "because its PID namespace died",
}


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


def shorten(text: str, most: int) -> str:
    """Return at most `most` characters of `text`, with an ellipsis in ASCII where it is cut."""
    return text if len(text) <= most else text[: most - 4].rstrip(".,: ") + " ..."


def some(names: list[str], total: int, most: int = 3) -> str:
    """Return `4711`, `4711 and 4712`, or `4711, 4712, 4713 and 2 more`, from the first `most` + 1 of `total` names."""
    if total > most + 1:
        return f"{', '.join(names[:most])} and {total - most:,} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def zombie_headline(name: str, zombie_ms: float, *, still: bool = False, at_most: bool = False) -> str:
    """Return the sentence that says how long a process was a zombie; `still`: it was one when the recording ended."""
    if still:
        return f"{name} was still a zombie after {duration(zombie_ms)}, when the recording ended"
    return f"{name} was a zombie for {'at most ' if at_most else ''}{duration(zombie_ms)}"


def sender(kind: str | None, name: str) -> str:
    """Return who sent a signal, in words; `kind` is one of `killer_kind`, `name` the process's, None: not known."""
    return "sender not known" if kind is None else _SENDERS[kind].format(name)


def short_site(site: str, most: int) -> str:
    """Return `consumer.py:33 consume_task` in at most `most` characters: without its function, then without its folders."""
    if len(site) > most:
        site = site.rpartition(" ")[0] or site
    return site if len(site) <= most else f"...{site[3 - most :]}"
