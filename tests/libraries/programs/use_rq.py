"""A worker of rq's forks a horse for each job."""

import fakeredis
import rq

connection = fakeredis.FakeStrictRedis()
queue = rq.Queue(connection=connection)
queue.enqueue(len, "")
worker = rq.Worker([queue], connection=connection)
worker.work(burst=True)  # forks # reaps
