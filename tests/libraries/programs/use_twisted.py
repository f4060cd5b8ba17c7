"""Twisted reaps when SIGCHLD has woken its reactor."""

from twisted.internet import protocol, reactor


class Quiet(protocol.ProcessProtocol):
    def processEnded(self, reason):
        reactor.stop()


def main():
    reactor.spawnProcess(Quiet(), "sleep", ["sleep", "0.3"])  # forks


reactor.callWhenRunning(main)
reactor.run()  # reaps
