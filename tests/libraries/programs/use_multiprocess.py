"""multiprocess, the copy of multiprocessing that pickles by dill."""

import multiprocess

child = multiprocess.get_context("fork").Process(target=len, args=("",))
child.start()  # forks
child.join()  # reaps
