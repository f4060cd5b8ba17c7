"""gunicorn from a script of one's own: the arbiter forks a worker, and reaps it in its handler of SIGCHLD."""

import os
import signal
import threading
import time

import gunicorn.app.base


class Application(gunicorn.app.base.BaseApplication):
    def load_config(self):
        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("when_ready", lambda server: threading.Thread(target=end, args=(server,), daemon=True).start())

    def load(self):
        return lambda environ, start: []


def end(server):
    while not server.WORKERS:
        time.sleep(0.01)
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


Application().run()  # forks # reaps
