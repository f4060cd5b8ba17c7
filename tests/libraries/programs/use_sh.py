"""A command of sh's; whichever of two threads comes first reaps it."""

import sh

sh.Command("true")()  # forks
