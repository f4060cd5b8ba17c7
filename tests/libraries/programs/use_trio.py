"""trio waits in a thread, and its Popen reaps."""

import trio


async def main():
    await trio.run_process(["true"])  # forks # reaps


trio.run(main)
