"""joblib's workers are loky's, which its executor keeps until the program ends; `advised` threads."""

import sys

import joblib
from joblib.externals.loky import get_reusable_executor

prefer = "threads" if "advised" in sys.argv else None
joblib.Parallel(n_jobs=2, prefer=prefer)(joblib.delayed(len)("") for _ in range(4))  # forks
if prefer is None:
    get_reusable_executor().shutdown(wait=True)
