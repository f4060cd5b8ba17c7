"""gevent's subprocess, whose child the loop reaps in C."""

from gevent import subprocess

child = subprocess.Popen(["true"])  # forks
child.wait()  # reaps
