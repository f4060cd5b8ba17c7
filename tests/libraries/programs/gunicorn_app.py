"""For gunicorn's own script: `gunicorn -c gunicorn_app.py gunicorn_app:app`; the server ends when its worker has come."""

import os
import signal
import threading
import time

bind = "127.0.0.1:0"


def when_ready(server):
    threading.Thread(target=end, args=(server,), daemon=True).start()


def end(server):
    while not server.WORKERS:
        time.sleep(0.01)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]
