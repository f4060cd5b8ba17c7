"""anyio over trio."""

import anyio


async def main():
    await anyio.run_process(["true"])  # forks # reaps


anyio.run(main, backend="trio")
