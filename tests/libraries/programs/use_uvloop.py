"""asyncio on the loop of uvloop, which forks and reaps in C."""

import asyncio

import uvloop


async def main():
    child = await asyncio.create_subprocess_exec("true")  # forks
    await child.wait()


uvloop.run(main())  # reaps
