"""Linux -> armed probes: facts of the running kernel come in, descriptors of loaded programs and maps go out (Linux, root).

The only room that knows bcc, bpf(2), or where `probes/` is.
"""
