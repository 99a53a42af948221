"""A spoke: PUSH and SUB towards one hub. The part that is the same for every hub.

It says Hello until the hub answers, then once a second; it believes the newest incarnation of the hub that it hears.
Invariant: sockets are touched on the reactor's thread only; a changed address means new sockets and a Hello; the state
that the role reads is behind one lock, and every wait for it has a deadline; no message and no address ends a role:
`quarantine` counts the messages that cannot be read and the addresses that cannot be connected to.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections import Counter, deque
from typing import Literal

import zmq

from broker import addresses
from broker import messages as m
from broker.errors import RequestError, WireError, brief
from broker.names import ALL, topic
from broker.reactor import Reactor
from broker.sending import Payload, send
from broker.wire import Codec, Envelope, Identity

HEARTBEAT = 1.0
GREETING = 0.05
PATIENT_GREETING = 0.25
SUSPECT_AFTER = 1.0
LOST_AFTER = 10.0
TURN = 32
"""Most messages that are read before the reactor serves other sockets and timers."""

HubLife = Literal["unknown", "alive", "suspect", "lost"]


class Spoke:
    """Connects to the hub named `hub` at `address` and keeps saying who it is.

    Subclasses add what passes through: `_on_pulse`, `_on_message`, `_on_new_hub`, `_flow` run on the reactor's thread
    with the lock held.
    """

    def __init__(
        self,
        reactor: Reactor,
        identity: Identity,
        role: m.RoleKind,
        hub: str,
        address: str,
        *,
        policy: str | None = None,
        serves: str | None = None,
        topics: tuple[str, ...] = (),
        queue: int = 256,
    ) -> None:
        if serves is not None and not re.fullmatch(addresses.URL, serves):
            raise RequestError(
                f"{identity.name} serves at {brief(serves)}: give a URL, for example http://127.0.0.1:80"
            )
        self.identity = identity
        self.hub_name = hub
        self.address = address
        self.incarnation: str | None = None
        """The hub's incarnation, once it was heard."""
        self.phase: m.PhaseName = "starting"
        self.reason = ""
        self.superseded = False
        self.quarantine: Counter[str] = Counter()
        self._role, self._policy, self._serves, self._queue = role, policy, serves, queue
        self._topics = (ALL, identity.name, *topics)
        self._codec = Codec(identity, "spoke")
        self._reactor = reactor
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._heard = 0.0
        self._born = time.monotonic()
        self._welcomed = False
        self._next_hello = 0.0
        self._messages: deque[tuple[m.Message, Payload | None]] = deque()
        self._stuck: tuple[Payload, ...] | None = None
        self._redirect: str | None = None
        self._farewell_said = False
        self._leaving = False
        reactor.add(self)

    # --- on the role's threads -------------------------------------------------------------------------------------

    @property
    def hub_life(self) -> HubLife:
        """What the silence of the hub says."""
        if self.incarnation is None:
            return "unknown"
        silence = time.monotonic() - self._heard
        return "alive" if silence < SUSPECT_AFTER else "suspect" if silence < LOST_AFTER else "lost"

    @property
    def silence(self) -> float:
        """Seconds since the hub was heard (since the spoke was made, if never)."""
        return time.monotonic() - (self._heard or self._born)

    def say(self, message: m.Message, payload: Payload | None = None) -> None:
        """Send a message that nothing repeats, once the hub has answered."""
        with self._lock:
            if isinstance(message, m.Status):  # only the newest is of use, however long the hub is away
                self._messages = deque(said for said in self._messages if not isinstance(said[0], m.Status))
            self._messages.append((message, payload))
        self._reactor.wake()

    def redirect(self, address: str) -> None:
        """The hub is elsewhere now."""
        with self._lock:
            if address != self.address:
                self._redirect = address
        self._reactor.wake()

    def farewell(self, reason: str = "", timeout: float = 1.0) -> bool:
        """Say that this role is done; True once it left the process."""
        with self._lock:
            message = m.Farewell(reason=reason, sent_through=self._sent_through())
            self._messages.append((message, None))
            self._farewell_said, self._leaving = False, True
            self._reactor.wake()
            return self._news.wait_for(lambda: self._farewell_said, timeout)

    # --- on the reactor's thread -----------------------------------------------------------------------------------

    def open(self, reactor: Reactor) -> None:
        """Connect both sockets."""
        context = reactor.context
        self._push = context.socket(zmq.PUSH)
        self._subscribe = context.socket(zmq.SUB)
        self._push.setsockopt(zmq.SNDHWM, 64)
        self._subscribe.setsockopt(zmq.RCVHWM, self._queue)
        for opened in (self._push, self._subscribe):
            opened.setsockopt(zmq.LINGER, 0)
            opened.setsockopt(zmq.IPV6, int(addresses.is_ipv6(self.address)))
            opened.setsockopt(zmq.RECONNECT_IVL, 20)
            opened.setsockopt(zmq.RECONNECT_IVL_MAX, 320)
        for name in self._topics:
            self._subscribe.setsockopt(zmq.SUBSCRIBE, topic(name))
        try:
            if not addresses.is_hub(self.address):
                raise WireError("address", f"{brief(self.address)} cannot be connected to")
            self._subscribe.connect(addresses.publisher(self.address))
            self._push.connect(self.address)
        except (WireError, zmq.ZMQError):  # the directory will name another address
            self.quarantine["address"] += 1
        reactor.watch(self._subscribe, self)

    def shut(self) -> None:
        """Close both sockets."""
        self._push.close(0)
        self._subscribe.close(0)

    def on_readable(self, source: zmq.Socket[bytes]) -> None:
        """Read what was published; only the newest version of a policy matters."""
        for _ in range(TURN):
            try:
                frame = source.recv(zmq.NOBLOCK, copy=False)  # the topic
                frames: list[Payload] = []
                while frame.more:
                    frame = source.recv(zmq.NOBLOCK, copy=False)
                    frames.append(frame.buffer)
            except zmq.Again:
                return
            try:
                if not 1 <= len(frames) <= 2:
                    raise WireError("malformed", f"{len(frames)} frames")
                payload = frames[1] if len(frames) == 2 else None
                envelope = self._codec.decode(frames[0], payload, self._topics)
                if envelope.sender != self.hub_name:
                    raise WireError("misdirected", f"from {envelope.sender!r}")
                self._hear(envelope)
            except WireError as error:
                self.quarantine[error.reason] += 1
            except Exception:  # no message may end a role, whatever exception reading it raises
                self.quarantine["malformed"] += 1

    def _hear(self, envelope: Envelope) -> None:
        now = time.monotonic()
        with self._lock:
            if self.incarnation is None or envelope.incarnation > self.incarnation:
                self.incarnation = envelope.incarnation
                self._welcomed = False
                self._next_hello = 0.0
                self._on_new_hub(envelope.incarnation)
            elif envelope.incarnation < self.incarnation:
                return
            self._heard = now
            message = envelope.message
            if isinstance(message, m.Pulse):
                self.phase, self.reason = message.phase, message.reason
                counters = message.spoke
                if counters is not None:
                    if counters.incarnation > self.identity.incarnation:
                        self.superseded = True
                    mine = counters.incarnation == self.identity.incarnation
                    self._welcomed = self._welcomed or mine
                    counters = counters if mine else None
                self._on_pulse(message, counters, now)
            else:
                self._on_message(envelope, now)
            self._news.notify_all()

    def on_tick(self, now: float) -> float:
        """Hello when it is time, then whatever flows."""
        with self._lock:
            if self._redirect is not None:
                self._move(self._redirect)
            if not self._push_stuck():
                return now + 0.005
            due = self._hello(now)
            if self._welcomed:
                while self._messages:
                    message, payload = self._messages[0]
                    if not self._push_message(message, payload):
                        return now + 0.005
                    self._messages.popleft()
                    if isinstance(message, m.Farewell):
                        self._farewell_said = True
                        self._news.notify_all()
                return min(due, self._flow(now))
            return due

    def _hello(self, now: float) -> float:
        if self._leaving and self._farewell_said:
            return now + HEARTBEAT  # after the Farewell nothing is sent: it would count as a return
        if now >= self._next_hello:
            self._push_message(self._hello_message(), None)
            early = now - self._born < 2.0
            wait = HEARTBEAT if self._welcomed else GREETING if early else PATIENT_GREETING
            self._next_hello = now + wait
        return self._next_hello

    def _hello_message(self, *, blocked: bool = False, sent_through: int = 0) -> m.Hello:
        return m.Hello(
            role=self._role,
            pid=os.getpid(),
            host=socket.gethostname()[:255],
            address=self._serves,
            policy=self._policy,
            sent_through=sent_through,
            blocked=blocked,
            version=self._version(),
        )

    def _move(self, address: str) -> None:
        self._reactor.unwatch(self._subscribe)
        self.shut()
        self.address, self._redirect, self._stuck = address, None, None
        self._welcomed, self._next_hello, self._born = False, 0.0, time.monotonic()
        self.open(self._reactor)

    def _push_message(self, message: m.Message, payload: Payload | None) -> bool:
        header = self._codec.encode(message, self.hub_name, payload, hub=self.incarnation)
        return self._push_parts((header,) if payload is None else (header, payload))

    def _push_parts(self, parts: tuple[Payload, ...]) -> bool:
        return send(self._push, parts)

    def _push_stuck(self) -> bool:
        if self._stuck is not None and not self._push_parts(self._stuck):
            return False
        self._stuck = None
        return True

    # --- for subclasses --------------------------------------------------------------------------------------------

    def _version(self) -> tuple[int, int] | None:
        return None

    def _sent_through(self) -> int:
        return 0

    def _on_new_hub(self, incarnation: str) -> None:
        pass

    def _on_pulse(self, pulse: m.Pulse, counters: m.SpokeCounters | None, now: float) -> None:
        pass

    def _on_message(self, envelope: Envelope, now: float) -> None:
        pass

    def _flow(self, now: float) -> float:
        return now + 3600.0
