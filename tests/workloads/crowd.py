"""More threads than processors fork at once, each at a line of its own; prints each child with the line that forked it.

crowd.py THREADS CHILDREN: each thread makes so many children, which exit at once.
"""

import json
import os
import sys
import threading

THREADS, CHILDREN = int(sys.argv[1]), int(sys.argv[2])
SOURCE = "def fork_%(name)s():\n%(empty)s    return os.fork()\n"


def forking_function(number):
    """A function that forks at a line of its own."""
    names = {}
    text = SOURCE % {"name": number, "empty": "\n" * number}
    exec(compile(text, "/crowd/thread%d.py" % number, "exec"), {"os": os}, names)
    return names["fork_%d" % number]


def work(number, begin):
    """Fork, and reap each child at once."""
    fork = forking_function(number)
    begin.wait()
    for _ in range(CHILDREN):
        pid = fork()
        if pid == 0:
            os._exit(number % 100)
        os.waitpid(pid, 0)
        said.append({"case": "crowd", "pid": pid, "site": "thread%d.py:%d fork_%d" % (number, number + 2, number)})


said = []
begin = threading.Barrier(THREADS)
threads = [threading.Thread(target=work, args=(number, begin)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for line in said:
    print(json.dumps(line))
