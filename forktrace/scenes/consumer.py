"""Reads tasks from a Kafka topic and starts one process for each, which it never joins.

    python consumer.py 127.0.0.1:9092 tasks

Nothing here waits for a child that has ended, so it stays a zombie until the next `start()` happens to clear it.
The value of a message is how many seconds its child works; the value `stop` ends the program, and so does a
minute without a message (`--patience`). It runs under Python 2.7 too, where multiprocessing did the same.
"""

from __future__ import print_function

import argparse
import multiprocessing
import os
import sys
import time

from kafka import KafkaConsumer

# Named, because from Python 3.14 on the default is forkserver, and then the children are those of the fork server.
fork = multiprocessing.get_context("fork") if sys.version_info >= (3, 4) else multiprocessing


def consume(servers, topic, api_version, patience):
    """Yield the value of each message of the topic, from the oldest on: the consumer utility."""
    settings = {
        "bootstrap_servers": servers,
        "group_id": None,
        "auto_offset_reset": "earliest",
        "consumer_timeout_ms": int(patience * 1000),
        "metadata_max_age_ms": 1000,  # kafka-python 3 may lose the topic as it starts, and else asks again in 5 minutes
    }
    if api_version:
        settings["api_version"] = api_version
    for message in KafkaConsumer(topic, **settings):
        yield message.value.decode()


def say(text):
    """Print a line with one write, since several children print at the same time."""
    sys.stdout.write("{} {}\n".format(os.getpid(), text))
    sys.stdout.flush()


def execute(seconds):
    """Work on one task: what a child does."""
    say("works for {:.2f} s".format(seconds))
    time.sleep(seconds)
    say("is done")


def consume_task(seconds):
    """Hand one task to a process of its own."""
    process = fork.Process(target=execute, args=(seconds,))
    process.start()


def main():
    """Start one process per message: what the main process does."""
    options = argparse.ArgumentParser(description="Start one process per message of a Kafka topic.")
    options.add_argument("servers", help="HOST:PORT of a broker, or of several with commas between")
    options.add_argument("topic")
    options.add_argument("--api-version", type=lambda text: tuple(map(int, text.split("."))), help="0.10 [default: asks]")
    options.add_argument("--patience", type=float, default=60, help="seconds without a message until it ends [default: 60]")
    given = options.parse_args()
    say("reads {} from {}".format(given.topic, given.servers))
    for value in consume(given.servers, given.topic, given.api_version, given.patience):
        if value == "stop":
            break
        consume_task(float(value))


if __name__ == "__main__":
    main()
