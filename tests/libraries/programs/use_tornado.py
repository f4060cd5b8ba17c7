"""tornado's Subprocess is subprocess's, reaped by its loop."""

import tornado.ioloop
import tornado.process


async def main():
    child = tornado.process.Subprocess(["sleep", "0.3"])  # forks
    await child.wait_for_exit()


tornado.ioloop.IOLoop.current().run_sync(main)  # reaps
