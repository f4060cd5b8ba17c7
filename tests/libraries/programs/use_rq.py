"""A worker of rq's forks a horse for each job; `advised` one that does not."""

import sys

import fakeredis
import rq

connection = fakeredis.FakeStrictRedis()
queue = rq.Queue(connection=connection)
queue.enqueue(len, "")
kind = rq.SimpleWorker if "advised" in sys.argv else rq.Worker
worker = kind([queue], connection=connection)
worker.work(burst=True)  # forks # reaps
