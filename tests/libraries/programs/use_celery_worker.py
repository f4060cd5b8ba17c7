"""A worker of Celery's with a pool of billiard's, `advised` of threads, over a broker in files; it ends with its task."""

import os
import signal
import sys
import tempfile
import threading

import celery

folder = tempfile.mkdtemp()
files = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
app = celery.Celery("tasks", broker="filesystem://", backend=f"file://{folder}", broker_transport_options=files)


@app.task
def work():
    return 7


if __name__ == "__main__":
    result = work.delay()

    def end():
        result.get(timeout=60)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, daemon=True).start()
    pool = "threads" if "advised" in sys.argv else "prefork"
    app.worker_main(["worker", "--pool", pool, "--concurrency", "1", "--loglevel", "ERROR"])  # forks # reaps
