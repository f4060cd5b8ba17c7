"""A program to freeze. Each line that makes children says how they are made, and why they are reaped."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import time


def starts(method):
    context = multiprocessing.get_context(method)
    child = context.Process(target=len, args=("",))
    child.start()  # multiprocessing join
    child.join()


def sweeps():
    context = multiprocessing.get_context("fork")
    child = context.Process(target=len, args=("",))
    child.start()  # multiprocessing next-start
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        time.sleep(0.01)
    other = context.Process(target=len, args=("",))
    other.start()  # multiprocessing join
    other.join()


def main():
    starts("fork")
    starts("spawn")
    sweeps()
    with multiprocessing.get_context("fork").Pool(1) as pool:  # pool pool
        pool.map(len, [""])
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as executor:
        executor.submit(len, "").result()  # executor executor
    subprocess.run(["/bin/true"], check=True)  # subprocess subprocess-wait
    os.fork() or os._exit(0)  # os-fork os-wait
    os.wait()


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(main())
