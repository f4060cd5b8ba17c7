"""billiard, the copy of multiprocessing that Celery uses."""

import billiard

child = billiard.Process(target=len, args=("",))
child.start()  # forks
child.join()  # reaps
