"""A child of pexpect's in a terminal of its own."""

import pexpect

child = pexpect.spawn("true")  # forks
child.expect(pexpect.EOF)
child.wait()  # reaps
