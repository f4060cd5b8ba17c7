"""A pool of billiard's."""

import billiard

pool = billiard.Pool(1)  # forks
pool.apply(len, ("",))
pool.close()
pool.join()  # reaps
