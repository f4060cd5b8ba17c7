"""Runs commands one after the other, `NAME=COMMAND` each, and prints what they print as JSON lines, tagged with the name."""

import json
import shlex
import subprocess
import sys

for argument in sys.argv[1:]:
    name, _, command = argument.partition("=")
    done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line in [*lines, {"case": "program", "status": done.returncode}]:
        print(json.dumps({"program": name} | line), flush=True)
