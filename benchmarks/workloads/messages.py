"""messages.py COUNT: starts a process for each of that many messages, 200 a second, and joins none, like the Kafka consumer."""

import multiprocessing
import sys
import time


def task():
    """Do nothing."""


def consume(count):
    """Start them."""
    for _ in range(count):
        process = context.Process(target=task)
        process.start()
        time.sleep(0.005)


context = multiprocessing.get_context("fork")
consume(int(sys.argv[1]))
