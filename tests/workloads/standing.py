"""Stands still in several threads, and says where each stands: under Python 2.7 and every later one, until it is killed.

`standing.py`: for each thread a line `{"tid": ..., "frames": [[file, line, name], ...]}`, the outermost first,
without `hold` itself.
`standing.py busy`: one thread that calls `leaf` without end.
"""

import json
import os
import re
import sys
import threading
import time

LOCK = threading.Lock()
ELSEWHERE = "/\u00e9\u20ac/\U0001f40d.py" if sys.version_info > (3,) else "/\u00e9\u20ac/\U0001f40d.py".encode("utf-8")


def text(name):
    return name.decode("utf-8") if isinstance(name, bytes) else name


def hold(*_):
    frames, frame = [], sys._getframe(1)
    while frame is not None:
        frames.append([text(frame.f_code.co_filename), frame.f_lineno, text(frame.f_code.co_name)])
        frame = frame.f_back
    tid = int(os.readlink("/proc/thread-self").rpartition("/")[2])
    with LOCK:
        os.write(1, json.dumps({"tid": tid, "frames": frames[::-1]}).encode() + b"\n")
    time.sleep(1000)


def generator():
    yield hold()


def in_generator():
    for _ in generator():
        pass


def in_callback():
    re.sub("x", lambda match: hold(), "x")


class Made(object):
    def __init__(self):
        hold()


def in_class():
    Made()


def deep(depth=300):
    if depth:
        return deep(depth - 1)
    return hold()


def too_deep():
    sys.setrecursionlimit(3000)
    deep(1500)


def far_lines():
    exec(compile("\n" * 300 + "def f():\n" + "\n" * 300 + "    hold(\n1,\n  2)\n\n\nf()\n", ELSEWHERE, "exec"), {"hold": hold})


def leaf(number):
    return number + 1


def spin():
    while True:
        leaf(leaf(1))


def main():
    if sys.argv[1:] == ["busy"]:
        os.write(1, b"busy\n")
        spin()
    threading.stack_size(32 << 20)
    for target in (in_generator, in_callback, in_class, deep, too_deep, far_lines):
        thread = threading.Thread(target=target)
        thread.daemon = True
        thread.start()
    hold()


if __name__ == "__main__":
    main()
