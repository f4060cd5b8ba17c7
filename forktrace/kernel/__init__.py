"""Linux -> armed probes: what of the running kernel comes in, and descriptors of what was loaded into it go out (Linux, root).

The only room that knows bcc, bpf(2), or where `probes/` is.
"""
