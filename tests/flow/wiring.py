"""Hubs and spokes in one process, for tests: who they are, and a tracker in small."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import zmq

from broker.hub import Hub
from broker.hubstate import Arrived, FactsArrived, Said
from broker.liveness import Event
from broker.names import new_incarnation, new_token
from broker.policy_spoke import PolicySpoke
from broker.reactor import Reactor
from broker.wire import Identity

DEADLINE = 30.0
TOKEN = new_token()
Reactors = Callable[[], Reactor]
Sockets = Callable[[int], zmq.Socket[bytes]]


def identity(name: str) -> Identity:
    return Identity(TOKEN, name, new_incarnation())


class Ledger:
    """A tracker in small: a thread that makes facts durable in `disk`, which outlives it."""

    def __init__(self, address: str, disk: dict[tuple[str, str], list[str]], **more: Any) -> None:
        self.disk = disk
        self.reactor = Reactor("ledger")
        self.hub = Hub(
            self.reactor,
            identity("tracker"),
            address,
            queue=256,
            last_sequence=lambda source, incarnation: len(disk.get((source, incarnation), ())),
            **more,
        )
        self.said: list[Said] = []
        self.events: list[Event] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set():
            taken = self.hub.take(0.02)
            durable = {}
            for item in taken:
                if isinstance(item, FactsArrived):
                    key = (item.source, item.incarnation)
                    texts = self.disk.setdefault(key, [])
                    assert item.first == len(texts) + 1
                    texts += [text for _, _, text in item.items]
                    durable[key] = len(texts)
                elif isinstance(item, Said):
                    self.said.append(item)
                elif isinstance(item, Event):
                    self.events.append(item)
            if durable:
                self.hub.acknowledge(durable)

    def changes(self, name: str) -> list[str]:
        return [event.change for event in list(self.events) if event.name == name]

    def end(self) -> None:
        self._ending.set()
        self._thread.join(DEADLINE)
        self.reactor.close()
        assert self.reactor.failure is None


def policy_hub(reactor: Reactor, address: str = "tcp://127.0.0.1:0", **more: Any) -> Hub:
    return Hub(reactor, identity("learner-p"), address, **more)


def spoke_to(reactor: Reactor, hub: Hub, name: str = "actor-0", window: int = 2) -> PolicySpoke:
    return PolicySpoke(reactor, identity(name), "learner-p", hub.address, window=window, policy="p")


def weights(number: int) -> dict[str, Any]:
    return {"w": np.full(1000, number, np.float32)}


def send(spoke: PolicySpoke, number: int) -> bool:
    return spoke.send_fragment({"n": np.array([number])}, version=(1, 1), crc=0, steps=1)


def fragments(hub: Hub, arrived: list[Arrived]) -> list[Arrived]:
    """The fragments that have arrived so far."""
    arrived.extend(item for item in hub.take(0.05) if isinstance(item, Arrived))
    return arrived
