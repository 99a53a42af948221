"""A source of every kind of fact that a fold reads, as a process; it may be killed and come again as a new incarnation.

    python mixed_source.py NAME ADDRESS TOKEN_FILE FOLDER STOP_FILE

FOLDER/NAME~INCARNATION is a sequence of 8-byte numbers: each the highest sequence then known to be durable. When
STOP_FILE appears it flushes, and prints how many facts it sent and whether all of them became durable.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from broker.names import new_incarnation
from broker.reactor import Reactor
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Identity
from tests.chaos.durable_log import recorder


def fact(draw: random.Random, name: str, incarnation: str, n: int) -> tuple[str, dict[str, Any]]:
    """The fact `n` of this incarnation: its body says so, whatever its kind is."""
    task = f"{name}.{incarnation}.{n}" if n % 2 else f"common.{draw.randrange(300)}"
    what = draw.randrange(10)
    if what < 4:
        own = {"returns": {"a": draw.gauss(0.0, 1.0), "b": None}, "policies": {"a": "p", "b": "q"}}
        return "episode", {"length": 7, **own, "n": n}
    if what < 6:
        return "progress", {"env_steps": 3, "agent_steps": {"p": 3}, "dropped": {"q": 1}, "n": n}
    if what < 8:
        return "mint", {"generation": "generation-1", "tasks": [{"task": task, "body": {"n": n}}], "n": n}
    if what < 9:
        return "outcome", {"task": task, "score": draw.random(), "n": n}
    return "rollout_error", {"task": task, "traceback": "E", "permanent": bool(n % 2), "n": n}


def main() -> None:
    name, address, token, folder, stop = sys.argv[1:]
    incarnation = new_incarnation()
    record = recorder(Path(folder) / f"{name}~{incarnation}")
    reactor = Reactor(name)
    spoke = TrackerSpoke(reactor, Identity(Path(token).read_text().strip(), name, incarnation), "actor", address)
    spoke.on_news = lambda: record(spoke.durable)
    draw = random.Random(name + incarnation)
    sent = 0
    while not (sent % 64 == 0 and Path(stop).exists()):
        sent += 1
        assert spoke.fact(*fact(draw, name, incarnation, sent), timeout=120) == sent
    flushed = spoke.flush(60.0)
    spoke.farewell("done", 1.0)
    reactor.close()
    print(incarnation, sent, flushed, flush=True)


if __name__ == "__main__":
    main()
