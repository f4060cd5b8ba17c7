"""A release that no probe sees: some machines keep the probes from running while certain processes do."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from recorded import PATIENCE_S

pytestmark = pytest.mark.root

CHILDREN = 199
# Follows a shell with its children, without the probe that sees releases.
FOLLOW = """
import json, os, subprocess, sys, time
from forktrace.kernel.loading import Loading
from forktrace.kernel.probes import Probes

probes = Probes(Loading(stacks=False))
os.close(next(probes._descriptors.pop(name) for name in list(probes._descriptors) if name.endswith(" sched_process_free")))
shell = subprocess.Popen(["sh", "-c", 'read start; exec "$@"', "sh", *sys.argv[1:]], stdin=subprocess.PIPE)
start_ns = int(open(f"/proc/{shell.pid}/stat").read().rpartition(")")[2].split()[19]) * 10_000_000
probes.follow(shell.pid, os.stat("/proc/self/ns/pid").st_ino, start_ns)
shell.communicate(b"start\\n")
time.sleep(1)  # until the last of them is released
"""
LOOP = f"i=0; while [ $i -lt {CHILDREN} ]; do /bin/true followed; i=$((i+1)); done"
# Others come, which are not to be followed.
FOREIGN = """
before = len(probes.read())
for _ in range(CHILDREN):
    subprocess.run(["/bin/true", "foreign"], check=True)
data = probes.read()
print(json.dumps({"seen": before > 0, "foreign": data.count(b"foreign")}))
"""


def test_an_identity_is_not_inherited(environment: Mapping[str, str]) -> None:
    """A process of others that gets the address of one that is gone is not taken for it."""
    assert unseen(FOREIGN.replace("CHILDREN", str(CHILDREN)), ["sh", "-c", LOOP], environment) == {"seen": True, "foreign": 0}


def unseen(program: str, command: list[str], environment: Mapping[str, str]) -> Any:
    """What `program` says (JSON) after the command has run, followed without the probe that sees releases."""
    line = [sys.executable, "-c", FOLLOW + program, *command]
    done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S, check=True)
    return json.loads(done.stdout)


# A parent that ignores SIGCHLD, with a child; and the init of a PID namespace that dies with a zombie and a child that lives.
RELEASED_ALONE = """
import os, signal, sys, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.fork() or os._exit(4)
time.sleep(0.2)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
os.execlp("unshare", "unshare", "--pid", "--fork", sys.executable, "-c", '''
import os, time
os.fork() or os._exit(5)
os.fork() or time.sleep(60)
time.sleep(0.2)
os._exit(6)
''')
"""
SAID_AT_THE_END = """
from forktrace.recorder.closing import vanished
from forktrace.recorder.rows import split
from forktrace.system.procfs import Proc
from forktrace.trace.events import CALLS

def released(data):
    records, _ = split(data)
    reaps = records["reap"]["call"].tolist() if "reap" in records else []
    return [len(records.get("autoreap", ())), sorted(CALLS[one] for one in reaps)]

data = probes.read()  # one whose address has a new owner is in it
gone = vanished(probes.following(), Proc())
probes.release(gone)
first = released(data + probes.read())
probes.release(gone)
print(json.dumps([first, released(probes.read()), len(probes.following())]))
"""


def test_the_end_says_how_they_were_released(environment: Mapping[str, str]) -> None:
    """What is not in /proc any more is reported at the end as it would have been at its release, and once."""
    first, again, left = unseen(SAID_AT_THE_END, [sys.executable, "-c", RELEASED_ALONE], environment)
    assert first == [1, ["kernel", "kernel", "wait4", "wait4"]], "unshare waits for the init, and this program for the command"
    assert again == [0, []]
    assert left == 0


# Others come whose birth no probe sees either. They call exec, or fork, or inherit a child and wait for it.
UNSEEN_FROM_BIRTH = """
import ctypes
from forktrace.kernel import loading
from forktrace.kernel.btf import Btf
from forktrace.kernel.facts import facts_of
from forktrace.recorder.rows import split
from forktrace.system.machine import this_machine

def wait_for_start():
    os.write(is_ready, b".")
    os.read(start, 1)

def inherit():
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    if os.fork() == 0:
        if os.fork() == 0:
            wait_for_start()
            os._exit(0)
        os.read(start, 1)
        os._exit(0)
    os.wait(), os.wait()

def foreign(number):
    if number % 3 == 0:
        return inherit()
    wait_for_start()
    if number % 3 == 1:
        os.execv("/bin/true", ["true"])
    subprocess.run(["/bin/true"])

before = len(probes.read())
births = ("task_newtask", *loading._FORKS)  # these also see the child return
for name in [name for name in probes._descriptors if name.endswith(tuple(f" {each}" for each in births))]:
    os.close(probes._descriptors.pop(name))
(start, go), (ready, is_ready) = os.pipe(), os.pipe()
for number in range(CHILDREN):
    if os.fork() == 0:
        os.close(go)
        foreign(number)
        os._exit(0)
for _ in range(CHILDREN):
    os.read(ready, 1)
hooks = [one for one in loading._hooks(facts_of(Btf(), this_machine()).values) if one.program == "on_fork"]
again = list(loading._attached(hooks, {"on_fork": [probes._descriptors["program on_fork 0"]]}))
os.close(go)
for _ in range(CHILDREN):
    os.wait()
records, _ = split(probes.read())
print(json.dumps([before > 0, sorted(records.keys() & {"fork", "exec", "exit", "wait", "reap"})]))
"""


def test_nor_where_its_birth_was_unseen(environment: Mapping[str, str]) -> None:
    """Nor is one that was made by a process while which no probe runs: that is noticed as soon as it acts, or inherits."""
    program = UNSEEN_FROM_BIRTH.replace("CHILDREN", str(CHILDREN))
    assert unseen(program, ["sh", "-c", LOOP], environment) == [True, []]
