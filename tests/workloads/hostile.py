"""Forks from code that says of itself to stand in line 2 of each of the files argv[1:], whatever they are."""

import os
import sys

for file in sys.argv[1:]:
    exec(compile("\nif not os.fork():\n    os._exit(0)\nos.wait()", file, "exec"), {"os": os})
