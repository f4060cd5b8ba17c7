"""A command of invoke's, in a terminal of its own."""

import invoke

invoke.run("true", hide=True, in_stream=False, pty=True)  # forks # reaps
