"""Names of processes, places and senders, cut to a width."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from forktrace.trace.words import printable

_SENDERS: Final = {
    "process": "sent by {}",
    "kernel": "by the kernel itself",
    "oom": "by the OOM killer: memory ran out",
    "pdeathsig": "because its parent's thread ended (PDEATHSIG of {})",
    "pidns": "because its PID namespace died",
}


def shorten(text: str, most: int) -> str:
    """Return at most `most` characters of `text`, with an ellipsis in ASCII where it is cut."""
    return text if len(text) <= most else text[: most - 4].rstrip(".,: ") + " ..."


def without_folders(line: str) -> str:
    """Return a command without the folders of the paths in it: `python consumer.py` for `/usr/bin/python ./consumer.py`."""
    return re.sub(r"(?<!\S)[\w.+~-]*/(?:[\w./+-]*/)?(?=[\w.+-]+(?!\S))", "", line)


def short_command(line: str, most: int) -> str:
    """Return a command in at most `most` characters: where it is too long, paths lose their folders first."""
    return shorten(line if len(line) <= most else without_folders(line), most)


def title_of(command: Sequence[str], most: int = 60) -> str:
    """Return a recorded command for a headline, in at most `most` characters."""
    return short_command(printable(shlex.join(command)), most)


def some(names: list[str], total: int, most: int = 3) -> str:
    """Return `4711`, `4711 and 4712`, or `4711, 4712, 4713 and 2 more`, from the first `most` + 1 of `total` names."""
    if total > most + 1:
        return f"{', '.join(names[:most])} and {total - most:,} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def how_many(counts: Mapping[str, int]) -> str:
    """Return `3 exit, 1,200 fork`: how many of what."""
    return ", ".join(f"{number:,} {printable(kind)}" for kind, number in counts.items())


def place(site: str) -> str:
    """Return `consumer.py:33`, without the function."""
    words = printable(site)
    return words.rpartition(" ")[0] or words


def at_line(site: Any) -> str:
    """Return ` at consumer.py:33 consume_task`; nothing where no line is known."""
    return f" at {printable(site)}" if isinstance(site, str) else ""


def sender(kind: str | None, name: str) -> str:
    """Return who sent a signal, in words; `kind` is one of `killer_kind`, `name` the process's, None: not known."""
    return "sender not known" if kind is None else _SENDERS[kind].format(name)


def short_site(site: str, most: int) -> str:
    """Return `consumer.py:33 consume_task` in at most `most` characters: without its function, then without its folders."""
    if len(site) > most:
        site = site.rpartition(" ")[0] or site
    return site if len(site) <= most else f"...{site[3 - most :]}"
