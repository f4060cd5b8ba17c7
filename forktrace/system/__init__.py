"""/proc and other files of the kernel -> facts of this machine: processes, users, rights, limits, the processor."""
