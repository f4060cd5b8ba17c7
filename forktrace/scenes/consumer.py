"""Reads tasks from a Kafka topic and starts one process for each, which it never joins.

Nothing here waits for a child that has ended, so it stays a zombie, until the next `start()` happens to sweep it away.

    python consumer.py 127.0.0.1:9092 tasks

The value of a message is how many seconds its child works; the value `stop` ends the program, and so do 30 s of silence.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Iterator

from kafka import KafkaConsumer

# Named, because from Python 3.14 on the default is forkserver, and then the children are those of the fork server.
fork = multiprocessing.get_context("fork")


def consume(servers: str, topic: str, api_version: tuple[int, ...] | None) -> Iterator[float]:
    """Yield the seconds of work that each message asks for, from the oldest message on."""
    messages = KafkaConsumer(
        topic,
        bootstrap_servers=servers,
        group_id=None,
        auto_offset_reset="earliest",
        consumer_timeout_ms=30_000,
        **({"api_version": api_version} if api_version else {}),
    )
    for message in messages:
        if message.value == b"stop":
            return
        yield float(message.value)


def say(text: str) -> None:
    """Print one line in one piece, since several children print at the same time."""
    print(f"{os.getpid()} {text}\n", end="", flush=True)


def execute(seconds: float) -> None:
    """Work on one task; this is what a child does."""
    say(f"works for {seconds:.2f} s")
    time.sleep(seconds)
    say("is done")


def consume_task(seconds: float) -> None:
    """Hand one task to a process of its own."""
    process = fork.Process(target=execute, args=(seconds,))
    process.start()


def main() -> None:
    """Start one process per message."""
    options = argparse.ArgumentParser(description="Start one process per message of a Kafka topic.")
    options.add_argument("servers")
    options.add_argument("topic")
    options.add_argument("--api-version", type=lambda text: tuple(map(int, text.split("."))), help="0.10 [default: asks]")
    given = options.parse_args()
    say(f"reads {given.topic} from {given.servers}")
    for seconds in consume(given.servers, given.topic, given.api_version):
        consume_task(seconds)


if __name__ == "__main__":
    main()
