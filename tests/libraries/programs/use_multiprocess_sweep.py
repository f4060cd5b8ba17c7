"""A start of multiprocess sweeps away the child that ended before it."""

import os
import time

import multiprocess

context = multiprocess.get_context("fork")
child = context.Process(target=len, args=("",))
child.start()  # forks
while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
    time.sleep(0.01)
other = context.Process(target=len, args=("",))
other.start()  # reaps
other.join()
