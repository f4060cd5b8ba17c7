"""A release that no probe sees: some machines keep the probes from running while certain processes do."""

import json
import subprocess
import sys
from collections.abc import Mapping

import pytest
from recorded import PATIENCE_S

pytestmark = pytest.mark.root

CHILDREN = 199
# Follows a shell with its children, without the probe that sees releases. Then others come, which are not to be followed.
PROGRAM = """
import json, os, subprocess, time
from forktrace.kernel.loading import Loading
from forktrace.kernel.probes import Probes

probes = Probes(Loading(stacks=False))
os.close(next(probes._descriptors.pop(name) for name in list(probes._descriptors) if name.endswith(" sched_process_free")))
loop = f"i=0; while [ $i -lt {CHILDREN} ]; do /bin/true followed; i=$((i+1)); done"
shell = subprocess.Popen(["sh", "-c", "read start; exec sh -c '%s'" % loop], stdin=subprocess.PIPE)
start_ns = int(open(f"/proc/{shell.pid}/stat").read().rpartition(")")[2].split()[19]) * 10_000_000
probes.follow(shell.pid, os.stat("/proc/self/ns/pid").st_ino, start_ns)
shell.communicate(b"start\\n")
time.sleep(1)  # until the last of them is released
before = len(probes.read())
for _ in range({CHILDREN}):
    subprocess.run(["/bin/true", "foreign"], check=True)
data = probes.read()
print(json.dumps({"seen": before > 0, "foreign": data.count(b"foreign")}))
"""


def test_an_identity_is_not_inherited(environment: Mapping[str, str]) -> None:
    """A process of others that gets the address of one that is gone is not taken for it."""
    program = PROGRAM.replace("{CHILDREN}", str(CHILDREN))
    line = [sys.executable, "-c", program]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert json.loads(done.stdout) == {"seen": True, "foreign": 0}
