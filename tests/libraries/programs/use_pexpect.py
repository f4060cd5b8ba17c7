"""A child of pexpect's in a terminal of its own."""

import pexpect

child = pexpect.spawn("sleep 0.5")  # forks
child.wait()  # reaps
