"""Makes children from several interpreters of one process: on its main thread by turns, and on threads at the same time."""

import os
import subprocess
import sys
import threading

from witness import VERSION, say

if VERSION >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters

TRUE = ["/bin/true"]
SPAWN = "import os; pid = os.posix_spawn('/bin/true', ['true'], {}); os.write(%d, b'%%d ' %% pid)"
SCRIPT = SPAWN + "\n\n\ndef reap():\n    os.waitpid(pid, 0)\n\n\nreap()\n"
FILE = "<script>" if VERSION >= (3, 14) else "<string>"
CALLED = {"created_by": "subprocess", "reap_cause": "subprocess-wait"}
SPAWNED = {"created_by": "posix-spawn", "reap_cause": "os-wait"}


def here(offset=0):
    caller = sys._getframe(1)
    return "several_interpreters.py:%d %s" % (caller.f_lineno + offset, caller.f_code.co_name)


def calls(case):
    child = subprocess.Popen(TRUE)
    made = here(-1)
    child.wait()
    say(case, child.pid, fork_site=made, reap_site=here(-1), **CALLED)


def runs(interpreter, script):
    """The numbers of the children that a script in another interpreter makes and says."""
    reader, writer = os.pipe()
    interpreters.run_string(interpreter, script % writer)
    os.close(writer)
    with open(reader) as file:
        return [int(word) for word in file.read().split()]


def spawned(case, pids):
    for pid in pids:
        say(case, pid, fork_site=FILE + ":1 <module>", reap_site=FILE + ":5 reap", **SPAWNED)


def main():
    calls("before")
    other = interpreters.create()
    calls("beside an idle one")
    spawned("in another", runs(other, SCRIPT))
    calls("after another ran")
    further = interpreters.create()
    spawned("in a further one", runs(further, SCRIPT))
    spawned("in the first again", runs(other, SCRIPT))
    on_threads(other, further)
    interpreters.destroy(other)
    calls("after one has gone")
    interpreters.destroy(further)
    calls("alone again")


def on_threads(*others):
    """Each on a thread of its own, while this thread makes children too."""
    threads = [threading.Thread(target=on_thread, args=[each]) for each in others]
    for thread in threads:
        thread.start()
    for _ in range(5):
        calls("while others run")
    for thread in threads:
        thread.join()


def on_thread(other):
    """Before 3.13 an interpreter counts as its maker's, whichever thread runs it (docs/limits.md)."""
    spawned("on a thread", runs(other if VERSION >= (3, 13) else interpreters.create(), SCRIPT))


main()
