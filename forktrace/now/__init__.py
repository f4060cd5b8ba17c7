"""/proc and memory -> snapshots: what runs now, its zombies, limits and waits."""
