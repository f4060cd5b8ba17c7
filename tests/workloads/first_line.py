"""Forks as soon as it runs, when nobody can know its interpreter yet, and again when it can be known: two witness lines."""

import posix

first = posix.fork() or posix._exit(0)

import json  # noqa: E402
import time  # noqa: E402

time.sleep(0.5)
again = posix.fork() or posix._exit(0)

for event, pid, line in (("first", first, 5), ("again", again, 11)):
    posix.waitpid(pid, 0)
    told = {"case": "first-line", "what": "stack", "event": event, "pid": pid, "frames": [[__file__, line, "<module>"]]}
    print(json.dumps(told))
