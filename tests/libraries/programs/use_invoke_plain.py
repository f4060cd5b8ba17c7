"""A command of invoke's, through pipes."""

import invoke

invoke.run("true", hide=True, in_stream=False)  # forks # reaps
