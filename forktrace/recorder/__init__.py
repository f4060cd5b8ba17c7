"""Armed probes -> trace: what they send comes in, a trace file goes out (root)."""
