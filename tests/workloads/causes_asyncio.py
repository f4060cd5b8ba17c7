"""Makes children by asyncio, once with each child watcher that this version has, and waits for them in each way."""

import asyncio
import os
import warnings

from witness import VERSION, say

WATCHERS = ("SafeChildWatcher", "FastChildWatcher", "MultiLoopChildWatcher", "ThreadedChildWatcher", "PidfdChildWatcher")
MADE = {"created_by": "asyncio", "reap_cause": "asyncio", "exit_path": "not-python"}


async def children(name):
    child = await asyncio.create_subprocess_exec("/bin/true")
    await child.wait()
    say(f"{name} wait", child.pid, exit_code=0, **MADE)
    child = await asyncio.create_subprocess_exec("/bin/echo", stdout=asyncio.subprocess.PIPE)
    await child.communicate()
    say(f"{name} communicate", child.pid, exit_code=0, **MADE)
    child = await asyncio.create_subprocess_shell("exit 3")
    assert await child.wait() == 3
    say(f"{name} shell", child.pid, exit_code=3, **MADE)
    child = await asyncio.create_subprocess_exec("/bin/sleep", "60")
    child.kill()
    await child.wait()
    values = dict(MADE, exit_path="signal", term_signal="SIGKILL", killer_pid=os.getpid())
    say(f"{name} kill", child.pid, **values)
    several = [await asyncio.create_subprocess_exec("/bin/sleep", "0.05") for _ in range(3)]
    await asyncio.gather(*[child.wait() for child in several])
    for child in several:
        say(f"{name} several", child.pid, exit_code=0, **MADE)


def run(name):
    """Run the cases in a loop of their own, with that watcher; with the version's own for the name `default`."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    if name != "default":
        watcher = getattr(asyncio, name)()
        watcher.attach_loop(loop)
        asyncio.set_child_watcher(watcher)
    loop.run_until_complete(children(name))
    if name != "default":
        asyncio.set_child_watcher(None)
        watcher.close()
    loop.close()
    asyncio.set_event_loop(None)


def main():
    warnings.simplefilter("ignore")
    run("default")
    for name in WATCHERS:
        if VERSION >= (3, 8) and hasattr(asyncio, name):
            run(name)


if __name__ == "__main__":
    main()
