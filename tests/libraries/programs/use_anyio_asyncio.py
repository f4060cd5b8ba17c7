"""anyio over asyncio."""

import anyio


async def main():
    await anyio.run_process(["true"])  # forks


anyio.run(main)  # reaps
