"""Starts processes of multiprocessing in every way, and prints the numbers of those in its set of children; then sleeps."""

import multiprocessing
import sys
import time


class Worker(multiprocessing.Process):
    """Has more attributes than the class it is made of, and a dict of its own once somebody asked for it."""

    def __init__(self, seconds):
        super(Worker, self).__init__(target=time.sleep, args=(seconds,))
        self.seconds = seconds
        self.daemon = True


def main():
    fork = multiprocessing.get_context("fork")
    started = []
    for number in range(20):
        process = fork.Process(target=time.sleep, args=(1000,)) if number % 2 else Worker(1000)
        process.daemon = True
        process.start()
        if number % 3 == 0:
            vars(process)["more"] = number
        started.append(process)
    for process in started[::4]:
        process.terminate()
        process.join()
    sys.stdout.write(" ".join(str(process.pid) for process in multiprocessing.active_children()) + "\n")
    sys.stdout.flush()
    time.sleep(1000)


if __name__ == "__main__":
    main()
