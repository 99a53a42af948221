"""A read-only feed of the standings, for dashboards and scripts.

Invariant: a feed says nothing to the run; it only subscribes, so that any number may watch and leave.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import zmq

from broker import addresses
from broker import messages as m
from broker.errors import WireError
from broker.names import STANDINGS, new_incarnation, topic
from broker.wire import Codec, Identity


class Feed:
    """Subscribes to the standings of the run whose tracker is at `address`. Used from one thread."""

    def __init__(self, address: str, token: str, hub: str = "tracker") -> None:
        self._hub = hub
        self._codec = Codec(Identity(token, "feed", new_incarnation()), "spoke")
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 8)
        self._socket.setsockopt(zmq.IPV6, int(addresses.is_ipv6(address)))
        self._socket.setsockopt(zmq.SUBSCRIBE, topic(STANDINGS))
        self._socket.connect(addresses.publisher(address))

    def next(self, timeout: float) -> dict[str, Any] | None:
        """The newest standings, waiting up to `timeout` seconds; None if nothing came."""
        deadline = time.monotonic() + timeout
        newest: dict[str, Any] | None = None
        while True:
            wait = 0.0 if newest is not None else max(0.0, deadline - time.monotonic())
            if not self._socket.poll(round(wait * 1000)):
                return newest
            frames = self._socket.recv_multipart()
            with suppress(Exception):  # no message may end the feed, whatever exception reading it raises
                newest = self._read(frames) or newest
            if time.monotonic() >= deadline:
                return newest

    def _read(self, frames: list[bytes]) -> dict[str, Any] | None:
        if len(frames) != 3:
            raise WireError("malformed", f"{len(frames)} frames")
        envelope = self._codec.decode(frames[1], frames[2], (STANDINGS,))
        if not isinstance(envelope.message, m.Standings) or envelope.sender != self._hub:
            return None
        standings: dict[str, Any] = json.loads(frames[2])
        return standings

    def close(self) -> None:
        """Leave."""
        self._socket.close(0)
        self._context.term()
