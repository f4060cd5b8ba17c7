"""Makes children as Python programs do: 2 by os.fork, 3 by subprocess, 5 by multiprocessing (start method fork)."""

import json
import multiprocessing
import os
import subprocess
import threading


def say(case: str, **values: object) -> None:
    print(json.dumps({"case": case} | values), flush=True)


def reaped_here(pid: int, code: int) -> dict[str, object]:
    here, tid = os.getpid(), threading.get_native_id()
    return {"pid": pid, "ppid": here, "forker_tid": tid, "exit_code": code, "reaper_pid": here, "reaper_tid": tid}


if __name__ == "__main__":
    for code in (10, 11):
        if not (pid := os.fork()):
            os._exit(code)
        os.waitpid(pid, 0)
        say("os-fork", **reaped_here(pid, code))
    for code in (20, 21, 22):
        child = subprocess.Popen(["/bin/sh", "-c", f"exit {code}"])
        child.wait()
        say("subprocess", comm="sh", argv=f"/bin/sh -c 'exit {code}'", **reaped_here(child.pid, code))
    context = multiprocessing.get_context("fork")
    for code in (30, 31, 32, 33, 37):
        process = context.Process(target=os._exit, args=(code,))
        process.start()
        process.join()
        say("multiprocessing", **reaped_here(process.pid, code))
