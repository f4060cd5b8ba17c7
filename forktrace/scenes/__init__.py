"""The programs of `forktrace demo`: short, real, importing nothing of forktrace; each can be run and read by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple


class Scene(NamedTuple):
    """One scene: the program that is recorded, the one that feeds it from outside, and the modules that they need.

    The program is run with `--speed X`: all its times are divided by X. With a feeder it is the feeder that
    is run so, and the program gets the arguments that the feeder prints.
    """

    name: str
    summary: str
    program: Path
    feeder: Path | None = None
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()  # those with the modules, by their names for pip


_HERE = Path(__file__).parent

# The first whose modules are there is what `forktrace demo` shows: kafka, else start.
SCENES: Final = (
    Scene(
        "kafka",
        "a Kafka consumer starts one process per message and never joins it: singly, then in a burst",
        _HERE / "consumer.py",
        _HERE / "broker.py",
        ("kafka", "confluent_kafka"),
        ("kafka-python", "confluent-kafka"),
    ),
    Scene(
        "start",
        "two processes that nobody joins: the second start clears the zombie of the first",
        _HERE / "start.py",
    ),
    Scene(
        "methods",
        "two processes by each start method, fork, spawn and forkserver: whose children they are, and who reaps them",
        _HERE / "methods.py",
    ),
    Scene(
        "join",
        "every call by which a Process is watched or ended: which calls wait, which look, which reap",
        _HERE / "join.py",
    ),
    Scene(
        "exits",
        "six ways to exit, from a main program and from two kinds of child: what still runs then",
        _HERE / "exits.py",
    ),
    Scene(
        "fixes",
        "one consumer and all that it can do about its zombies: what helps, and what it costs",
        _HERE / "fixes.py",
    ),
    Scene(
        "stolen",
        "one part of a program takes the exit status that another waits for; then the same, fixed",
        _HERE / "stolen.py",
    ),
    Scene(
        "pid1",
        "a program that is PID 1, as in a container, inherits orphans and never reaps them; then the same, fixed",
        _HERE / "pid1.py",
    ),
)


def scene(name: str) -> Scene:
    """Return the scene called `name`.

    Raises:
        KeyError: there is none.
    """
    return {each.name: each for each in SCENES}[name]
