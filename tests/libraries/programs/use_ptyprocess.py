"""A child of ptyprocess's, which pexpect uses."""

import ptyprocess

child = ptyprocess.PtyProcess.spawn(["true"])  # forks
child.wait()  # reaps
