"""psutil's Popen is subprocess's, and its wait a call of its own."""

import psutil

child = psutil.Popen(["true"])  # forks
child.wait()  # reaps
