"""No frame ends a role: mutated from real ones, by a stranger and by an insider, at a hub and at both kinds of spoke.

The sockets stand still here: frames go through the very code that reads them. `tests/flow/test_floods.py` has a share
over real sockets.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from broker.hub import Hub
from broker.policy_spoke import PolicySpoke
from broker.reactor import Reactor
from broker.spoke import Spoke
from broker.tracker_spoke import TrackerSpoke
from broker.wire import Identity
from tests.broker.draws import TOKEN
from tests.broker.fuzz import ACTOR, HUB, Frames, Mutations

SHARE = 2_000
"""Frames of each receiver here; `make soak` has `SOAK` of each."""
SOAK = int(os.environ.get("FUZZ_FRAMES", "3500000"))


class Pipe:
    """A socket that has frames to read: what a reactor would hand over, without the time that sockets take."""

    def __init__(self) -> None:
        self._frames: list[zmq.Frame] = []

    def holds(self, *parts: bytes) -> None:
        self._frames = [zmq.Frame(part) for part in reversed(parts)]
        for frame in self._frames[1:]:
            frame.more = True

    def recv(self, _flags: int = 0, copy: bool = True) -> zmq.Frame:
        if not self._frames:
            raise zmq.Again
        return self._frames.pop()


def hub_reads(hub: Hub) -> Callable[[Frames], None]:
    """What hands frames to a hub and takes what comes of them, as its role does."""
    pipe = Pipe()

    def read(frames: Frames) -> None:
        header, payload = frames
        pipe.holds(header) if payload is None else pipe.holds(header, payload)
        hub.on_readable(pipe)  # type: ignore[arg-type]
        for delivery in hub.take():
            if type(delivery).__name__ == "Arrived":
                hub.settle(delivery.source, delivery.incarnation, delivery.sequence)  # type: ignore[union-attr]
            elif type(delivery).__name__ == "FactsArrived":
                last = delivery.first + len(delivery.items) - 1  # type: ignore[union-attr]
                hub.acknowledge({(delivery.source, delivery.incarnation): last})  # type: ignore[union-attr]

    return read


def spoke_reads(spoke: Spoke) -> Callable[[Frames], None]:
    """What hands frames to a spoke."""
    pipe = Pipe()

    def read(frames: Frames) -> None:
        header, payload = frames
        pipe.holds(b"all\0", header) if payload is None else pipe.holds(b"all\0", header, payload)
        spoke.on_readable(pipe)  # type: ignore[arg-type]

    return read


def attack(folder: Path, receiver: str, count: int, seed: int) -> Any:
    """Hand `count` frames to a receiver whose reactor is live, and see that it is alive. Its quarantine."""
    reactor = Reactor("fuzzed")
    address = f"ipc://{folder}/{receiver}"
    try:
        if receiver in ("tracker", "learner-p"):
            target: Any = Hub(reactor, Identity(TOKEN, receiver, HUB), address)
            read = hub_reads(target)
            frames = Mutations(seed, Identity(TOKEN, "actor-0", ACTOR), receiver, HUB)
        else:
            me, hub = Identity(TOKEN, "actor-0", ACTOR), "learner-p" if receiver == "policy" else "tracker"
            if receiver == "policy":
                target = PolicySpoke(reactor, me, hub, address, window=4, policy="p")
            else:
                target = TrackerSpoke(reactor, me, "actor", address, standings=True)
            read, frames = spoke_reads(target), Mutations(seed, Identity(TOKEN, hub, HUB), "actor-0")
        for number, frame in enumerate(islice(frames, count)):
            read(frame)
            if number % 1000 == 0:
                assert reactor.failure is None
        time.sleep(0.3)  # a tick with what they left
        assert reactor.failure is None
        return SimpleNamespace(quarantine=dict(target.quarantine), target=target)
    finally:
        reactor.close()


RECEIVERS = ("tracker", "learner-p", "policy", "spoke")


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_no_mutated_frame_ends_a_role(tmp_path: Path, receiver: str) -> None:
    over = attack(tmp_path, receiver, SHARE, seed=1)
    assert {"foreign", "malformed", "invalid"} <= set(over.quarantine)
    assert sum(over.quarantine.values()) < SHARE, "some were as they should be"


@pytest.mark.soak
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_millions_of_mutated_frames_end_no_role(tmp_path: Path, receiver: str) -> None:
    over = attack(tmp_path, receiver, SOAK, seed=time.time_ns())
    print(receiver, SOAK, over.quarantine)
