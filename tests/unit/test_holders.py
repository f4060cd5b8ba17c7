"""Who has the other end of a pipe, of processes that really have it."""

from __future__ import annotations

import os
import subprocess

from forktrace.now.holders import describe, holders
from forktrace.system.procfs import Proc


def test_who_can_write_what_is_read() -> None:
    """This process and a child that has inherited it, but not who reads; no other file is looked for."""
    read, write = os.pipe()
    name = os.readlink(f"/proc/self/fd/{read}")
    with (
        subprocess.Popen(["sleep", "100"], pass_fds=[write]) as child,
        subprocess.Popen(["sleep", "100"], pass_fds=[read]) as other,
    ):
        found = holders(Proc(), os.getpid(), [(read, name), (0, "/dev/null")])
        reads = holders(Proc(), os.getpid(), [(write, name)])
        for one in (child, other):
            one.kill()
    os.close(read)
    os.close(write)
    assert found.keys() == {name}
    assert {one.pid for one in found[name]} == {os.getpid(), child.pid}
    assert {one.pid for one in reads[name]} == {os.getpid(), other.pid}


def test_a_process_that_is_gone() -> None:
    """Its name is not known, nor its state."""
    with subprocess.Popen(["true"]) as child:
        pass
    assert describe(Proc(), child.pid).state is None
