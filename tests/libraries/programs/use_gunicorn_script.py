"""gunicorn from a script of one's own: the arbiter forks a worker, and reaps it when SIGCHLD has come."""

import gunicorn.app.base
from gunicorn_app import when_ready


class Application(gunicorn.app.base.BaseApplication):
    def load_config(self):
        self.cfg.set("bind", "127.0.0.1:0")
        self.cfg.set("when_ready", when_ready)

    def load(self):
        return lambda environ, start: []


Application().run()  # forks # reaps
