"""loky's executor, shut down."""

import loky

executor = loky.ProcessPoolExecutor(1)
executor.submit(len, "").result()  # forks
executor.shutdown(wait=True)
