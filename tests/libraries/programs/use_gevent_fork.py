"""os.fork that gevent has patched: join and waitpid wait through its hub."""

from gevent import monkey

monkey.patch_all()

import multiprocessing  # noqa: E402

child = multiprocessing.get_context("fork").Process(target=len, args=("",))
child.start()  # forks
child.join()  # reaps
