"""Makes children as Python programs do: 2 by os.fork, 3 by subprocess, 5 by multiprocessing (start method fork).

Then 3 that use up time and memory, with what the kernel accounts for them, and one with 6,000 bytes of arguments.
"""

import json
import multiprocessing
import os
import subprocess
import threading
import time


def say(case: str, **values: object) -> None:
    print(json.dumps({"case": case} | values), flush=True)


def reaped_here(pid: int, code: int) -> dict[str, object]:
    here, tid = os.getpid(), threading.get_native_id()
    return {"pid": pid, "ppid": here, "forker_tid": tid, "exit_code": code, "reaper_pid": here, "reaper_tid": tid}


def cgroup_path() -> str:
    with open("/proc/self/cgroup") as file:
        unified = [line.split(":", 2)[2].rstrip() for line in file if line.startswith("0::")]
    return unified[0] if unified else "/"


def work(ms: int, mib: int) -> None:
    memory = bytearray(mib << 20)
    while time.process_time() * 1000 < ms:
        memory[::4096] = memory[::4096]


if __name__ == "__main__":
    for code in (10, 11):
        if not (pid := os.fork()):
            os._exit(code)
        os.waitpid(pid, 0)
        say("os-fork", **reaped_here(pid, code))
    for code in (20, 21, 22):
        child = subprocess.Popen(["/bin/sh", "-c", f"exit {code}"])
        child.wait()
        say("subprocess", cgroup=cgroup_path(), comm="sh", argv=f"/bin/sh -c 'exit {code}'", **reaped_here(child.pid, code))
    context = multiprocessing.get_context("fork")
    for code in (30, 31, 32, 33, 37):
        process = context.Process(target=os._exit, args=(code,))
        process.start()
        process.join()
        say("multiprocessing", **reaped_here(process.pid, code))
    for code in (50, 51, 52):
        if not (pid := os.fork()):
            work(50, code)
            os._exit(code)
        _, _, usage = os.wait4(pid, 0)
        cpu_ms = (usage.ru_utime + usage.ru_stime) * 1000
        say("rusage", cpu_ms=cpu_ms, rss_kb=usage.ru_maxrss, **reaped_here(pid, code))
    child = subprocess.Popen(["/bin/true", "long", "x" * 6000])
    child.wait()
    say("long-argv", notes="argv cut", **reaped_here(child.pid, 0))
