"""One thread that owns every socket of a role.

Invariant: sockets are made, used and closed on the reactor's thread only, in a context of the role's own that is
terminated at the end; nothing that a role computes can silence them. Other threads leave work with an endpoint and call
`wake`. An endpoint that raises is a bug: it is kept as `failure` and shown by whoever owns the role.
"""

from __future__ import annotations

import contextlib
import math
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

import zmq

IDLE = 0.25


class Endpoint(Protocol):
    """A hub or a spoke, seen from the reactor. All methods are called on its thread."""

    def open(self, reactor: Reactor) -> None:
        """Make the sockets."""

    def on_readable(self, source: zmq.Socket[bytes]) -> None:
        """A socket that was watched has something to read."""

    def on_tick(self, now: float) -> float:
        """Do what is due; returns the time (monotonic seconds) of the next tick. Called after every wake too."""

    def shut(self) -> None:
        """Close the sockets."""


class Reactor:
    """Runs the endpoints of one role on one thread."""

    def __init__(self, name: str = "reactor") -> None:
        self.context = zmq.Context()
        self.failure: BaseException | None = None
        self._endpoints: list[Endpoint] = []
        self._arrivals: list[Endpoint] = []
        self._watched: dict[object, Endpoint] = {}
        self._poller = zmq.Poller()
        self._lock = threading.Lock()
        self._awake = False
        self._closing = False
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._poller.register(self._receiver.fileno(), zmq.POLLIN)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, endpoint: Endpoint) -> None:
        """Hand an endpoint over; it is opened soon, on the thread."""
        with self._lock:
            self._arrivals.append(endpoint)
        self.wake()

    def watch(self, source: zmq.Socket[bytes], endpoint: Endpoint) -> None:
        """Read events of a socket go to this endpoint (on the thread)."""
        self._poller.register(source, zmq.POLLIN)
        self._watched[source] = endpoint

    def unwatch(self, source: zmq.Socket[bytes]) -> None:
        """Stop watching (on the thread)."""
        self._poller.unregister(source)
        self._watched.pop(source, None)

    def wake(self) -> None:
        """Have every endpoint ticked now. Cheap, from any thread."""
        if self._awake:
            return
        self._awake = True
        with contextlib.suppress(OSError):
            self._sender.send(b"w")

    def close(self, timeout: float = 5.0) -> None:
        """Shut every endpoint, end the thread, terminate the context."""
        self._closing = True
        self._awake = False
        self.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _run(self) -> None:
        due: dict[int, float] = {}
        try:
            while not self._closing:
                with self._lock:
                    arrivals, self._arrivals = self._arrivals, []
                for endpoint in arrivals:
                    endpoint.open(self)
                    self._endpoints.append(endpoint)
                    due[id(endpoint)] = 0.0
                now = time.monotonic()
                wait = min((at - now for at in due.values()), default=IDLE)
                events = self._poller.poll(math.ceil(max(0.0, min(wait, IDLE)) * 1000))
                woken = False
                for source, _ in events:
                    if source == self._receiver.fileno():
                        woken = True
                        with contextlib.suppress(BlockingIOError):
                            self._receiver.recv(64)
                        self._awake = False  # after the read: a wake in between is served by the ticks below
                        continue
                    endpoint_of = self._watched.get(source)
                    if endpoint_of is not None:
                        endpoint_of.on_readable(source)
                        due[id(endpoint_of)] = 0.0
                now = time.monotonic()
                for endpoint in self._endpoints:
                    if woken or due[id(endpoint)] <= now:
                        due[id(endpoint)] = endpoint.on_tick(now)
        except BaseException as error:
            self.failure = error
        finally:
            for endpoint in self._endpoints:
                with contextlib.suppress(zmq.ZMQError):
                    endpoint.shut()
            self.context.destroy(linger=0)
            self._receiver.close()
            self._sender.close()


def until(condition: Callable[[], bool], timeout: float, *, step: float = 0.002) -> bool:
    """Wait for a condition with a deadline (seconds). For the ends of things, not for hot paths."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return condition()
        time.sleep(step)
    return True
