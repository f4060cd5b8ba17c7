"""What a test may leave behind: its marker, and what pytest.ini says of tests without one."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import pytest

_COUNTS: Final = ("unreaped", "running", "stolen")


class Left(NamedTuple):
    """How many zombies and living children a test may leave at its end, how long a zombie may last in ms; None: any."""

    unreaped: int | None = None
    running: int | None = None
    max_ms: float | None = None
    stolen: int | None = None

    @property
    def takes_a_recording(self) -> bool:
        """Whether /proc alone cannot tell."""
        return self.max_ms is not None or self.stolen is not None


def limits_of(item: pytest.Item) -> Left:
    """Return the limits of a test.

    Raises:
        UsageError: the marker, or pytest.ini, says what there is not.
    """
    marker = item.get_closest_marker("limit_zombies")
    said = dict(marker.kwargs) if marker else {}
    if marker and (marker.args or set(said) - {*_COUNTS, "max"}):
        raise pytest.UsageError(f"{item.nodeid}: limit_zombies takes {', '.join(_COUNTS)} and max, by name")
    if not marker and (everywhere := item.config.getini("forktrace_unreaped")):
        said = {"unreaped": int(everywhere) if str(everywhere).isdigit() else everywhere}
    for name in _COUNTS:
        number = said.get(name)
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            raise pytest.UsageError(f"{item.nodeid}: limit_zombies: {name}={number!r} is no number of processes")
    return Left(said.get("unreaped"), said.get("running"), _ms(item, said.get("max")), said.get("stolen"))


def _ms(item: pytest.Item, text: Any) -> float | None:
    if text is None:
        return None
    from forktrace.analysis.gate.limits import parse
    from forktrace.errors import UsageError

    try:
        return parse("max-zombie", text).most
    except UsageError as error:
        raise pytest.UsageError(f"{item.nodeid}: limit_zombies: {error}") from None


def broken_counts(limits: Left, unreaped: int, running: int) -> list[str]:
    """Return what a test left beyond its limits, in words."""
    found = []
    for number, most, noun, plural in (
        (unreaped, limits.unreaped, "zombie", "zombies"),
        (running, limits.running, "running child", "running children"),
    ):
        if most is not None and number > most:
            found.append(f"{number} {noun if number == 1 else plural}, at most {most}")
    return found
