"""A command or a choice of processes -> a recording: starts or finds the target, and talks to the recorder."""
