"""Connects to sockets with all kinds of addresses, and prints as JSON lines which of them are of multiprocessing's."""

import json
import os
import socket
import subprocess
import tempfile

LONGEST = 107  # bytes of a path that a socket can be bound to


def connect(address, is_request, family=socket.AF_UNIX, shown=None):
    """Connect to a listening socket."""
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind(address)
        server.listen()
        client.connect(server.getsockname())
    shown = shown or (address if isinstance(address, str) else address.replace(b"\0", b"@").decode())
    print(json.dumps({"case": "connect", "pid": os.getpid(), "address": shown, "is_request": is_request}), flush=True)


def main():
    folder = tempfile.mkdtemp(prefix="pymp-")
    other = tempfile.mkdtemp(prefix="sockets-")
    connect(f"{folder}/listener-abc_d012", True)
    connect(f"{folder}/sock-0123456789ab", True)
    connect(f"{folder}/".ljust(LONGEST, "x"), True)
    connect(f"{other}/pympler", False)
    connect(f"{other}/listener-abc_d012", False)
    connect(f"{other}/x", False)
    connect(b"\0listener-1234-0", True)
    connect(b"\0listen", False)
    connect(b"\0xlistener-1234-0", False)
    connect(("127.0.0.1", 0), False, socket.AF_INET, "127.0.0.1")
    with socket.socket(socket.AF_UNIX) as client:
        for address in (f"{folder}/nobody", f"{folder}/listener-abc_d012"):
            assert client.connect_ex(address)  # there is none, or nobody listens any more
    subprocess.run(["sh", "-c", ":"], check=True)


main()
