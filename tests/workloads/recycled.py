"""Makes COUNT functions from text, one after the other, calls each and forgets it, so that addresses are used again.

Each waits in vain for a number of its own, which no process can have; every 20th forks a child as well, which is reaped.
Prints a line with each call's stack, as stacks.py does, and how many addresses the functions' code was at.
"""

import os
import random
import sys

sys.dont_write_bytecode = True

from stacks import CASE, LINES, Fails, forked, line_of, look, noted, write  # noqa: E402

FIRST_NUMBER = 1 << 23  # beyond any pid_max
CALLS = ("os.waitpid(noted('echild', number, look()), 0)", "return forked(look(), os.fork()) or os._exit(0)")


def source_of(number, call):
    """The text and the name of a function: many have a first line, a file, a length or a name in common with others."""
    name = "f%d" % (number if number % 3 else number % 5)
    between = random.randrange(3, 9)
    lines = [""] * random.randrange(40) + ["def %s(number):" % name]
    lines += ["    x = %d" % random.choice((1, 300, 70000)) for _ in range(between)]
    lines += [""] * random.randrange(3) + ["    " + call] + ["    x = 2"] * (12 - between)
    return "\n".join(lines) + "\n", name


def main():
    random.seed(1)
    CASE[0] = "recycled"
    addresses = set()
    for number in range(int(sys.argv[1])):
        forks = number % 20 == 7
        source, name = source_of(number, CALLS[forks])
        names = {"os": os, "look": look, "noted": noted, "forked": forked}
        exec(compile(source, "/srv/generated-%d.py" % (number % 7), "exec"), names)
        addresses.add(id(names[name].__code__))
        if forks:
            os.waitpid(names[name](number), 0)
        else:
            with Fails(OSError):
                names[name](FIRST_NUMBER + number)
        names.clear()
    LINES.append(line_of(what="addresses", addresses=len(addresses)))
    write(b"".join(LINES))


if __name__ == "__main__":
    main()
