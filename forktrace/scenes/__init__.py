"""The programs of `forktrace demo`: short, real, importing nothing of forktrace; each runs and reads alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple


class Scene(NamedTuple):
    """One scene: the program that is recorded, the one that feeds it from outside, and the modules both need."""

    name: str
    summary: str
    program: Path
    feeder: Path
    modules: tuple[str, ...]
    packages: tuple[str, ...]


_HERE = Path(__file__).parent

SCENES: Final = (
    Scene(
        "kafka",
        "a Kafka consumer starts one process per message and never joins it: singly, then in a burst",
        _HERE / "consumer.py",
        _HERE / "broker.py",
        ("kafka", "confluent_kafka"),
        ("kafka-python", "confluent-kafka"),
    ),
)


def scene(name: str) -> Scene:
    """Return the scene called `name`.

    Raises:
        KeyError: there is none.
    """
    return {each.name: each for each in SCENES}[name]
