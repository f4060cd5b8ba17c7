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
