"""kernel -> trace: the running kernel comes in, a trace file goes out (Linux, root)."""
