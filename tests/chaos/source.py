"""A source of facts, as a process: sends as fast as it may, and logs how far the tracker acknowledged.

    python source.py NAME ADDRESS TOKEN_FILE LOG STOP_FILE

The log is a sequence of 8-byte numbers: each the highest sequence then known to be durable. When STOP_FILE appears it
flushes, and prints how many facts it sent and whether all of them became durable.
"""

from __future__ import annotations

import sys
from pathlib import Path

from broker.names import new_incarnation
from broker.reactor import Reactor
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Identity
from tests.chaos.durable_log import recorder


def main() -> None:
    name, address, token, log, stop = sys.argv[1:]
    record = recorder(Path(log))
    reactor = Reactor(name)
    identity = Identity(Path(token).read_text().strip(), name, new_incarnation())
    spoke = TrackerSpoke(reactor, identity, "actor", address)
    spoke.on_news = lambda: record(spoke.durable)
    sent = 0
    while not (sent % 64 == 0 and Path(stop).exists()):
        sent += 1
        body = {"n": sent, "env_steps": 3, "agent_steps": {"p": 3}, "dropped": {}}
        assert spoke.fact("progress", body) == sent
    flushed = spoke.flush(30.0)
    spoke.farewell("done", 1.0)
    reactor.close()
    print(identity.incarnation, sent, flushed, flush=True)


if __name__ == "__main__":
    main()
