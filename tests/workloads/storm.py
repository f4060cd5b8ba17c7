"""Forks children that end with known codes as fast as it can; prints their numbers and codes. The last one is never reaped."""

import json
import os
import sys

CHILDREN = 1499


def main():
    """Fork, and wait for all but the last; one in seven is waited for later."""
    said, late = [], []
    for number in range(CHILDREN):
        code = number % 250
        pid = os.fork()
        if pid == 0:
            os._exit(code)
        said.append([pid, code])
        if number == CHILDREN - 1:
            break
        if number % 7 == 0:
            late.append(pid)
        else:
            os.waitpid(pid, 0)
    for pid in late:
        os.waitpid(pid, 0)
    json.dump({"case": "storm", "pid": os.getpid(), "children": said}, sys.stdout)
    print()


main()
