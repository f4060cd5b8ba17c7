"""A cluster of dask's: a thread starts each worker as a process of multiprocessing's; `advised` as a thread."""

import sys

from distributed import LocalCluster

if __name__ == "__main__":
    processes = "advised" not in sys.argv
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=processes, dashboard_address=None)
    cluster.close()
