"""What a check can limit: the options, what each measures, and how its value is written."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from forktrace.analysis.selection import span_ns
from forktrace.errors import UsageError
from forktrace.trace.words import count, duration

MS, S, COUNT = "ms", "s", "count"


class Kind(NamedTuple):
    """One thing that can be limited: its option and key, the unit of its value, and of what is counted the name."""

    name: str
    unit: str
    noun: str = ""
    plural: str | None = None


KINDS: Final = (
    Kind("max-zombie", MS),
    Kind("max-unreaped", COUNT, "zombie"),
    Kind("max-zombies", COUNT, "zombie"),
    Kind("max-stolen", COUNT, "stolen exit status", "stolen exit statuses"),
    Kind("max-failed-forks", COUNT, "failed fork"),
    Kind("max-orphans", COUNT, "orphan"),
    Kind("max-zombie-seconds", S),
    Kind("max-running", COUNT, "child", "children"),
)
BY_NAME: Final = {kind.name: kind for kind in KINDS}
_COUNT: Final = re.compile(r"[0-9]{1,12}")


class Limit(NamedTuple):
    """A limit that was named: at most so many ms, s or processes."""

    kind: Kind
    most: float

    @property
    def text(self) -> str:
        """The limit as people write it: `max-zombie 5s`."""
        return f"{self.kind.name} {short(self.kind, self.most)}"


def parse(name: str, value: Any) -> Limit:
    """Return the limit that an option or a key of a file names.

    Raises:
        UsageError: there is no such limit, or its value has the wrong unit.
    """
    if name not in BY_NAME:
        raise UsageError(f"{name}: there is no such limit", f"one of {', '.join(BY_NAME)}")
    kind = BY_NAME[name]
    text = "" if isinstance(value, bool) or not isinstance(value, int | float | str) else str(value).strip()
    return Limit(kind, _count(kind, text, value) if kind.unit == COUNT else _time(kind, text, value))


def _count(kind: Kind, text: str, value: Any) -> float:
    if _COUNT.fullmatch(text):
        return float(text)
    if span_ns(text) is not None:
        raise UsageError(
            f"{kind.name} {value}: this limit is a number, and its value is a time", f"a limit of time is max-zombie {value}"
        )
    raise UsageError(f"{kind.name} {value!r}: not a number of {kind.plural or kind.noun + 's'}", f"as in {kind.name} 0")


def _time(kind: Kind, text: str, value: Any) -> float:
    spelled = f"{text}s" if re.fullmatch(r"[0-9.]+", text) else text
    ns = span_ns(spelled)
    if ns is None or ns < 0:
        raise UsageError(f"{kind.name} {value!r}: not a time", f"as in {kind.name} 5s, 500ms, 1.5m; max-zombies counts them")
    return ns / 1e6 if kind.unit == MS else ns / 1e9


def short(kind: Kind, value: float) -> str:
    """Return a value as it is typed: `5s`, `500ms`, `3`."""
    if kind.unit == MS:
        return f"{value:g}ms" if value < 1000 else f"{value / 1000:g}s"
    return f"{value:g}{'s' if kind.unit == S else ''}"


def in_words(kind: Kind, value: float) -> str:
    """Return a measured value in words: `2.138 s`, `3 zombies`, of zombie seconds per 1,000 forks `812`."""
    if kind.unit == MS:
        return duration(value)
    if kind.unit == S:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return count(int(value), kind.noun, kind.plural)
