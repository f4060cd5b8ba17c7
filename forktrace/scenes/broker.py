"""Feeds tasks to consumer.py through a Kafka broker: that of librdkafka on loopback, which needs no Java, or any other.

    python broker.py [--speed X] [--burst N] [--bootstrap-servers HOST:PORT]

Prints the arguments with which consumer.py reads from it. Reads from stdin what the consumer prints, so
that no message comes too early: the pauses below begin when the tasks before them are done. When stdin ends, the consumer
is told to stop and the broker on loopback ends. In any other broker it makes a topic, and deletes it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
import time
import uuid
from functools import partial
from typing import Final, NoReturn

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

CONNECT_S: Final = 10.0  # for a broker to answer for the first time
PATIENCE_S: Final = 30.0  # for a broker to do what it is asked to
TRIES: Final = 6  # to deliver a message within that time
START_S: Final = 0.08  # for the consumer to start a process, on a slow machine: none of a burst ends before all have begun

heard = threading.Event()  # the consumer runs
done = threading.Semaphore(0)  # one for each task that is done
stopped = threading.Event()  # the consumer was told to stop


def schedule(burst: int, speed: float) -> list[tuple[list[float], float]]:
    """Return what to send: seconds of work of messages sent at once, and how long nothing comes once they are done.

    In these pauses the children are zombies.
    """
    one, first = [0.3 / speed], max(0.4 / speed, burst * START_S)
    together = [first + 0.4 / speed * number / max(burst - 1, 1) for number in range(burst)]
    return [(one, 1.2 / speed)] * 3 + [(together, 1.5 / speed), (one, 0.5 / speed)]


class Topic:
    """A topic of one partition, in the broker on loopback or in the one at `servers`."""

    def __init__(self, servers: str | None) -> None:
        # Without its log, which would say twenty times a second that nobody answers.
        quiet: dict[str, str | int | float | bool] = {"log_level": 0}
        quiet |= {"bootstrap.servers": servers} if servers else {"test.mock.num.brokers": 1}
        self._producer = Producer(quiet)
        broker = next(iter(self._producer.list_topics(timeout=CONNECT_S).brokers.values()))
        self.servers = servers or f"{broker.host}:{broker.port}"
        self.name = f"forktrace-demo-{uuid.uuid4()}" if servers else "tasks"
        self._admin = AdminClient(quiet) if servers else None
        if self._admin is not None:  # bool() of an AdminClient is False
            self._admin.create_topics([NewTopic(self.name, 1)], request_timeout=PATIENCE_S)[self.name].result()
        self._producer.list_topics(self.name, timeout=PATIENCE_S)  # which makes it, in the broker on loopback
        self._client = self._producer  # which must not be deleted: the broker on loopback is in it

    def send(self, *values: str) -> None:
        """Send messages in this order and wait until the broker has them.

        A client of the broker on loopback was seen to deliver nothing for a minute, on a busy machine: then a new one goes on.
        """
        left = list(values)
        for _ in range(TRIES):
            for value in left:
                self._client.produce(self.name, value, partition=0, on_delivery=partial(self._delivered, left))
            self._client.flush(PATIENCE_S / TRIES)
            if not left:
                return
            self._client.purge()
            self._client = Producer({"bootstrap.servers": self.servers, "log_level": 0})
        raise TimeoutError(f"the broker did not take a message within {PATIENCE_S:.0f} s")

    @staticmethod
    def _delivered(left: list[str], error: KafkaError | None, message: Message) -> None:
        if error is None:
            left.remove((message.value() or b"").decode())

    def leave(self) -> NoReturn:
        """Delete the topic in a broker that is not ours, and end at once; the broker on loopback ends with this process."""
        try:
            if self._admin is not None:  # bool() of an AdminClient is False
                self._admin.delete_topics([self.name], request_timeout=PATIENCE_S)[self.name].result()
        except KafkaException as error:
            print(f"{sys.argv[0]}: topic {self.name} stays: {error}", file=sys.stderr)
        finally:
            os._exit(0)


def follow(topic: Topic) -> None:
    """Count the tasks that the consumer reports as done; at the end of stdin the demonstration is over."""
    try:
        for line in sys.stdin:
            heard.set()
            if line.endswith("is done\n"):
                done.release()
        if heard.is_set() and not stopped.is_set():
            topic.send("stop")
            time.sleep(5)  # for the consumer to fetch it: nobody is left to say that it has
    finally:
        topic.leave()


def main() -> None:
    """Send the tasks of the schedule, then `stop`."""
    options = argparse.ArgumentParser(description="Feed consumer.py through a Kafka broker.")
    options.add_argument("--speed", type=float, default=1.0, help="divides all times")
    options.add_argument("--burst", type=int, default=5, help="messages of the burst")
    options.add_argument("--bootstrap-servers", help="a running broker [default: one on loopback]")
    given = options.parse_args()
    try:
        topic = Topic(given.bootstrap_servers)
    except KafkaException as error:
        sys.exit(f"{given.bootstrap_servers or 'the broker on loopback'}: {error.args[0].str()}")
    signal.signal(signal.SIGTERM, lambda *_: topic.leave())
    # The protocol of 0.10, because kafka-python 3 takes the broker on loopback for a newer one when it asks.
    version = [] if given.bootstrap_servers else ["--api-version", "0.10"]
    print(shlex.join([topic.servers, topic.name, *version]), flush=True)
    follower = threading.Thread(target=follow, args=(topic,))
    follower.start()
    for tasks, pause_s in schedule(given.burst, given.speed):
        topic.send(*(f"{seconds:.3f}" for seconds in tasks))
        for _ in tasks:
            done.acquire()
        time.sleep(pause_s)
    topic.send("stop")
    stopped.set()
    follower.join()


if __name__ == "__main__":
    main()
