"""Stacks -> reasons: whose line it was, what made a process, and why it was reaped."""
