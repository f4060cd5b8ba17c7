"""A cluster of dask's on this machine: each worker is a process of multiprocessing's, started by a thread."""

from distributed import LocalCluster

if __name__ == "__main__":
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None)
    cluster.close()
