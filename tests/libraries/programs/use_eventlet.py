"""subprocess that eventlet has patched: it polls and sleeps."""

import eventlet

eventlet.monkey_patch()

import subprocess  # noqa: E402

child = subprocess.Popen(["true"])  # forks
child.wait()  # reaps
