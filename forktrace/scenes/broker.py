"""A Kafka broker on loopback that feeds tasks to consumer.py: librdkafka's, the real protocol without Java.

    python broker.py [--speed X]

Prints the arguments with which consumer.py reads from it. Reads on stdin what the consumer prints, and so never sends
a message before the consumer is where it should be: the pauses below begin when the tasks before them are done. When
stdin ends, the consumer is told to stop and the broker is gone.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from typing import Final

from confluent_kafka import Producer

TOPIC: Final = "tasks"

# Seconds of work of messages sent at once, and how long nothing comes once they are done: the children are zombies then.
SCHEDULE: Final = (
    ((0.3,), 1.2),
    ((0.3,), 1.2),
    ((0.3,), 1.2),
    ((0.4, 0.5, 0.6, 0.7, 0.8), 1.5),
    ((0.3,), 0.5),
)

heard = threading.Event()  # the consumer runs
done = threading.Semaphore(0)  # one for each task that is done
stopped = threading.Event()  # the consumer was told to stop


def start_broker() -> tuple[Producer, str]:
    """Start the broker; return a producer for it and its address. It lives as long as the producer."""
    producer = Producer({"test.mock.num.brokers": 1, "log_level": 4})
    broker = next(iter(producer.list_topics(TOPIC, timeout=10).brokers.values()))
    return producer, f"{broker.host}:{broker.port}"


def send(producer: Producer, *values: str) -> None:
    """Send messages in this order and wait until the broker has them."""
    for value in values:
        producer.produce(TOPIC, value, partition=0)
    if producer.flush(10):
        raise TimeoutError("the embedded broker did not take a message within 10 s")


def follow(producer: Producer) -> None:
    """Count the tasks that the consumer reports as done; when nobody passes on what it says, the show is over."""
    try:
        for line in sys.stdin:
            heard.set()
            if line.endswith("is done\n"):
                done.release()
        if heard.is_set() and not stopped.is_set():
            send(producer, "stop")
            time.sleep(5)  # for the consumer to fetch it: nobody is left to say that it has
    finally:
        os._exit(0)


def main() -> None:
    """Send the tasks of the schedule, then `stop`."""
    options = argparse.ArgumentParser(description="Feed consumer.py from a Kafka broker on loopback.")
    options.add_argument("--speed", type=float, default=1.0)
    speed = options.parse_args().speed
    producer, address = start_broker()
    # The protocol of 0.10, because kafka-python 3 takes this broker for a newer one when it asks.
    print(address, TOPIC, "--api-version 0.10", flush=True)
    follower = threading.Thread(target=follow, args=(producer,))
    follower.start()
    for tasks, pause_s in SCHEDULE:
        send(producer, *(f"{seconds / speed:.3f}" for seconds in tasks))
        for _ in tasks:
            done.acquire()
        time.sleep(pause_s / speed)
    send(producer, "stop")
    stopped.set()
    follower.join()


if __name__ == "__main__":
    main()
