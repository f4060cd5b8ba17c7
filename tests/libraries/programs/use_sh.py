"""A command of sh's, which a thread of it waits for."""

import sh

sh.Command("true")()  # forks # reaps
