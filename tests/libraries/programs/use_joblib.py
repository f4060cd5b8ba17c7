"""joblib's workers are loky's, which its executor keeps until the program ends."""

import joblib
from joblib.externals.loky import get_reusable_executor

joblib.Parallel(n_jobs=2)(joblib.delayed(len)("") for _ in range(4))  # forks
get_reusable_executor().shutdown(wait=True)
