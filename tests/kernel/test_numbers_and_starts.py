"""A number alone is nobody's: the probes follow the process that has it only if its start is the one that they were told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

import pytest
from recorded import PATIENCE_S

pytestmark = pytest.mark.root

PROGRAM = """
import json, os, subprocess
from forktrace.kernel.loading import Loading
from forktrace.kernel.probes import Probes

TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")
HERE = os.stat("/proc/self/ns/pid").st_ino
probes = Probes(Loading(stacks=False, attach=True))

def held():
    return subprocess.Popen(["sh", "-c", "read go; exec /bin/true"], stdin=subprocess.PIPE)

def start_ns(process):
    return int(open(f"/proc/{process.pid}/stat").read().rpartition(")")[2].split()[19]) * TICK_NS

def runs_followed(late_ns):
    process = held()
    probes.follow(process.pid, HERE, start_ns(process) + late_ns)
    process.communicate(b"go\\n")
    return b"/bin/true" in probes.read()

def is_attached(late_ns):
    process = held()
    probes.want({process.pid: start_ns(process) + late_ns}, [])
    added, _ = probes.pass_tasks()
    probes.attached()
    process.communicate(b"go\\n")
    return added == 1

def is_wanted_when_gone():
    process = held()
    probes.follow(process.pid, HERE, start_ns(process))
    process.kill()
    process.communicate()
    _, (settings,) = probes._settings.items()
    return bool(settings["target"]["nr"])

lates = (0, TICK_NS, -TICK_NS)
print(json.dumps([[runs_followed(late) for late in lates], [is_attached(late) for late in lates], is_wanted_when_gone()]))
"""


def test_a_number_with_another_start(environment: Mapping[str, str]) -> None:
    """The target is followed, and what runs already, by number and start; a target that ends before its exec is forgotten."""
    line = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert json.loads(done.stdout) == [[True, False, False], [True, False, False], False]
